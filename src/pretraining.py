"""Pretraining, from settings to checkpoints."""
import dataclasses
import hashlib
import os
from pathlib import Path
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
WEIGHTS = ("encoder.", "projection_head.")  # what is not the optimizer's in a checkpoint
NETWORK = ("encoder", "width_multiplier", "projection_dimension", "head_batch_norm", "normalize")


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


def resolve(config: TrainConfig, resumed: Optional[Checkpoint], source: Optional[Checkpoint]) -> TrainConfig:
    """Fill in what follows from other settings, or from the checkpoint of a resumed run or of given weights."""
    if resumed:
        names = [name for name in settings_of(config) if name not in CIRCUMSTANCES]
        config = adopt(config, resumed.info["settings"], names, str(resumed.path))
    elif source:
        config = adopt(config, source.info["settings"], NETWORK, str(source.path))
        if config.normalize and config.dataset_name != source.info["settings"]["dataset_name"]:
            raise UserError(f"--dataset_name: got {config.dataset_name}, but {source.path} has the normalisation of "
                            f"{source.info['settings']['dataset_name']} in it")
    cores = os.cpu_count() or 1
    if config.num_parallel_workers > cores:
        if "num_parallel_workers" in config.given:
            raise UserError(f"--num_parallel_workers: got {config.num_parallel_workers}, takes at most the {cores} "
                            "cores of this machine")
        logger.warning("warning: %d input threads instead of %d, on %d cores: the augmentations are others than on a "
                       "larger machine", cores, config.num_parallel_workers, cores)
        config = dataclasses.replace(config, num_parallel_workers=cores)
    if config.learning_rate is None:
        config = dataclasses.replace(config, learning_rate=default_learning_rate(config.optimizer, config.batch_size))
    if not resumed and "warmup_epochs" not in config.given:
        config = dataclasses.replace(config, warmup_epochs=default_warmup(config.warmup_epochs, config.epoch_size))
    return config


def find_resumed(config: TrainConfig) -> Optional[Checkpoint]:
    """Return the checkpoint to resume from, or None for a run that begins.

    Raises:
        UserError: the folder holds a run that would be overwritten.
    """
    folder = Path(config.train_output_path) / checkpoint.FOLDER
    if config.resume and os.path.lexists(folder / checkpoint.LATEST):
        return checkpoint.load(str(folder), "simclr", "resume")
    if checkpoint.of_epochs(folder, PREFIX):
        raise UserError(f"--train_output_path: {config.train_output_path} already holds a run; go on with it with "
                        "--resume True, or name another folder")
    if config.resume:
        logger.info("no checkpoint in %s yet: the run begins", folder)
    return None


def pretrain(config: TrainConfig, device_target: str) -> None:
    """Train an encoder with SimCLR and leave its checkpoints in the run's folder.

    Raises:
        UserError: data, checkpoint or folder are not what the settings say.
        DivergedError: the loss is not finite any more.
    """
    resumed = find_resumed(config)
    source = None
    if config.pre_trained_path and not resumed:
        source = checkpoint.load(config.pre_trained_path, "simclr", "pre_trained_path")
    config = resolve(config, resumed, source)
    start = resumed.info["epoch"] if resumed else config.pretrain_epoch_size
    views = load_views(config, start)
    info = {"kind": "simclr", "mindspore": ms.__version__, "data": fingerprint(views.pixels),
            "settings": {name: value for name, value in settings_of(config).items() if name not in CIRCUMSTANCES}}
    learner = build_learner(config, len(views))
    if resumed:
        if resumed.info["data"] != info["data"]:
            raise UserError(f"--train_dataset_path: its training images ({info['data']}) are not those that "
                            f"{resumed.path} was trained on ({resumed.info['data']}); a run resumes on the same data")
        checkpoint.load_into(learner.state(), resumed.parameters, str(resumed.path))
    elif source:
        weights = {name: value for name, value in source.parameters.items() if name.startswith(WEIGHTS)}
        checkpoint.load_into(learner.model.get_parameters(), weights, f"--pre_trained_path: {source.path}")
    folder = RunFolder(config, device_target)

    def save(epoch: int) -> None:
        checkpoint.save_epoch(folder.checkpoints, PREFIX, epoch, learner.state(), info, config.keep_checkpoint_max)

    if resumed:
        logger.info("resumed after epoch %d of %d from %s", start, config.epoch_size, resumed.path)
        checkpoint.clear_leftovers(folder.checkpoints)
        folder.keep_metrics(lambda record: record["kind"] != "pretrain" or record["epoch"] <= start)
    else:
        if source:
            logger.info("weights of epoch %d from %s; the optimizer begins anew", source.info["epoch"], source.path)
        save(start)
    if start < config.epoch_size:
        describe(config, learner, len(views))
        sinking = device_target != "CPU"  # the CPU back end has no data sinking
        Model(learner.step).train(
            config.epoch_size - start, to_dataset(views, sinking),
            callbacks=[Progress(start, config.epoch_size, config.batch_size),
                       EpochReport(learner.step.totals, learner.rates, start, config.batch_size, folder.add_metrics),
                       SaveCheckpoint(save, config.save_checkpoint_epochs, start, config.epoch_size)],
            dataset_sink_mode=sinking)
    logger.info("done, %d epochs: %s", config.epoch_size, folder.checkpoints / checkpoint.LATEST)


def fingerprint(pixels: np.ndarray) -> str:
    """Tell one set of training images from another: how many, and the beginning of their SHA-256."""
    return f"{len(pixels)} images, {hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()[:16]}"


def load_views(config: TrainConfig, first_epoch: int) -> Views:
    """Read the training images and prepare their views."""
    images = dataset.load(config.dataset_name, config.train_dataset_path, "train",
                          num_samples=config.num_samples, download=config.download)
    if len(images.pixels) < config.batch_size:
        raise UserError(f"--batch_size: got {config.batch_size}, takes at most the {len(images.pixels)} images "
                        "to train on")
    augmentation = Augmentation(**{name: getattr(config, name) for name in Augmentation._fields})
    return Views(images.pixels, config.batch_size, augmentation, config.seed, config.num_parallel_workers, first_epoch)


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
