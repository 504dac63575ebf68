"""PyTorch's weights -> a checkpoint that linear_eval.py and export.py take, and an encoder back, bit by bit."""
import os
from pathlib import Path
from typing import Any, Dict, List, Tuple

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from src.common.errors import UserError
from src.common.logs import logger
from src.dataset import DATA_SETS, check_side, side_of
from src.run import checkpoint
from src.settings.encoder_flags import ConvertConfig
from src.settings.parsing import adopt
from src.simclr_model import ProjectionHead, encoder_of, stem_of
from src.tasks import torch_weights
from src.tasks.torch_weights import Found, Weights, torch_name

# What is told of a network, by a checkpoint and by this project's .safetensors files.
TOLD = ("encoder", "width_multiplier", "stem", "dataset_name", "image_size", "normalize", "pretrain_epoch_size")
STEMS = {"cifar": "CIFAR stem (3x3)", "strided": "strided stem (3x3, stride 2)", "imagenet": "ImageNet stem (7x7)"}


def convert(config: ConvertConfig) -> Path:
    """Convert ``source_path`` to what ``target_path`` ends in, and return the path written.

    Raises:
        UserError: the source is not what it should be, or the target cannot be written.
    """
    target = Path(config.target_path)
    if os.path.realpath(config.source_path) == os.path.realpath(target):
        raise UserError(f"--target_path: {target} is the source itself; name another file")
    to_checkpoint = target.suffix == ".ckpt"
    content = from_torch(config) if to_checkpoint else to_torch(config)
    try:
        if to_checkpoint:
            target.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.save(target, *content)
        else:
            torch_weights.write(target, *content, "target_path")
    except (OSError, RuntimeError) as error:  # MindSpore has RuntimeErrors for files
        reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[0]
        raise UserError(f"--target_path: cannot write {target} ({reason}); name a place that can be written") from None
    logger.info("written: %s", target)
    return target


def from_torch(config: ConvertConfig) -> Tuple[List[Parameter], Dict[str, Any]]:
    """Return the parameters and the info of the checkpoint that PyTorch's weights become.

    The info says where they come from, and has neither optimizer nor data: such a checkpoint is no run to
    resume. Without a projection head its settings have no word on one either.

    Raises:
        UserError: the weights are not those of an encoder of this project with the stem that the data set has.
    """
    source = f"--source_path: {config.source_path}"
    found = torch_weights.recognise(torch_weights.read(config.source_path, "source_path"), source)
    told = torch_weights.told_settings(config.source_path, "source_path")
    config = adopt(config, {**told, **found.settings}, TOLD, config.source_path)
    settings = {"dataset_name": config.dataset_name, "image_size": config.image_size, "normalize": config.normalize,
                "stem": config.stem, **found.settings}
    settings["image_size"] = side_of(settings)
    check_side(config.dataset_name, settings["image_size"], "--image_size asks for")
    settings["stem"] = stem_of(settings)
    network = parameters_of(settings)
    _check_stem(found.weights["conv1.weight"], network["conv1.weight"], settings, config)
    checkpoint.check_fit({name: (tuple(target.shape), "float32") for name, target in network.items()},
                         {name: (value.shape, str(value.dtype)) for name, value in found.weights.items()}, source)
    _report(settings, config.source_path)
    if found.left_out:
        logger.info("left out: %s", torch_weights.summary(found.left_out))
    if found.counters:
        logger.info("left out: %d %s, PyTorch's counts of batches, on which nothing here depends", found.counters,
                    torch_weights.COUNTER)
    _warn_of_padding(found)
    info = {"kind": "simclr", "epoch": config.pretrain_epoch_size, "mindspore": ms.__version__,
            "converted_from": Path(config.source_path).name, "settings": settings}
    return [Parameter(Tensor(np.ascontiguousarray(found.weights[name])), name=target.name)
            for name, target in network.items()], info


def to_torch(config: ConvertConfig) -> Tuple[Weights, Dict[str, Any]]:
    """Return the weights of a checkpoint's encoder by torchvision's names, and what else is known of it.

    Raises:
        UserError: there is no such checkpoint, or a flag contradicts it.
    """
    source = checkpoint.load(config.source_path, "simclr", "source_path")
    settings = source.info["settings"]
    settings = {**settings, "image_size": side_of(settings), "stem": stem_of(settings),
                "pretrain_epoch_size": source.info["epoch"]}
    adopt(config, settings, TOLD, str(source.path))
    weights = {torch_name(name): value.asnumpy() for name, value in source.parameters.items()
               if name.startswith("encoder.")}
    _report(settings, str(source.path))
    others = [name for name in source.parameters if not name.startswith("encoder.")]
    if others:
        logger.info("left out: %s", torch_weights.summary(others))
    return weights, {name: settings[name] for name in TOLD}


def parameters_of(settings: Dict[str, Any]) -> Dict[str, Parameter]:
    """Return the parameters, named as in a checkpoint, of the network that ``settings`` describe, by PyTorch's names.

    Where the settings have no projection head it is the encoder's alone.
    """
    encoder = encoder_of(settings)
    encoder.update_parameters_name("encoder.")
    parameters = list(encoder.get_parameters())
    if "projection_dimension" in settings:
        head = ProjectionHead(encoder.features, settings["projection_dimension"],
                              nn.BatchNorm2d if settings["head_batch_norm"] else None)
        head.update_parameters_name("projection_head.")
        parameters += head.get_parameters()
    return {torch_name(parameter.name): parameter for parameter in parameters}


def _check_stem(there: np.ndarray, wanted: Parameter, settings: Dict[str, Any],
                config: ConvertConfig) -> None:
    kernel, stem = there.shape[2], settings["stem"]
    if kernel == wanted.shape[2]:
        return
    has = {3: STEMS["cifar"], 7: STEMS["imagenet"]}.get(kernel, f"first convolution {kernel}x{kernel}")
    if config.stem:
        raise UserError(f"--stem: got {stem}, the {STEMS[stem]}, but {config.source_path} has the {has}; leave the "
                        "flag out, or name other weights")
    raise UserError(f"--dataset_name: got {config.dataset_name}, whose images of "
                    f"{settings['image_size']} pixels take the {STEMS[stem]}, but {config.source_path} "
                    f"has the {has}; name a data set that fits it, or the --stem, or other weights")


def _report(settings: Dict[str, Any], source: str) -> None:
    """Log what was recognised, and what the pixels must be: weights do not tell."""
    logger.info("%s: %s, width x %g, %s", source, settings["encoder"], settings["width_multiplier"],
                STEMS[stem_of(settings)])
    if "projection_dimension" in settings:
        logger.info("projection head: to %d dimensions, %s batch norm", settings["projection_dimension"],
                    "with" if settings["head_batch_norm"] else "without")
    else:
        logger.info("no projection head: enough for linear_eval.py and export.py")
    data_set = DATA_SETS[settings["dataset_name"]]
    logger.info("pixels: red, green, blue, from 0 to 1, %s", f"less {data_set.mean}, divided by {data_set.std}"
                if settings["normalize"] else "not normalised")


def _warn_of_padding(found: Found) -> None:
    """Weights do not tell the padding either, and solo-learn's CIFAR encoders have another one."""
    if found.is_solo_learn and found.weights["conv1.weight"].shape[2] == 3:
        logger.warning("warning: solo-learn's CIFAR encoders pad their first convolution by 2, the encoders here by 1: "
                       "the features are not quite those of solo-learn")
