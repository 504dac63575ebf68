"""The online monitor of pretraining: how good the representations are so far, and whether they have collapsed."""
import math
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
from mindspore import Tensor
from mindspore.train import Callback

from src.common.logs import logger
from src.data.images import Images, PixelSource, channels_last
from src.data.views import Views
from src.device.dry_run import is_dry_run
from src.distributed.process_group import Process
from src.evaluation import spread
from src.evaluation.features import extract
from src.evaluation.knn import NEIGHBOURS, TEMPERATURE, knn_scores, unit_rows
from src.run.records import MONITOR
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
    first, second = np.split(channels_last(both), 2)
    if test is None or not len(labelled):
        return Probe(choose(train, every, IMAGES), None, first, second)
    return Probe(choose(train, labelled, IMAGES), choose(test, np.arange(len(test.labels)), IMAGES), first, second)


class Healthy(NamedTuple):
    """What a healthy run looks like, and what usually keeps one from it.

    Args:
        trivial_loss: of equal embeddings, as in the function of that name.
        temperature: of the loss.
        dimension: width of the embeddings.
        causes: of a collapse, in words, as far as the run's settings allow for them.
    """

    trivial_loss: float
    temperature: float
    dimension: int
    causes: Tuple[str, ...] = ()


class Monitor(Callback):
    """Measures the network after every ``every`` epochs and after the last one, and watches the loss.

    kNN accuracy and effective rank are of the representations h of images as they are; alignment, uniformity and
    spread are of the embeddings z, of length 1, of augmented views; all in inference mode. Training does not
    notice: no weight changes and no random number is drawn. All ranks take part, rank 0 measures and writes.

    Args:
        model: the network that is trained.
        totals: summed up by the train step.
        probe: what to look at; None only watches the loss.
        every: epochs from one measurement to the next.
        epochs: of the whole run.
        batch_size: images that are encoded at a time.
        healthy: what to compare with.
        process: this rank.
        write: takes the record for metrics.jsonl.
    """

    def __init__(self, model: SimCLR, totals: Tensor, probe: Optional[Probe], every: int, epochs: int, batch_size: int,
                 healthy: Healthy, process: Process, write: Callable[[Dict[str, Any]], None]):
        super().__init__()
        self.model = model
        self.totals = totals
        self.probe = probe
        self.every = every
        self.epochs = epochs
        self.batch_size = batch_size
        self.healthy = healthy
        self.process = process
        self.write = write
        self.losses: List[float] = []
        self.warned = False

    def on_train_epoch_end(self, run_context):
        parameters = run_context.original_args()
        epoch = parameters.cur_epoch_num
        self.losses.append(float(self.totals.asnumpy()[0]) / parameters.batch_num)
        measured: Dict[str, Any] = {}
        if self.probe and (epoch % self.every == 0 or epoch == self.epochs):
            begin = time.perf_counter()
            measured = self.measure()
            seconds = time.perf_counter() - begin
        if not self.process.is_first:
            return
        found = [] if is_dry_run() else symptoms(self.healthy, self.losses, measured.get("embedding_std"))
        if measured:
            self.write({"kind": MONITOR, "epoch": epoch, "protocol": protocol(self.probe), **measured,
                        "collapsed": bool(found), "seconds": round(seconds, 3)})
            log_measured(epoch, measured, self.healthy.dimension, seconds)
        if found and not self.warned:
            self.warned = True
            logger.warning("warning: collapse after epoch %d: %s; likely causes: %s; the run goes on, and if it does "
                           "not recover, begin another without one of them", epoch, " and ".join(found),
                           ", ".join(self.healthy.causes))

    def measure(self) -> Dict[str, Any]:
        """Return the measures of now, on rank 0; the other ranks help, and get none."""
        model, probe = self.model, self.probe

        def represent(pixels: PixelSource) -> np.ndarray:
            return extract(model.encoder, pixels, self.batch_size, self.process, "monitor")

        model.set_train(False)
        of_views, of_bank = represent(np.concatenate([probe.first, probe.second])), represent(probe.bank.pixels)
        of_test = probe.test and represent(probe.test.pixels)
        z = self.process.is_first and model.projection_head(Tensor(of_views)).asnumpy().astype(np.float32)
        model.set_train()
        if not self.process.is_first:
            return {}
        if not all(np.isfinite(rows).all() for rows in (z, of_bank, *([of_test] if probe.test else []))):
            logger.warning("warning: not measured, for the representations of some images are no finite numbers, "
                           "though the loss is one: moving averages that lag, or float16; the run goes on")
            return {}
        first, second = np.split(unit_rows(z), 2)
        return {"knn_accuracy": probe.test and knn_accuracy(of_bank, probe.bank.labels, of_test, probe.test.labels),
                "alignment": spread.alignment(first, second),
                "uniformity": spread.uniformity(first),
                "embedding_std": spread.embedding_std(first),
                "effective_rank": spread.effective_rank(of_bank)}


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


def trivial_loss(images: int, views: int) -> float:
    """Return the loss of equal embeddings, where the views of ``images`` are compared with each other: that of a
    network that tells no images apart."""
    return 2 * math.log(views * (images - 1) + 1)


def symptoms(healthy: Healthy, losses: List[float], embedding_std: Optional[float]) -> List[str]:
    """Say what speaks for a collapse, if anything does.

    Args:
        healthy: what to compare with.
        losses: the epochs' mean losses so far; one epoch alone says nothing, as the warm-up begins with small steps.
        embedding_std: as in src/evaluation/spread.py, or None where it was not measured.
    """
    found, spread_out = [], healthy.dimension**-0.5
    if embedding_std is not None and embedding_std < COLLAPSED * spread_out:
        found.append(f"the embeddings of different images are all but equal (deviation per dimension "
                     f"{embedding_std:.2g}, spread out it is {spread_out:.2g})")
    if len(losses) > 1 and min(losses[-2:]) > healthy.trivial_loss - STUCK * 2 / healthy.temperature:
        found.append(f"the loss is stuck at {losses[-1]:.3f}, and that of equal embeddings is "
                     f"{healthy.trivial_loss:.3f}")
    return found
