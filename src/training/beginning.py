"""How train.py begins: with which weights, settings and images, and in which state of its folder."""
from typing import Any, Dict, NamedTuple, Optional, Tuple

import numpy as np

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
from src.run.layout import PRETRAINING
from src.settings.augmentation import PAPER_LARGE, PAPER_SMALL
from src.settings.given import Given, Role, values_of
from src.settings.network import SMALL_SIDE, Network
from src.settings.scripts import TrainSettings
from src.training.following import follow
from src.training.loop import Learner
from src.weights import encoders


class Start(NamedTuple):
    """What a run begins with: the checkpoint that it is ``resumed`` from, the weights of ``source``, or nothing."""

    resumed: Optional[Checkpoint] = None
    source: Optional[Checkpoint] = None

    def epochs_done(self, settings: TrainSettings) -> int:
        """Return how many epochs are done."""
        return self.resumed.info["epoch"] if self.resumed else settings.pretrain_epoch_size

    def load_into(self, learner: Learner) -> None:
        """Load the whole state of a resumed run, or given weights.

        Raises a UserError where they do not fit the network.
        """
        if self.resumed:
            parameters, state = _without_loss_scale(self.resumed, learner)
            checkpoint.load_into(state, parameters, str(self.resumed.path))
        elif self.source:
            weights = {name: value for name, value in self.source.parameters.items()
                       if name.startswith(("encoder.", "projection_head."))}
            target = learner.model if _has_head(self.source) else learner.model.encoder
            checkpoint.load_into(target.get_parameters(), weights, f"--pre_trained_path: {self.source.path}")
            logger.info("weights from %s, %s; %s anew", self.source.path, checkpoint.after(self.source.info["epoch"]),
                        "the optimizer begins" if _has_head(self.source) else "projection head and optimizer begin")


def _has_head(source: Checkpoint) -> bool:
    return source.network.projection_dimension is not None


def _without_loss_scale(resumed: Checkpoint, learner: Learner) -> Tuple[Dict[str, Any], Any]:
    """Return the checkpoint's parameters and the learner's, without a loss scale that only one of the two has."""
    # float16 needs a loss scale, and bfloat16, which the CPU's own layers compute in, does not. All else is the same.
    parameters, state = resumed.parameters, learner.state()
    if ("loss_scale" in parameters) != bool(learner.scaler):
        logger.info("the loss scale %s", "begins again, because the checkpoint has none" if learner.scaler else
                    "of the checkpoint is left out, because these layers need none")
        parameters = {name: value for name, value in parameters.items() if not name.startswith("loss_scale")}
        state = [parameter for parameter in state if not parameter.name.startswith("loss_scale")]
    return parameters, state


def begin(given: Given, run: Run) -> Tuple[Start, TrainSettings, Network, Images, str]:
    """Find the checkpoint that a run begins with, resolve the settings and load the images; nothing is written yet.

    The last value returned is the fingerprint of the images. Raises a UserError where something is missing, contradicts
    the checkpoint, or would overwrite a run.
    """
    start = _find_start(given, run)
    process = run.process
    if not start.resumed:  # a resumed run keeps its own
        given = inputs.choose_precision(given, process)
    with run.together():
        settings, network = resolve(given, start, process.world_size)
        inputs.stage(settings.data_url, settings.dataset_name, settings.train_dataset_path)
        images = dataset.load(settings.dataset_name, settings.train_dataset_path, "pretrain",
                              num_samples=settings.num_samples, download=settings.download, side=settings.image_size)
        inputs.check_apart(images, run.layout.path)
        inputs.check_batch(len(images.pixels), settings.batch_size, process.world_size)
    return start, settings, network, images, _check_same_images(images, start, run)


def _find_start(given: Given, run: Run) -> Start:
    resumed = run.read(lambda: _find_resumed(given, run))
    if resumed or not given["pre_trained_path"]:
        return Start(resumed)
    return Start(source=run.read(lambda: encoders.load(given["pre_trained_path"], "pre_trained_path")))


def _find_resumed(given: Given, run: Run) -> Optional[Checkpoint]:
    """Return the checkpoint to resume from, or None where a run begins."""
    series = run.layout.checkpoints
    if run.storage:
        if given["resume"]:
            run.fetch()
        elif run.storage.holds_run:
            raise UserError(f"--train_url: {given['train_url']} already holds a run; resume it with --resume True, or "
                            "name another place")
    if not given["resume"]:
        if series.files() or _has_epochs(run):
            raise UserError(f"--train_output_path: {run.layout.path} already holds a run; go on with it with "
                            "--resume True, or name another folder")
        return None
    newest = checkpoint.newest_whole(series, checkpoint.ENCODER, "resume")
    if newest and "global_batch" not in newest.info:
        raise UserError(f"--resume: {newest.path} was converted or fine-tuned, and is no run of train.py; begin one "
                        "with its weights: --pre_trained_path, and another --train_output_path")
    if not newest:
        if _has_epochs(run):
            raise UserError(f"--resume: {run.layout.path} has the records of a run, and no checkpoint in "
                            f"{series.folder}; bring one back, or name another folder")
        logger.info("no checkpoint in %s yet: the run begins", series.folder)
    return newest


def _has_epochs(run: Run) -> bool:
    """Return whether the folder has the records of a training, which may have no checkpoint left."""
    return any(record["kind"] == records.PRETRAIN for record in records.read(run.layout.records, quiet=True))


def resolve(given: Given, start: Start, world_size: int) -> Tuple[TrainSettings, Network]:
    """Fill in what follows from the checkpoint that a run begins with, from the images and from other settings.

    Raises a UserError where a flag contradicts the checkpoint or another flag.
    """
    given_checkpoint = start.resumed or start.source
    if start.resumed:
        stored = {**start.resumed.info["settings"], **start.resumed.network.settings}
        then = stored.pop("batch_size")
        given = given.adopt(stored, str(start.resumed.path))
        given = _keep_global_batch(given, start.resumed, then, world_size)
    else:
        TrainSettings.check_beginning(given)  # --resume on an empty folder has not been checked yet
        if start.source:
            stored = {name: value for name, value in start.source.network.settings.items() if name != "image_size"}
            given = given.adopt(stored, str(start.source.path))
    given = inputs.fit_workers(_follow_paper(inputs.follow_images(given)))
    if given["learning_rate"] is None:
        scaling = given["lr_scaling"] or default_scaling(given["optimizer"])
        given = given.fill(lr_scaling=scaling, learning_rate=default_learning_rate(
            given["optimizer"], given["batch_size"] * world_size, scaling))
    if not start.resumed:
        # A value of the user stays as it is; only the default is cut.
        given = given.fill(warmup_epochs=default_warmup(given["warmup_epochs"], given["epoch_size"]))
    settings = given.resolved()
    if given_checkpoint:  # its own numbers, whatever the data set has now
        mean, std = given_checkpoint.network.mean, given_checkpoint.network.std
    else:
        mean, std = inputs.normalisation(settings.dataset_name, settings.normalize)
    return settings, Network.of({**values_of(settings, Role.NETWORK), "mean": mean, "std": std})


def _follow_paper(given: Given) -> Given:
    """Fill in the transformations that the paper has for images of this size."""
    paper = PAPER_SMALL if given["image_size"] <= SMALL_SIDE else PAPER_LARGE
    return given.fill(**{name: value for name, value in paper._asdict().items() if given[name] is None})


def _keep_global_batch(given: Given, resumed: Checkpoint, then: int, world_size: int) -> Given:
    """Divide the global batch of a resumed run among the devices: its schedule counts steps of that many images.

    ``then`` is the batch per device that the run has had so far.
    """
    global_batch = resumed.info["global_batch"]
    batch_size = global_batch // world_size
    if batch_size * world_size != global_batch or batch_size < 2:
        raise UserError(f"--device_num: got {world_size}, but {resumed.path} was trained with {global_batch} "
                        "images per step; take a number of devices that divides them")
    if given.chosen.get("batch_size", batch_size) != batch_size:
        raise UserError(f"--batch_size: got {given['batch_size']}, but {resumed.path} was trained with {global_batch} "
                        f"images per step, {batch_size} on each of {world_size} devices; leave the flag out")
    local = [name for name in ("cross_device_negatives", "sync_bn") if not given[name]]
    if batch_size != then and local:  # negatives, or the statistics of batch norm, are those of a device's own batch
        raise UserError(f"--device_num: got {world_size}, but {resumed.path} was trained on {global_batch // then} "
                        f"devices, and with --{local[0]} False another number changes what is learned; take "
                        f"{global_batch // then}")
    return given.fill(batch_size=batch_size)


def _check_same_images(images: Images, start: Start, run: Run) -> str:
    """Return the fingerprint of the training images, which must be the same on every rank and in a resumed run."""
    then = start.resumed and start.resumed.info["data"]
    now = inputs.check_same(images.pixels, run, "train_dataset_path", "training")
    with run.together():
        if then and then != now:
            raise UserError(f"--train_dataset_path: its training images ({now}) are not those that "
                            f"{start.resumed.path} was trained on ({then}); a run resumes on the same data")
    return now


def open_folder(start: Start, settings: TrainSettings, learner: Learner, views: Views, run: Run) -> None:
    """Load weights, begin in the run's folder, and remove there what is later than the checkpoint of a resumed run.

    Raises a UserError where the weights do not fit, or the folder cannot be written.
    """
    with run.together():
        if run.process.is_first:
            start.load_into(learner)
        run.begin(values_of(settings), PRETRAINING)
        follow(run, settings.report, settings.tensorboard, views)
        if start.resumed:
            epoch = start.epochs_done(settings)
            logger.info("resumed after epoch %d of %d from %s", epoch, settings.epoch_size, start.resumed.path)
            if run.process.is_first:
                with writing("train_output_path", run.layout.path):
                    checkpoint.go_back_to(start.resumed, run.layout.checkpoints, settings.keep_checkpoint_max)
                    records.rewrite(run.layout.records, lambda record: record["kind"] not in (
                        records.PRETRAIN, records.MONITOR) or record["epoch"] <= epoch)
    run.broadcast(learner.state())


def info_of(settings: TrainSettings, network: Network, data: str, world_size: int) -> Dict[str, Any]:
    """Return the info of the run's checkpoints (src/run/info.py); ``data`` is the fingerprint of the images."""
    return {"holds": checkpoint.ENCODER, "network": network, "data": data,
            "global_batch": settings.batch_size * world_size, "settings": values_of(settings, Role.LEARNING)}


def load_test(settings: TrainSettings, run: Run) -> Optional[Images]:
    """Return the test images for the monitor, or None on every rank if one has none, or others."""
    test, problem = None, "they are not the same on every rank: give every machine the same"
    try:
        test = dataset.load(settings.dataset_name, settings.train_dataset_path, "test", download=settings.download,
                            side=settings.image_size)
    except UserError as error:
        problem = str(error)
    mine = fingerprint(test.pixels) if test else "none"
    equal = np.array([mine == share(mine, run.process) and test is not None], np.float32)
    # A rank without test images takes part too, because the others wait for it.
    if sum_over_ranks(equal, run.process)[0] == run.process.world_size:
        return test
    logger.warning("warning: no kNN accuracy during the run, for want of test images (%s); linear_eval.py measures it "
                   "afterwards", problem)
    return None
