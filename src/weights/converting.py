"""Weights of PyTorch -> a checkpoint for all scripts, and an encoder back, bit by bit."""
from typing import Any, Dict, Tuple

from src.common.errors import UserError
from src.common.logs import logger
from src.resnet import build_encoder
from src.run import inputs
from src.run.checkpoint import Checkpoint
from src.settings.given import Given
from src.settings.network import STEMS, Network
from src.weights import encoders, torch_files
from src.weights.torch_files import Weights
from src.weights.torch_names import Recognised, recognise, torch_name


def from_torch(given: Given) -> Checkpoint:
    """Return the weights in the file --source_path as a checkpoint.

    Raises a UserError where the file holds no encoder, or one that the flags contradict.
    """
    path = given["source_path"]
    source = f"--source_path: {path}"
    weights, description = torch_files.read(path, "source_path")
    recognised = recognise(weights, source)
    converted = encoders.from_torch(recognised, description or _from_flags(given, recognised), path, source)
    if description:
        given.adopt(_description(converted), path)
    _report(converted.network, path, recognised.left_out)
    if STEMS[converted.network.stem].kernel == 3 and any("projector." in name for name in weights):
        logger.warning("warning: these look like weights of solo-learn, whose CIFAR encoders pad their first "
                       "convolution by 2, the encoders here by 1, so the features differ; train classifiers on the "
                       "features from here")
    return converted


def to_torch(given: Given) -> Tuple[Weights, Dict[str, Any]]:
    """Return the weights of the encoder --source_path by torchvision's names, and the description of its network.

    Raises a UserError where it is not the checkpoint of an encoder, or where a flag contradicts it.
    """
    source = encoders.load(given["source_path"], "source_path")
    description = _description(source)
    given.adopt(description, str(source.path))
    network = source.network
    encoder = build_encoder(network)
    encoders.load_weights(encoder, source)
    _report(network.without_head, str(source.path), "the projection head" if network.projection_dimension else "")
    return {torch_name(value.name): value.asnumpy() for value in encoder.get_parameters()}, description


def _from_flags(given: Given, recognised: Recognised) -> Dict[str, Any]:
    """Return the description of a network whose file has none: flags, and the defaults of the data set."""
    path = given["source_path"]
    given = inputs.follow_images(given.adopt(recognised.settings, path))
    kernel, stem = recognised.weights["conv1.weight"].shape[2], STEMS[given["stem"]]
    if kernel != stem.kernel:
        flag = "stem" if "stem" in given.chosen else "dataset_name"
        raise UserError(f"--{flag}: got {given[flag]}, which stands for the {stem.title}, but the first convolution in "
                        f"{path} is {kernel}x{kernel}; name the data set, or the --stem, that fits it")
    mean, std = inputs.normalisation(given["dataset_name"], given["normalize"])
    return {**given.values(), "mean": mean, "std": std}


def _description(source: Checkpoint) -> Dict[str, Any]:
    """Return what the weights of an encoder do not say, by the names of flags where there are such flags."""
    network = source.network.without_head
    return {**network.settings, "mean": network.mean, "std": network.std,
            "dataset_name": source.info["settings"]["dataset_name"], "pretrain_epoch_size": source.info["epoch"]}


def _report(network: Network, path: str, left_out: str) -> None:
    """Say what was taken and left out, and how the network takes pixels, which weights do not say."""
    head = (f"projection head to {network.projection_dimension} dimensions" if network.projection_dimension else
            "no projection head")
    logger.info("taken from %s: %s, width x %g, %s, %s; left out: %s", path, network.encoder,
                network.width_multiplier, STEMS[network.stem].title, head, left_out or "nothing")
    logger.info("pixels: red, green, blue, from 0 to 1, %s",
                f"minus {network.mean}, divided by {network.std}" if network.mean else "not normalised")
