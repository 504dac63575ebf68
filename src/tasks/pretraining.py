"""Pretraining, from settings to checkpoints."""
from typing import Callable, Optional, Tuple

import mindspore as ms
import numpy as np

from src import dataset
from src.common.errors import UserError
from src.common.logs import logger
from src.data.augmentation import Augmentation, Views
from src.data.images import Images, fingerprint
from src.distributed.collectives import broadcast, share, sum_over_ranks, together
from src.distributed.process_group import Process
from src.layers.batch_norm import batch_norm
from src.lr_generator import learning_rates
from src.nt_xent import NTXent
from src.optimizer import build_optimizer
from src.run import checkpoint, staging
from src.run.checkpoint import Checkpoint
from src.run.folder import RunFolder
from src.settings.flags import CIRCUMSTANCES, TrainConfig, settings_of
from src.simclr_model import simclr_of
from src.tasks import beginning
from src.training.callbacks import EpochReport, Progress, SaveCheckpoint
from src.training.loop import Learner, learner_of, train_epochs
from src.training.monitor import Monitor, Probe, build_probe, trivial_loss

WEIGHTS = ("encoder.", "projection_head.")  # what is not the optimizer's in a checkpoint
RECORDS = ("pretrain", "monitor")  # of an epoch, in metrics.jsonl


def build_learner(config: TrainConfig, steps_per_epoch: int, process: Process) -> Learner:
    """Build network, loss and optimizer of a run."""
    model = simclr_of(settings_of(config), batch_norm(config.sync_bn, process))
    loss = NTXent(config.batch_size, config.temperature)
    if config.cross_device_negatives:
        loss = NTXent(config.batch_size, config.temperature, process.rank, process.world_size)
    rates = learning_rates(config.lr_schedule, config.learning_rate, config.epoch_size, steps_per_epoch,
                           config.warmup_epochs)
    optimizer = build_optimizer(config.optimizer, model.trainable_params(), rates[
        config.pretrain_epoch_size * steps_per_epoch:], config.weight_decay)
    return learner_of(model, loss, optimizer, rates, config.amp_level, process.world_size)


def pretrain(config: TrainConfig, process: Process) -> None:
    """Train an encoder with SimCLR and leave its checkpoints in the run's folder.

    Raises:
        UserError: data, checkpoint or folder are not what the settings say.
        DivergedError: the loss is not finite any more.
    """
    resumed, source = beginning.find_start(config, process)
    with together(process):
        config = beginning.resolve(config, resumed, source, process.world_size)
        start = resumed.info["epoch"] if resumed else config.pretrain_epoch_size
        views, images = load_views(config, start, process)
        data = fingerprint(views.pixels)
    data_of_first = share(data, process)
    with together(process):
        beginning.check_data(data, data_of_first, resumed)
        learner = build_learner(config, len(views), process)
        if process.is_first:
            load_start(learner, resumed, source)
        folder = RunFolder(config, process)
    broadcast(learner.state(), process)
    info = {"kind": "simclr", "mindspore": ms.__version__, "data": data,
            "global_batch": config.batch_size * process.world_size,
            "settings": {name: value for name, value in settings_of(config).items() if name not in CIRCUMSTANCES}}
    with staging.synced(folder.path, config.train_url if process.is_first else None) as sync:
        def save(epoch: int) -> None:
            checkpoint.save_epoch(folder.checkpoints, beginning.PREFIX, epoch, learner.state(), info,
                                  config.keep_checkpoint_max)
            sync()

        if resumed:
            logger.info("resumed after epoch %d of %d from %s", start, config.epoch_size, resumed.path)
            folder.keep_metrics(lambda record: record["kind"] not in RECORDS or record["epoch"] <= start)
        elif source:
            logger.info("weights from %s, %s; %s anew", source.path, checkpoint.after(source.info["epoch"]),
                        "the optimizer begins" if has_head(source) else "projection head and optimizer begin")
        if process.is_first and not resumed:
            save(start)
        if start < config.epoch_size:
            describe(config, learner, len(views))
            probe = build_probe(views, images, load_test(config, process)) if config.eval_every else None
            train(config, learner, views, probe, folder, process, save)
        logger.info("done, %d epochs: %s", config.epoch_size, folder.checkpoints / checkpoint.LATEST)


def train(config: TrainConfig, learner: Learner, views: Views, probe: Optional[Probe], folder: RunFolder,
          process: Process, save: Callable[[int], None]) -> None:
    """Train from the views' next epoch to the last; rank 0 alone shows progress and saves."""
    start, global_batch = views.next_epoch, config.batch_size * process.world_size
    callbacks = [EpochReport("pretrain", "contrastive_accuracy", learner.step.totals, learner.model.get_parameters(),
                             learner.rates, start, global_batch, folder.add_metrics),
                 Monitor(learner.model, learner.step.totals, probe, config, start, process, folder.add_metrics)]
    if process.is_first:
        callbacks = [Progress(learner.step.totals, start, config.epoch_size, global_batch), *callbacks,
                     SaveCheckpoint(save, config.save_checkpoint_epochs, start, config.epoch_size)]
    train_epochs(learner, views, config.epoch_size, callbacks, process)


def load_start(learner: Learner, resumed: Optional[Checkpoint], source: Optional[Checkpoint]) -> None:
    """Load the state of a resumed run, or given weights.

    Raises:
        UserError: they do not fit the network.
    """
    if resumed:
        checkpoint.load_into(learner.state(), resumed.parameters, str(resumed.path))
        checkpoint.clear_leftovers(resumed.path.parent)
    elif source:
        weights = {name: value for name, value in source.parameters.items() if name.startswith(WEIGHTS)}
        given = learner.model if has_head(source) else learner.model.encoder
        checkpoint.load_into(given.get_parameters(), weights, f"--pre_trained_path: {source.path}")


def has_head(source: Checkpoint) -> bool:
    """Whether a checkpoint has a projection head; one that was converted from PyTorch may have none."""
    return "projection_dimension" in source.info["settings"]


def load_test(config: TrainConfig, process: Process) -> Optional[Images]:
    """Return the test images for the monitor; training goes on without them, so None where they cannot be had."""
    test, problem = None, "they are not the same on every rank"
    try:
        test = dataset.load(config.dataset_name, config.train_dataset_path, "test", download=config.download,
                            side=config.image_size)
    except UserError as error:
        problem = str(error)
    mine = fingerprint(test.pixels) if test else "none"
    equal = np.array([mine == share(mine, process)], np.float32)
    if test and sum_over_ranks(equal, process)[0] == process.world_size:
        return test
    logger.warning("warning: no kNN accuracy during the run, for want of test images (%s)", problem)
    return None


def load_views(config: TrainConfig, first_epoch: int, process: Process) -> Tuple[Views, Images]:
    """Read the training images and prepare this rank's views of them."""
    if config.run_cloudbrain:
        staging.stage_in(config.data_url, dataset.folder_of(config.dataset_name, config.train_dataset_path))
    images = dataset.load(config.dataset_name, config.train_dataset_path, "pretrain",
                          num_samples=config.num_samples, download=config.download, side=config.image_size)
    if len(images.pixels) < config.batch_size * process.world_size:
        devices = f" on {process.world_size} devices" if process.world_size > 1 else ""
        raise UserError(f"--batch_size: got {config.batch_size}{devices}, takes at most the "
                        f"{len(images.pixels) // process.world_size} images that each device has to train on")
    augmentation = Augmentation(**{name: getattr(config, name) for name in Augmentation._fields})
    views = Views(images.pixels, config.batch_size, augmentation, config.seed, config.num_parallel_workers, first_epoch,
                  process.rank, process.world_size)
    return views, images


def describe(config: TrainConfig, learner: Learner, steps_per_epoch: int) -> None:
    """Log what is about to be trained."""
    trained = sum(parameter.size for parameter in learner.model.trainable_params())
    logger.info("%s, width x %g, %s stem: %d features, projected to %d; %s parameters to train", config.encoder,
                config.width_multiplier, config.stem, learner.model.encoder.features, config.projection_dimension,
                f"{trained:,}")
    if config.amp_level != "O0":
        logger.info("mixed precision %s, loss scale %g", config.amp_level, learner.scaler.scale_value.asnumpy())
    batch = f"{config.device_num} x {config.batch_size}" if config.device_num > 1 else str(config.batch_size)
    logger.info("%d epochs of %d steps of %s images; %s, learning rate up to %g, warm-up %g epochs, then %s",
                config.epoch_size, steps_per_epoch, batch, config.optimizer, config.learning_rate,
                config.warmup_epochs, config.lr_schedule)
    logger.info("an untrained network has a loss of about %.2f; the first step compiles the graph: seconds on a CPU, "
                "minutes on Ascend", trivial_loss(config))
