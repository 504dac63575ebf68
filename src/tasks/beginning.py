"""How a run begins: anew, resumed, or with given weights; and the settings that follow from that."""
import dataclasses
import os
from pathlib import Path
from typing import Optional, Tuple, TypeVar

from src.common.errors import UserError
from src.common.logs import logger
from src.data.augmentation import PAPER_LARGE, PAPER_SMALL
from src.dataset import check_side, side_of
from src.distributed.collectives import together
from src.distributed.process_group import Process
from src.lr_generator import default_learning_rate, default_scaling, default_warmup
from src.resnet import CIFAR_STEM_MAX_SIDE, default_stem
from src.run import checkpoint, staging
from src.run.checkpoint import Checkpoint
from src.settings.flags import CIRCUMSTANCES, TrainConfig, TrainingFlags, settings_of
from src.settings.parsing import adopt
from src.simclr_model import stem_of

PREFIX = "checkpoint_simclr"
Config = TypeVar("Config", bound=TrainingFlags)
NETWORK = ("encoder", "width_multiplier", "stem", "projection_dimension", "head_batch_norm", "normalize")


def find_resumed(config: TrainConfig) -> Optional[Checkpoint]:
    """Return the checkpoint to resume from, or None for a run that begins.

    Raises:
        UserError: the folder, or its place in a cloud, holds a run that would be overwritten.
    """
    folder = Path(config.train_output_path) / checkpoint.FOLDER
    if config.run_cloudbrain:
        if config.resume:
            staging.fetch_run(config.train_url, Path(config.train_output_path))
        elif staging.holds_run(config.train_url):
            raise UserError(f"--train_url: {config.train_url} already holds a run; go on with it with --resume True, "
                            "or name another place")
    if config.resume and os.path.lexists(folder / checkpoint.LATEST):
        found = checkpoint.load(str(folder), "simclr", "resume")
        if "converted_from" in found.info:
            raise UserError(f"--resume: {found.path} was converted from {found.info['converted_from']} and is no run; "
                            "begin one with its weights: --pre_trained_path, and another --train_output_path")
        return found
    if checkpoint.of_epochs(folder, PREFIX):
        raise UserError(f"--train_output_path: {config.train_output_path} already holds a run; go on with it with "
                        "--resume True, or name another folder")
    if config.resume:
        logger.info("no checkpoint in %s yet: the run begins", folder)
    return None


def find_start(config: TrainConfig, process: Process) -> Tuple[Optional[Checkpoint], Optional[Checkpoint]]:
    """Return the checkpoint to resume from, and that of given weights; rank 0 alone reads them.

    Raises:
        UserError: as ``find_resumed``, or the given weights are no checkpoint.
    """
    resumed = source = None
    with together(process):
        if process.is_first:
            resumed = find_resumed(config)
            if config.pre_trained_path and not resumed:
                source = checkpoint.load(config.pre_trained_path, "simclr", "pre_trained_path")
    return checkpoint.shared(resumed, process), checkpoint.shared(source, process)


def resolve(config: TrainConfig, resumed: Optional[Checkpoint], source: Optional[Checkpoint],
            world_size: int) -> TrainConfig:
    """Fill in what follows from other settings, or from the checkpoint of a resumed run or of given weights."""
    config = dataclasses.replace(config, device_num=world_size)
    if resumed:
        names = [name for name in settings_of(config) if name not in CIRCUMSTANCES and name != "batch_size"]
        settings = resumed.info["settings"]
        config = adopt(config, {**settings, "stem": stem_of(settings)}, names, str(resumed.path))
        config = keep_global_batch(config, resumed)
    elif source:
        settings = source.info["settings"]
        config = adopt(config, {**settings, "stem": stem_of(settings)}, NETWORK, str(source.path))
        if config.normalize and config.dataset_name != source.info["settings"]["dataset_name"]:
            raise UserError(f"--dataset_name: got {config.dataset_name}, but {source.path} has the normalisation of "
                            f"{source.info['settings']['dataset_name']} in it")
    config = follow_images(config)
    config = fit_workers(config)
    if config.learning_rate is None:
        scaling = config.lr_scaling or default_scaling(config.optimizer)
        rate = default_learning_rate(config.optimizer, config.batch_size * world_size, scaling)
        config = dataclasses.replace(config, learning_rate=rate, lr_scaling=scaling)
    if not resumed and "warmup_epochs" not in config.given:
        config = dataclasses.replace(config, warmup_epochs=default_warmup(config.warmup_epochs, config.epoch_size))
    return config


def fit_workers(config: Config) -> Config:
    """Take fewer input threads than by default on a machine with fewer cores, as MindSpore asks for.

    Raises:
        UserError: the user asks for more.
    """
    cores = os.cpu_count() or 1
    if config.num_parallel_workers > cores:
        if "num_parallel_workers" in config.given:
            raise UserError(f"--num_parallel_workers: got {config.num_parallel_workers}, takes at most the {cores} "
                            "cores of this machine")
        logger.warning("warning: %d input threads instead of %d, on %d cores: the augmentations are others than on a "
                       "larger machine", cores, config.num_parallel_workers, cores)
        config = dataclasses.replace(config, num_parallel_workers=cores)
    return config


def follow_images(config: TrainConfig) -> TrainConfig:
    """Fill in what follows from the size of the images.

    Raises:
        UserError: ``image_size`` is not the data set's.
    """
    side = side_of(settings_of(config))
    check_side(config.dataset_name, side, "--image_size asks for")
    paper = PAPER_SMALL if side <= CIFAR_STEM_MAX_SIDE else PAPER_LARGE
    missing = {name: getattr(paper, name) for name in paper._fields if getattr(config, name) is None}
    return dataclasses.replace(config, image_size=side, stem=config.stem or default_stem(side), **missing)


def keep_global_batch(config: TrainConfig, resumed: Checkpoint) -> TrainConfig:
    """Share a resumed run's images per step among the devices of now, for its schedule counts these steps.

    Raises:
        UserError: the devices do not divide them, or the user wants other ones.
    """
    # Checkpoints of before distributed training do not say it.
    global_batch = resumed.info.get("global_batch", resumed.info["settings"]["batch_size"])
    batch_size = global_batch // config.device_num
    if batch_size * config.device_num != global_batch or batch_size < 2:
        raise UserError(f"--device_num: got {config.device_num}, but {resumed.path} was trained with {global_batch} "
                        "images per step; take a number of devices that divides them")
    if "batch_size" in config.given and config.batch_size != batch_size:
        raise UserError(f"--batch_size: got {config.batch_size}, but {resumed.path} was trained with {global_batch} "
                        f"images per step, {batch_size} on each of {config.device_num} devices; leave the flag out")
    return dataclasses.replace(config, batch_size=batch_size)


def check_same(data: str, data_of_first: str, flag: str, split: str) -> None:
    """Raise UserError where this rank has other images than rank 0."""
    if data != data_of_first:
        raise UserError(f"--{flag}: its {split} images ({data}) are not those of rank 0 ({data_of_first}); give every "
                        "machine the same data")


def check_data(data: str, data_of_first: str, resumed: Optional[Checkpoint]) -> None:
    """Raise UserError where this rank has other training images than rank 0, or than the run that is resumed."""
    check_same(data, data_of_first, "train_dataset_path", "training")
    if resumed and resumed.info["data"] != data:
        raise UserError(f"--train_dataset_path: its training images ({data}) are not those that "
                        f"{resumed.path} was trained on ({resumed.info['data']}); a run resumes on the same data")
