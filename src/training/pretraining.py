"""What train.py does beside the method: how a run begins, which settings follow from that, and what watches it."""
from typing import List, NamedTuple, Optional, Tuple

import numpy as np
from mindspore import Parameter
from mindspore.train import Callback

from src import dataset
from src.common.errors import UserError
from src.common.files import writing
from src.common.logs import logger
from src.data.images import Images, fingerprint
from src.data.views import Views
from src.distributed.collectives import share, sum_over_ranks
from src.lr_generator import default_learning_rate, default_scaling, default_warmup
from src.run import checkpoint, inputs, records
from src.run.checkpoint import Checkpoint
from src.run.folder import Run
from src.run.saver import Saver
from src.settings.augmentation import PAPER_LARGE, PAPER_SMALL
from src.settings.given import Given, Role, values_of
from src.settings.network import SMALL_SIDE, Network
from src.settings.scripts import TrainSettings
from src.simclr_model import SimCLR
from src.training.callbacks import EpochReport, Progress, SaveCheckpoint
from src.training.loop import Learner
from src.training.monitor import Healthy, Monitor, build_probe, trivial_loss
from src.weights import encoders


class Start(NamedTuple):
    """How a run begins: from the checkpoint of a run that is ``resumed``, with the weights of a ``source``, or anew."""

    resumed: Optional[Checkpoint] = None
    source: Optional[Checkpoint] = None

    def epoch(self, settings: TrainSettings) -> int:
        """Return the epochs that lie behind."""
        return self.resumed.info["epoch"] if self.resumed else settings.pretrain_epoch_size

    def load_into(self, learner: Learner, model: SimCLR) -> None:
        """Load all the state of a resumed run, or given weights; without either nothing happens.

        Raises:
            UserError: they do not fit the network, or the layers of this CPU.
        """
        if self.resumed:
            if "loss_scale" in self.resumed.parameters and not learner.scaler:
                raise UserError(f"--resume: {self.resumed.path} was trained in float16, with a loss scale, which the "
                                "CPU's own layers do without; go on with --cpu_layers mindspore")
            checkpoint.load_into(learner.state(), self.resumed.parameters, str(self.resumed.path))
        elif self.source:
            weights = {name: value for name, value in self.source.parameters.items()
                       if name.startswith(("encoder.", "projection_head."))}
            has_head = self.source.network.projection_dimension is not None
            checkpoint.load_into((model if has_head else model.encoder).get_parameters(), weights,
                                 f"--pre_trained_path: {self.source.path}")


def find_start(given: Given, run: Run) -> Start:
    """Return how a run begins; rank 0 alone reads checkpoints.

    Raises:
        UserError: the folder, or its place in a cloud, holds a run that would be overwritten; the given weights are no
            checkpoint.
    """
    resumed = run.read(lambda: _find_resumed(given, run))
    if resumed or not given["pre_trained_path"]:
        return Start(resumed)
    return Start(source=run.read(lambda: encoders.load(given["pre_trained_path"], "pre_trained_path")))


def _find_resumed(given: Given, run: Run) -> Optional[Checkpoint]:
    series = run.layout.checkpoints
    if run.storage:
        if given["resume"]:
            run.fetch()
        elif run.storage.holds_run():
            raise UserError(f"--train_url: {given['train_url']} already holds a run; go on with it with --resume True, "
                            "or name another place")
    found = checkpoint.newest_whole(series, checkpoint.ENCODER, "resume") if given["resume"] else None
    if found:
        if "global_batch" not in found.info:
            raise UserError(f"--resume: {found.path} was converted or fine-tuned, and is no run of train.py; begin one "
                            "with its weights: --pre_trained_path, and another --train_output_path")
        return found
    if not given["resume"] and (series.files() or _has_epochs(run)):
        raise UserError(f"--train_output_path: {run.layout.path} already holds a run; go on with it with "
                        "--resume True, or name another folder")
    if given["resume"]:
        if _has_epochs(run):
            raise UserError(f"--resume: {run.layout.path} has the records of a run, and no checkpoint in "
                            f"{series.folder}; bring one back, or name another folder")
        logger.info("no checkpoint in %s yet: the run begins", series.folder)
    return None


def _has_epochs(run: Run) -> bool:
    """Return whether the folder has the records of a training, though it was ended before its first checkpoint."""
    return any(record["kind"] == records.PRETRAIN for record in records.read(run.layout.records, quiet=True))


def resolve(given: Given, start: Start, world_size: int) -> Tuple[TrainSettings, Network]:
    """Fill in what follows from the checkpoint that a run begins with, from the images and from other settings.

    Raises:
        UserError: the user wants something else than the checkpoint has, or what does not go together.
    """
    found = start.resumed or start.source
    if start.resumed:
        stored = {**found.info["settings"], **found.network.settings}
        del stored["batch_size"]
        given = _keep_global_batch(given.adopt(stored, str(found.path)), found, world_size)
    elif found:
        given = given.adopt({name: value for name, value in found.network.settings.items() if name != "image_size"},
                            str(found.path))
    if not start.resumed:  # --resume on a folder without a run
        TrainSettings.check_beginning(given)
    given = inputs.fit_workers(_follow_paper(inputs.follow_images(given)))
    if given["learning_rate"] is None:
        scaling = given["lr_scaling"] or default_scaling(given["optimizer"])
        given = given.fill(lr_scaling=scaling, learning_rate=default_learning_rate(
            given["optimizer"], given["batch_size"] * world_size, scaling))
    if not start.resumed:
        given = given.fill(warmup_epochs=default_warmup(given["warmup_epochs"], given["epoch_size"]))
    settings = given.resolved()
    mean, std = inputs.normalisation(settings.dataset_name, settings.normalize)
    if found:  # what its pixels were normalised by, whatever the data set has now
        mean, std = found.network.mean, found.network.std
    return settings, Network.of({**values_of(settings, Role.NETWORK), "mean": mean, "std": std})


def _follow_paper(given: Given) -> Given:
    """Fill in the transformations that the paper has for images of this size."""
    paper = PAPER_SMALL if given["image_size"] <= SMALL_SIDE else PAPER_LARGE
    return given.fill(**{name: value for name, value in paper._asdict().items() if given[name] is None})


def _keep_global_batch(given: Given, resumed: Checkpoint, world_size: int) -> Given:
    """Share a resumed run's images per step among the devices of now, for its schedule counts these steps."""
    global_batch = resumed.info["global_batch"]
    batch_size = global_batch // world_size
    if batch_size * world_size != global_batch or batch_size < 2:
        raise UserError(f"--device_num: got {world_size}, but {resumed.path} was trained with {global_batch} "
                        "images per step; take a number of devices that divides them")
    if given.chosen.get("batch_size", batch_size) != batch_size:
        raise UserError(f"--batch_size: got {given['batch_size']}, but {resumed.path} was trained with {global_batch} "
                        f"images per step, {batch_size} on each of {world_size} devices; leave the flag out")
    return given.fill(batch_size=batch_size)


def check_same_images(images: Images, start: Start, run: Run) -> str:
    """Return the fingerprint of the training images.

    Raises:
        UserError: this rank has others than rank 0, or than the run that is resumed.
    """
    then = start.resumed and start.resumed.info["data"]
    data = inputs.check_same(images.pixels, run, "train_dataset_path", "training")
    with run.together():
        if then and then != data:
            raise UserError(f"--train_dataset_path: its training images ({data}) are not those that "
                            f"{start.resumed.path} was trained on ({then}); a run resumes on the same data")
    return data


def saver(settings: TrainSettings, network: Network, learner: Learner, data: str, run: Run) -> Saver:
    """Return what saves the checkpoint of an epoch, in this run's folder and its place in a cloud."""
    info = {"holds": checkpoint.ENCODER, "network": network, "data": data,
            "global_batch": settings.batch_size * run.process.world_size,
            "settings": values_of(settings, Role.LEARNING)}
    series = run.layout.checkpoints

    def write(epoch: int, state: List[Parameter]) -> None:
        with writing("train_output_path", series.folder):
            run.flush_records()
            checkpoint.save_epoch(series, epoch, state, info, settings.keep_checkpoint_max)
        run.sync()

    return Saver(learner.state(), write)


def begin_files(start: Start, settings: TrainSettings, run: Run, save: Saver) -> None:
    """Say how the run begins, and bring its files there: the records of a resumed one, the checkpoint of a new one."""
    epoch = start.epoch(settings)
    if start.resumed:
        logger.info("resumed after epoch %d of %d from %s", epoch, settings.epoch_size, start.resumed.path)
        if run.process.is_first:
            with writing("train_output_path", run.layout.path):
                checkpoint.go_back_to(start.resumed, run.layout.checkpoints, settings.keep_checkpoint_max)
                records.keep(run.layout.records, lambda record: record["kind"] not in (
                    records.PRETRAIN, records.MONITOR) or record["epoch"] <= epoch)
        return
    if start.source:
        has_head = start.source.network.projection_dimension is not None
        logger.info("weights from %s, %s; %s anew", start.source.path, checkpoint.after(start.source.info["epoch"]),
                    "the optimizer begins" if has_head else "projection head and optimizer begin")
    if run.process.is_first:
        save(epoch)
        save.wait()  # a folder that cannot be written shows now, not after an epoch


def callbacks(settings: TrainSettings, learner: Learner, model: SimCLR, views: Views, images: Images,
              save: Saver, run: Run) -> List[Callback]:
    """Return what happens beside the steps; rank 0 alone shows progress and saves."""
    process, totals = run.process, learner.step.totals
    global_batch = settings.batch_size * process.world_size
    compared = global_batch if settings.cross_device_negatives else settings.batch_size
    healthy = Healthy(trivial_loss(compared, settings.views), settings.temperature,
                      settings.projection_dimension, tuple(likely_causes(settings)))
    describe(settings, learner, model, len(images.pixels), len(views), process.world_size, healthy)
    probe = build_probe(views, images, load_test(settings, run)) if settings.eval_every else None
    found = [EpochReport(records.PRETRAIN, "contrastive_accuracy", totals, model.get_parameters(), learner.rates,
                         global_batch, run.records.add),
             Monitor(model, totals, probe, settings.eval_every, settings.epoch_size, settings.batch_size, healthy,
                     process, run.records.add)]
    if process.is_first:
        found = [Progress(totals, settings.epoch_size, global_batch), *found,
                 SaveCheckpoint(save, settings.save_checkpoint_epochs, settings.epoch_size)]
    return found


def load_test(settings: TrainSettings, run: Run) -> Optional[Images]:
    """Return the test images for the monitor; training goes on without them, so None where a rank has none."""
    test, problem = None, "they are not the same on every rank: give every machine the same"
    try:
        test = dataset.load(settings.dataset_name, settings.train_dataset_path, "test", download=settings.download,
                            side=settings.image_size)
    except UserError as error:
        problem = str(error)
    mine = fingerprint(test.pixels) if test else "none"
    equal = np.array([mine == share(mine, run.process) and test is not None], np.float32)
    # Every rank has its say, also one without images: the others wait for it.
    if sum_over_ranks(equal, run.process)[0] == run.process.world_size:
        return test
    logger.warning("warning: no kNN accuracy during the run, for want of test images (%s); training does without, and "
                   "linear_eval.py measures it afterwards", problem)
    return None


def likely_causes(settings: TrainSettings) -> List[str]:
    """Say what usually makes a network collapse, as far as ``settings`` allow it."""
    causes = [f"--learning_rate {settings.learning_rate:g} is too high (or far too low, where the loss alone is stuck)",
              f"--temperature {settings.temperature:g} is too high or too low"]
    if not settings.head_batch_norm:
        causes.append("there is no batch norm in the projection head (--head_batch_norm True)")
    if settings.crop_min_scale > 0.8 or not settings.jitter_strength:
        causes.append("the augmentation is off or weak (--crop_min_scale, --jitter_strength)")
    return [*causes, "the training images are damaged or all alike"]


def describe(settings: TrainSettings, learner: Learner, model: SimCLR, count: int, steps_per_epoch: int,
             world_size: int, healthy: Healthy) -> None:
    """Log what is about to be done, with ``count`` images, and what is trained."""
    trained = sum(parameter.size for parameter in model.trainable_params())
    def every(epochs: int) -> str:
        return "every epoch" if epochs == 1 else f"every {epochs} epochs and the last"

    measured = f", kNN accuracy and spread after {every(settings.eval_every)}" if settings.eval_every else ""
    logger.info("about to pretrain %s on %s images of %s, without labels, up to epoch %d; a checkpoint after %s%s",
                settings.encoder, f"{count:,}", settings.dataset_name, settings.epoch_size,
                every(settings.save_checkpoint_epochs), measured)
    logger.info("%s, width x %g, %s stem: %d features, projected to %d; %s parameters to train", settings.encoder,
                settings.width_multiplier, settings.stem, model.encoder.features, settings.projection_dimension,
                f"{trained:,}")
    if learner.scaler:
        logger.info("mixed precision %s, loss scale %g", settings.amp_level, learner.scaler.scale_value.asnumpy())
    batch = f"{world_size} x {settings.batch_size}" if world_size > 1 else str(settings.batch_size)
    logger.info("%d epochs of %d steps of %s images in %d views; %s, learning rate up to %g, warm-up %g epochs, then "
                "%s", settings.epoch_size, steps_per_epoch, batch, settings.views, settings.optimizer,
                settings.learning_rate, settings.warmup_epochs, settings.lr_schedule)
    logger.info("an untrained network has a loss of about %.2f; the first step compiles the graph: seconds on a CPU, "
                "minutes on Ascend", healthy.trivial_loss)
