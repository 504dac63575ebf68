"""The monitor of pretraining: how good the representations are after an epoch, and whether they have collapsed."""
import math
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

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
MEMORY = 2**29        # bytes at most, of each: less than 10,000 images only above 133 x 133 pixels
COLLAPSED = 0.05      # of the healthy spread 1 / sqrt(d): embeddings closer together than this are all but equal
# A loss this close to the trivial one tells no images apart, in units of 2 / temperature: the loss has the factor 2,
# and its similarities have the factor 1 / temperature.
STUCK = 0.01


class Probe(NamedTuple):
    """The images that a monitor measures with, the same in every epoch.

    ``bank`` holds training images and ``test`` test images for kNN; without test images there is no kNN. ``first``
    and ``second`` are two views of each of some training images, uint8 (N, side, side, 3).
    """

    bank: Images
    test: Optional[Images]
    first: np.ndarray
    second: np.ndarray


def build_probe(views: Views, train: Images, test: Optional[Images]) -> Probe:
    """Choose training and test images at random, and augment some of the training images as ``views`` does.

    The bank takes labelled images; where none has a label (-1), it takes the others, and there is no kNN.
    """
    def choose(images: Images, rows: np.ndarray, most: int) -> Images:
        count = min(most, MEMORY // int(np.prod(images.pixels.shape[1:])))
        chosen = np.sort(np.random.default_rng(0).permutation(rows)[:count])
        return images._replace(pixels=images.pixels[chosen], labels=images.labels[chosen])

    all_rows, labelled = np.arange(len(train.labels)), np.flatnonzero(train.labels >= 0)
    pixels = choose(train, all_rows, VIEWED_IMAGES).pixels
    # One batch of one column; no rank, so that all ranks draw the same views.
    ((both,),) = Views(pixels, len(pixels), views.augmentation, views.seed, views.workers).of_epoch(0)
    first, second = np.split(channels_last(both), 2)
    if test is None or not len(labelled):
        return Probe(choose(train, all_rows, IMAGES), None, first, second)
    return Probe(choose(train, labelled, IMAGES), choose(test, np.arange(len(test.labels)), IMAGES), first, second)


class Monitor(Callback):
    """Measures the network after every ``every`` epochs and after the last one, and warns of a collapse.

    kNN accuracy and effective rank measure the representations h of images without augmentation. Alignment, uniformity
    and deviation measure the embeddings z of augmented views, scaled to length 1. The network is in inference mode. No
    weight changes and no random number is drawn, so the training stays the same. All ranks encode, and rank 0 measures
    and writes.

    Without a ``probe`` the monitor only watches the loss, the first of ``totals``. ``batch_size`` images are encoded at
    a time.
    """

    def __init__(self, model: SimCLR, totals: Tensor, probe: Optional[Probe], every: int, epochs: int, batch_size: int,
                 trivial_loss: float, temperature: float, process: Process, write: Callable[[Dict[str, Any]], None]):
        super().__init__()
        self.model = model
        self.totals = totals
        self.probe = probe
        self.every = every
        self.epochs = epochs
        self.batch_size = batch_size
        self.trivial_loss = trivial_loss
        self.temperature = temperature
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
        dimension = self.model.projection_head.dense2.out_channels
        signs = [] if is_dry_run() else signs_of_collapse(
            self.losses, self.trivial_loss, self.temperature, measured.get("embedding_std"), dimension)
        if measured:
            self.write({"kind": MONITOR, "epoch": epoch, "protocol": protocol(self.probe), **measured,
                        "collapsed": bool(signs), "seconds": round(seconds, 3)})
            log_measured(epoch, measured, dimension, seconds)
        if signs and not self.warned:
            self.warned = True
            logger.warning("warning: collapse after epoch %d: %s; the usual causes are a wrong --learning_rate or "
                           "--temperature, no --head_batch_norm, weak augmentation, and images that are all alike; the "
                           "run goes on, and if it does not recover, begin another", epoch, " and ".join(signs))

    def measure(self) -> Dict[str, Any]:
        """Return the measurements, on rank 0; the other ranks help to encode and return nothing."""
        model, probe = self.model, self.probe

        def represent(pixels: PixelSource) -> np.ndarray:
            return extract(model.encoder, pixels, self.batch_size, self.process, "monitor")

        model.set_train(False)
        h_views, h_bank = represent(np.concatenate([probe.first, probe.second])), represent(probe.bank.pixels)
        h_test = probe.test and represent(probe.test.pixels)
        z = self.process.is_first and model.projection_head(Tensor(h_views)).asnumpy().astype(np.float32)
        model.set_train()
        if not self.process.is_first:
            return {}
        if not all(np.isfinite(rows).all() for rows in (z, h_bank, *([h_test] if probe.test else []))):
            # The loss may be finite all the same: there, batch norm uses the batch's statistics, here moving averages.
            logger.warning("warning: not measured, because the representations of some images are not finite: moving "
                           "averages that lag behind, or float16; the run goes on")
            return {}
        first, second = np.split(unit_rows(z), 2)
        return {"knn_accuracy": probe.test and knn_accuracy(h_bank, probe.bank.labels, h_test, probe.test.labels),
                "alignment": spread.alignment(first, second),
                "uniformity": spread.uniformity(first),
                "embedding_std": spread.embedding_std(first),
                "effective_rank": spread.effective_rank(h_bank)}


def knn_accuracy(bank: np.ndarray, bank_labels: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of ``rows`` (M, features) whose class weighted kNN in ``bank`` (N, features) finds."""
    class_num = 1 + int(max(bank_labels.max(), labels.max()))
    return float((knn_scores(bank, bank_labels, rows, class_num).argmax(1) == labels).mean())


def protocol(probe: Probe) -> str:
    """Return in words how ``probe`` is measured."""
    bank, knn = len(probe.bank.labels), "no kNN"
    if probe.test:
        knn = (f"weighted kNN (cosine, k={min(NEIGHBOURS, bank)}, temperature {TEMPERATURE}) of "
               f"{len(probe.test.labels)} test images among {bank} training images")
    return (f"{knn}; effective rank of {bank} training images; alignment, uniformity and deviation per dimension of "
            f"the normalised embeddings of {len(probe.first)} augmented training images; all in inference mode")


def log_measured(epoch: int, measured: Dict[str, Any], dimension: int, seconds: float) -> None:
    """Log the measurements of an epoch as one line."""
    accuracy = measured["knn_accuracy"]
    logger.info("monitor, epoch %d: kNN %s, alignment %.3f, uniformity %.3f, embedding std %.4f (spread out: %.4f), "
                "effective rank %.1f; %.1f s", epoch, "not measured" if accuracy is None else f"{100 * accuracy:.2f} %",
                measured["alignment"], measured["uniformity"], measured["embedding_std"], dimension**-0.5,
                measured["effective_rank"], seconds)


def trivial_loss(images: int, views: int) -> float:
    """Return the loss of a network that maps everything to one embedding, for batches of ``images`` with ``views``."""
    return 2 * math.log(views * (images - 1) + 1)


def signs_of_collapse(losses: List[float], trivial: float, temperature: float, embedding_std: Optional[float],
                      dimension: int) -> List[str]:
    """Return the signs of a collapse in words; none in a healthy run.

    ``losses`` are the epochs' mean losses so far, ``trivial`` is ``trivial_loss``'s, and ``embedding_std`` is
    None where it was not measured.
    """
    signs, spread_out = [], dimension**-0.5
    if embedding_std is not None and embedding_std < COLLAPSED * spread_out:
        signs.append(f"the embeddings of different images are all but equal (deviation per dimension "
                     f"{embedding_std:.2g}; spread over the sphere it would be {spread_out:.2g})")
    # The first epoch alone is no sign: the warm-up begins with small steps.
    if len(losses) > 1 and min(losses[-2:]) > trivial - STUCK * 2 / temperature:
        signs.append(f"the loss is stuck at {losses[-1]:.3f}, and that of equal embeddings is {trivial:.3f}")
    return signs
