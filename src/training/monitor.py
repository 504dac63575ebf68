"""The online monitor of pretraining: how good the representations are so far, and whether they have collapsed."""
import math
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import numpy as np
from mindspore import Tensor
from mindspore.train import Callback

from src.common.logs import logger
from src.data.augmentation import Views
from src.data.images import Images
from src.distributed.process_group import Process
from src.evaluation import spread
from src.evaluation.features import extract
from src.evaluation.knn import NEIGHBOURS, TEMPERATURE, knn_scores, unit_rows
from src.settings.flags import TrainConfig
from src.simclr_model import SimCLR

IMAGES = 10_000       # at most, in the bank, and as many test images
VIEWED_IMAGES = 1024  # at most, whose two views are embedded
MEMORY = 2**29        # bytes at most, of either: 10,000 images of 131 pixels
COLLAPSED = 0.05      # of the healthy spread 1 / sqrt(d): embeddings closer together than this are all but equal
STUCK = 0.01          # a loss this close to the trivial one, in units of 2 / temperature, tells no images apart


class Probe(NamedTuple):
    """The images that a monitor looks at, the same all the time, so that its epochs can be compared.

    ``bank`` holds training images and ``test`` test images for kNN, which is left out where that is None.
    ``first`` and ``second`` are two views of each of some training images, uint8 (N, side, side, 3).
    """

    bank: Images
    test: Optional[Images]
    first: np.ndarray
    second: np.ndarray


def build_probe(views: Views, train: Images, test: Optional[Images]) -> Probe:
    """Choose training and test images at random, and draw ``views``' augmentations for some of the former.

    Training images without a label (-1) get into the bank only where there are no others, and then without kNN.
    """
    def choose(images: Images, rows: np.ndarray, most: int) -> Images:
        count = min(most, MEMORY // int(np.prod(images.pixels.shape[1:])))
        chosen = np.sort(np.random.default_rng(0).permutation(rows)[:count])
        return images._replace(pixels=images.pixels[chosen], labels=images.labels[chosen])

    every, labelled = np.arange(len(train.labels)), np.flatnonzero(train.labels >= 0)
    pixels = choose(train, every, VIEWED_IMAGES).pixels
    ((both,),) = Views(pixels, len(pixels), views.augmentation, views.seed, views.workers).of_epoch(0)
    first, second = np.split(both.transpose(0, 2, 3, 1), 2)
    if test is None or not len(labelled):
        return Probe(choose(train, every, IMAGES), None, first, second)
    return Probe(choose(train, labelled, IMAGES), choose(test, np.arange(len(test.labels)), IMAGES), first, second)


class Monitor(Callback):
    """Measures the network after every ``--eval_every`` epochs and after the last one, and watches the loss.

    kNN accuracy and effective rank are of the representations h of images as they are; alignment, uniformity and
    spread are of the embeddings z, of length 1, of augmented views; all in inference mode. Training does not
    notice: no weight changes and no random number is drawn. All ranks take part, rank 0 measures and writes.

    Args:
        model: the network that is trained.
        totals: summed up by the train step.
        probe: what to look at; None only watches the loss.
        config: the run's resolved settings.
        first_epoch: epochs that lie behind.
        process: this rank.
        write: takes the record for metrics.jsonl.
    """

    def __init__(self, model: SimCLR, totals: Tensor, probe: Optional[Probe], config: TrainConfig,
                 first_epoch: int, process: Process, write: Callable[[Dict[str, Any]], None]):
        super().__init__()
        self.model = model
        self.totals = totals
        self.probe = probe
        self.config = config
        self.first_epoch = first_epoch
        self.process = process
        self.write = write
        self.losses: List[float] = []
        self.warned = False

    def on_train_epoch_end(self, run_context):
        parameters = run_context.original_args()
        epoch = self.first_epoch + parameters.cur_epoch_num
        self.losses.append(float(self.totals.asnumpy()[0]) / parameters.batch_num)
        measured: Dict[str, Any] = {}
        if self.probe and (epoch % self.config.eval_every == 0 or epoch == self.config.epoch_size):
            begin = time.perf_counter()
            measured = self.measure()
            seconds = time.perf_counter() - begin
        if not self.process.is_first:
            return
        found = symptoms(self.config, self.losses, measured.get("embedding_std"))
        if measured:
            self.write({"kind": "monitor", "epoch": epoch, "protocol": protocol(self.probe), **measured,
                        "collapsed": bool(found), "seconds": round(seconds, 3)})
            log_measured(epoch, measured, self.config.projection_dimension, seconds)
        if found and not self.warned:
            self.warned = True
            logger.warning("warning: collapse after epoch %d: %s; likely causes: %s; the run goes on", epoch,
                           " and ".join(found), ", ".join(likely_causes(self.config)))

    def measure(self) -> Dict[str, Any]:
        """Return the measures of now, on rank 0; the other ranks help, and get none."""
        model, probe = self.model, self.probe

        def represent(pixels: np.ndarray) -> np.ndarray:
            return extract(model.encoder, pixels, self.config.batch_size, self.process, "monitor")

        model.set_train(False)
        of_views, of_bank = represent(np.concatenate([probe.first, probe.second])), represent(probe.bank.pixels)
        of_test = probe.test and represent(probe.test.pixels)
        measured = {}
        if self.process.is_first:
            first, second = np.split(unit_rows(model.projection_head(Tensor(of_views)).asnumpy().astype(np.float32)), 2)
            measured = {"knn_accuracy": probe.test and knn_accuracy(of_bank, probe.bank.labels, of_test,
                                                                    probe.test.labels),
                        "alignment": spread.alignment(first, second),
                        "uniformity": spread.uniformity(first),
                        "embedding_std": spread.embedding_std(first),
                        "effective_rank": spread.effective_rank(of_bank)}
        model.set_train()
        return measured


def knn_accuracy(bank: np.ndarray, bank_labels: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of ``rows`` (M, features) whose class weighted kNN in ``bank`` (N, features) finds."""
    class_num = 1 + int(max(bank_labels.max(), labels.max()))
    return float((knn_scores(bank, bank_labels, rows, class_num).argmax(1) == labels).mean())


def protocol(probe: Probe) -> str:
    """Say how the measures of ``probe`` are come by."""
    bank, knn = len(probe.bank.labels), "no kNN"
    if probe.test:
        knn = (f"weighted kNN (cosine, k={min(NEIGHBOURS, bank)}, temperature {TEMPERATURE}) of "
               f"{len(probe.test.labels)} test images among {bank} training images")
    return (f"{knn}; effective rank of {bank} training images; alignment, uniformity and deviation per dimension of "
            f"the normalised embeddings of {len(probe.first)} augmented training images; all in inference mode")


def log_measured(epoch: int, measured: Dict[str, Any], dimension: int, seconds: float) -> None:
    """Log the measures of an epoch as one line."""
    accuracy = measured["knn_accuracy"]
    logger.info("monitor, epoch %d: kNN %s, alignment %.3f, uniformity %.3f, embedding std %.4f (spread out: %.4f), "
                "effective rank %.1f; %.1f s", epoch, "not measured" if accuracy is None else f"{100 * accuracy:.2f} %",
                measured["alignment"], measured["uniformity"], measured["embedding_std"], dimension**-0.5,
                measured["effective_rank"], seconds)


def trivial_loss(config: TrainConfig) -> float:
    """Return the loss of equal embeddings, 2 ln(2NB - 1): that of a network that tells no images apart."""
    return 2 * math.log(2 * config.batch_size * (config.device_num if config.cross_device_negatives else 1) - 1)


def symptoms(config: TrainConfig, losses: List[float], embedding_std: Optional[float]) -> List[str]:
    """Say what speaks for a collapse, if anything does.

    Args:
        config: the run's resolved settings.
        losses: the epochs' mean losses so far; one epoch alone says nothing, as the warm-up begins with small steps.
        embedding_std: as in ``representation_metrics``, or None where it was not measured.
    """
    found, healthy, trivial = [], config.projection_dimension**-0.5, trivial_loss(config)
    if embedding_std is not None and embedding_std < COLLAPSED * healthy:
        found.append(f"the embeddings of different images are all but equal (deviation per dimension "
                     f"{embedding_std:.2g}, spread out it is {healthy:.2g})")
    if len(losses) > 1 and min(losses[-2:]) > trivial - STUCK * 2 / config.temperature:
        found.append(f"the loss is stuck at {losses[-1]:.3f}, and that of equal embeddings is {trivial:.3f}")
    return found


def likely_causes(config: TrainConfig) -> List[str]:
    """Say what usually makes a network collapse, as far as ``config`` allows it."""
    causes = [f"--learning_rate {config.learning_rate:g} is too high (or far too low, where the loss alone is stuck)",
              f"--temperature {config.temperature:g} is too high or too low"]
    if not config.head_batch_norm:
        causes.append("there is no batch norm in the projection head (--head_batch_norm True)")
    if config.crop_min_scale > 0.8 or not config.jitter_strength:
        causes.append("the augmentation is off or weak (--crop_min_scale, --jitter_strength)")
    return [*causes, "the training images are damaged or all alike"]
