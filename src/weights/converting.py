"""PyTorch's weights -> a checkpoint that linear_eval.py and export.py take, and an encoder back, bit by bit."""
import os
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
from mindspore import Parameter

from src.common.errors import UserError
from src.common.logs import logger
from src.resnet import build_encoder
from src.run import inputs
from src.run.checkpoint import Checkpoint
from src.settings.given import Given, Role
from src.settings.network import STEMS, Network
from src.weights import encoders, torch_weights
from src.weights.torch_weights import Found, Weights, torch_name


def check_paths(source: str, target: Path) -> None:
    """Raise UserError where there is a file already in the place of the one to write."""
    if os.path.realpath(source) == os.path.realpath(target):
        raise UserError(f"--target_path: {target} is the source itself; name another file")
    if os.path.lexists(target):
        raise UserError(f"--target_path: {target} is there; name another file, or remove it first")


def network_of(found: Found, given: Given) -> Tuple[Given, Network]:
    """Return the network whose weights were found, with what the file and the user tell of it.

    Raises:
        UserError: they contradict each other, or the data set has other images.
    """
    source = given["source_path"]
    told = encoders.told_of(found, source, "source_path")
    given = inputs.follow_images(given.adopt({**told, **found.settings}, source))
    mean, std = inputs.normalisation(given["dataset_name"], given["normalize"])
    return given, Network.of({"mean": mean, "std": std, **told, **given.values(Role.NETWORK), **found.settings})


def from_torch(found: Found, network: Network, given: Given) -> List[Parameter]:
    """Return the weights that were found as the parameters of a checkpoint.

    Raises:
        UserError: they do not fit the network.
    """
    source = given["source_path"]
    _check_stem(found.weights["conv1.weight"], given)
    parameters = encoders.parameters_from(found, network, f"--source_path: {source}")
    report(network, source)
    if found.left_out:
        logger.info("left out: %s", torch_weights.summary(found.left_out))
    if found.counters:
        logger.info("left out: %d %s, PyTorch's counts of batches, on which nothing here depends", found.counters,
                    torch_weights.COUNTER)
    _warn_of_padding(found)
    return parameters


def to_torch(source: Checkpoint) -> Weights:
    """Return the weights of a checkpoint's encoder by torchvision's names.

    Raises:
        UserError: they are not those of the network that it tells of.
    """
    encoders.check_size(source, f"--source_path: {source.path}")
    encoder = build_encoder(source.network)
    encoders.load_weights(encoder, source)
    report(source.network, str(source.path))
    others = [name for name in source.parameters if not name.startswith("encoder.")]
    if others:
        logger.info("left out: %s", torch_weights.summary(others))
    return {torch_name(value.name): value.asnumpy() for value in encoder.get_parameters()}


def told_of(source: Checkpoint, given: Given) -> Dict[str, Any]:
    """Return what a .safetensors file tells of a checkpoint's encoder beside its weights.

    Raises:
        UserError: a flag contradicts it.
    """
    network = source.network.without_head
    told = {**network.settings, "mean": network.mean, "std": network.std,
            "dataset_name": source.info["settings"]["dataset_name"], "pretrain_epoch_size": source.info["epoch"]}
    given.adopt(told, str(source.path))
    return told


def _check_stem(there: np.ndarray, given: Given) -> None:
    kernel, stem = there.shape[2], given["stem"]
    if kernel == STEMS[stem].kernel:
        return
    has = {3: STEMS["cifar"].title, 7: STEMS["imagenet"].title}.get(kernel, f"first convolution {kernel}x{kernel}")
    if "stem" in given.chosen:
        raise UserError(f"--stem: got {stem}, the {STEMS[stem].title}, but {given['source_path']} has the {has}; leave "
                        "the flag out, or name other weights")
    raise UserError(f"--dataset_name: got {given['dataset_name']}, whose images of "
                    f"{given['image_size']} pixels take the {STEMS[stem].title}, but {given['source_path']} "
                    f"has the {has}; name a data set that fits it, or the --stem, or other weights")


def report(network: Network, source: str) -> None:
    """Log what was recognised, and what the pixels must be: weights do not tell."""
    logger.info("%s: %s, width x %g, %s", source, network.encoder, network.width_multiplier,
                STEMS[network.stem].title)
    if network.projection_dimension is not None:
        logger.info("projection head: to %d dimensions, %s batch norm", network.projection_dimension,
                    "with" if network.head_batch_norm else "without")
    else:
        logger.info("no projection head: enough for linear_eval.py and export.py")
    logger.info("pixels: red, green, blue, from 0 to 1, %s",
                f"less {network.mean}, divided by {network.std}" if network.mean else "not normalised")


def _warn_of_padding(found: Found) -> None:
    """Weights do not tell the padding either, and solo-learn's CIFAR encoders have another one."""
    if found.is_solo_learn and found.weights["conv1.weight"].shape[2] == 3:
        logger.warning("warning: solo-learn's CIFAR encoders pad their first convolution by 2, the encoders here by 1: "
                       "the features are others (by about 0.3 of their deviation in a short trained run, more with "
                       "untrained weights); train classifiers anew on the features from here")
