"""Pretraining, from settings to checkpoints."""
import dataclasses
import os
from typing import List, NamedTuple, Optional

import mindspore as ms
import numpy as np
from mindspore import Model, Parameter, nn

from src import checkpoint, dataset
from src.augmentation import Augmentation, Views, to_dataset
from src.callbacks import EpochReport, Progress, SaveCheckpoint
from src.checkpoint import Checkpoint
from src.config import adopt
from src.errors import UserError
from src.flags import CIRCUMSTANCES, TrainConfig, settings_of
from src.logs import logger
from src.lr_generator import default_warmup, learning_rates
from src.nt_xent import NTXent
from src.optimizer import build_optimizer, default_learning_rate
from src.run_folder import RunFolder
from src.simclr_model import SimCLR, simclr_of
from src.train_step import TrainStep

PREFIX = "checkpoint_simclr"


class Learner(NamedTuple):
    """Everything that a train step is made of."""

    model: SimCLR
    optimizer: nn.Optimizer
    step: TrainStep
    rates: np.ndarray

    def state(self) -> List[Parameter]:
        """Return all that resuming needs; the learning rates follow from the settings."""
        own = {parameter.name for parameter in self.model.get_parameters()}
        return [*self.model.get_parameters(),
                *(p for p in self.optimizer.get_parameters() if p.name not in own and p.name != "learning_rate")]


def build_learner(config: TrainConfig, steps_per_epoch: int) -> Learner:
    """Build network, loss and optimizer of a run."""
    model = simclr_of(settings_of(config))
    rates = learning_rates(config.lr_schedule, config.learning_rate, config.epoch_size, steps_per_epoch,
                           config.warmup_epochs)
    optimizer = build_optimizer(config.optimizer, model.trainable_params(), rates[
        config.pretrain_epoch_size * steps_per_epoch:], config.weight_decay)
    step = TrainStep(model, NTXent(config.batch_size, config.temperature), optimizer)
    return Learner(model, optimizer, step, rates)


def resolve(config: TrainConfig, resumed: Optional[Checkpoint]) -> TrainConfig:
    """Fill in what follows from other settings, or from the checkpoint of a resumed run."""
    if resumed is not None:
        names = [name for name in settings_of(config) if name not in CIRCUMSTANCES]
        config = adopt(config, resumed.info["settings"], names, str(resumed.path))
    cores = os.cpu_count() or 1
    if config.num_parallel_workers > cores:
        if "num_parallel_workers" in config.given:
            raise UserError(f"--num_parallel_workers: got {config.num_parallel_workers}, takes at most the {cores} "
                            "cores of this machine")
        logger.warning("warning: %d input threads instead of %d on %d cores: the augmentations are others than on a "
                       "larger machine", cores, config.num_parallel_workers, cores)
        config = dataclasses.replace(config, num_parallel_workers=cores)
    if config.learning_rate is None:
        config = dataclasses.replace(config, learning_rate=default_learning_rate(config.optimizer, config.batch_size))
    if config.warmup_epochs is None:
        config = dataclasses.replace(config, warmup_epochs=default_warmup(config.epoch_size))
    return config


def find_resumed(config: TrainConfig) -> Optional[Checkpoint]:
    """Return the checkpoint to resume from, or None for a run that begins.

    Raises:
        UserError: the folder holds a run that would be overwritten.
    """
    folder = os.path.join(config.train_output_path, "checkpoint")
    begun = os.path.lexists(os.path.join(folder, checkpoint.LATEST))
    if config.resume and begun:
        return checkpoint.load(folder, "simclr", "resume")
    if begun:
        raise UserError(f"--train_output_path: {config.train_output_path} already holds a run; go on with it with "
                        "--resume True, or name another folder")
    if config.resume:
        logger.info("no checkpoint in %s yet: the run begins", folder)
    return None


def pretrain(config: TrainConfig, device_target: str) -> None:
    """Train an encoder with SimCLR and leave its checkpoints in the run's folder.

    Raises:
        UserError: data, checkpoint or folder are not what the settings say.
    """
    resumed = find_resumed(config)
    config = resolve(config, resumed)
    start = resumed.info["epoch"] if resumed else config.pretrain_epoch_size
    views = load_views(config, start)
    learner = build_learner(config, len(views))
    if resumed:
        checkpoint.load_into(learner.state(), resumed.parameters, str(resumed.path))
    elif config.pre_trained_path:
        load_weights(learner.model, config)
    folder = RunFolder(config, device_target)
    info = {"kind": "simclr", "settings": {name: value for name, value in settings_of(config).items()
                                           if name not in CIRCUMSTANCES}, "mindspore": ms.__version__}

    def save(epoch: int) -> None:
        checkpoint.save_epoch(folder.checkpoints, PREFIX, epoch, learner.state(), info, config.keep_checkpoint_max)

    if resumed:
        checkpoint.clear_leftovers(folder.checkpoints)
        folder.keep_metrics(lambda record: record["kind"] != "pretrain" or record["epoch"] <= start)
        logger.info("resumed after epoch %d of %d from %s", start, config.epoch_size, resumed.path)
    else:
        save(start)
    describe(config, learner, len(views))
    if start < config.epoch_size:
        Model(learner.step).train(
            config.epoch_size - start, to_dataset(views),
            callbacks=[Progress(start, config.epoch_size, config.batch_size),
                       EpochReport(learner.step.totals, learner.rates, start, config.batch_size, folder.add_metrics),
                       SaveCheckpoint(save, config.save_checkpoint_epochs, start, config.epoch_size)],
            dataset_sink_mode=device_target != "CPU")  # the CPU back end has no data sinking
    logger.info("done: %s", folder.checkpoints / checkpoint.LATEST)


def load_views(config: TrainConfig, first_epoch: int) -> Views:
    """Read the training images and prepare their views."""
    images = dataset.load(config.dataset_name, config.train_dataset_path, "train",
                          num_samples=config.num_samples, download=config.download)
    if len(images.pixels) < config.batch_size:
        raise UserError(f"--batch_size: got {config.batch_size}, takes at most the {len(images.pixels)} images "
                        "to train on")
    augmentation = Augmentation(**{name: getattr(config, name) for name in Augmentation._fields})
    return Views(images.pixels, config.batch_size, augmentation, config.seed, config.num_parallel_workers, first_epoch)


def load_weights(model: SimCLR, config: TrainConfig) -> None:
    """Load the weights of ``--pre_trained_path``, and nothing of its optimizer, into ``model``."""
    found = checkpoint.load(config.pre_trained_path, "simclr", "pre_trained_path")
    weights = {name: value for name, value in found.parameters.items()
               if name.startswith(("encoder.", "projection_head."))}
    checkpoint.load_into(model.get_parameters(), weights, f"--pre_trained_path: {config.pre_trained_path}")
    logger.info("weights of epoch %d from %s; the optimizer begins anew", found.info["epoch"], found.path)


def describe(config: TrainConfig, learner: Learner, steps_per_epoch: int) -> None:
    """Log what is about to be trained."""
    trained = sum(parameter.size for parameter in learner.model.trainable_params())
    logger.info("%s, width x %g: %d features, projected to %d; %s parameters to train", config.encoder,
                config.width_multiplier, learner.model.encoder.features, config.projection_dimension, f"{trained:,}")
    logger.info("%d epochs of %d steps of %d images; %s, learning rate up to %g, warm-up %g epochs, then %s",
                config.epoch_size, steps_per_epoch, config.batch_size, config.optimizer, config.learning_rate,
                config.warmup_epochs, config.lr_schedule)
    logger.info("an untrained network has a loss of about %.2f; the first step compiles the graph: seconds on a CPU, "
                "minutes on Ascend", 2 * np.log(2 * config.batch_size - 1))
