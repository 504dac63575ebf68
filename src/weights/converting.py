"""Weights of PyTorch -> a checkpoint for linear_eval.py and export.py, and an encoder back, bit by bit."""
from pathlib import Path
from typing import Any, Dict, List, Tuple

from mindspore import Parameter

from src.common.errors import UserError
from src.common.logs import logger
from src.resnet import build_encoder
from src.run import inputs
from src.settings.given import Given, Role
from src.settings.network import STEMS, Network
from src.weights import encoders, torch_files
from src.weights.torch_files import Weights
from src.weights.torch_names import Recognised, recognise, torch_name


def from_torch(given: Given) -> Tuple[List[Parameter], Dict[str, Any]]:
    """Return the parameters and the info of a checkpoint with the weights in the file --source_path.

    Raises:
        UserError: the file holds no encoder, or one that the flags contradict.
    """
    path = given["source_path"]
    source = f"--source_path: {path}"
    weights, description = torch_files.read(path, "source_path")
    recognised = recognise(weights, source)
    if description:
        info = encoders.described_info(description, recognised, path, source)
        network = Network.of(info["network"])
        given.adopt(_description(network, info), path)
    else:
        given = inputs.follow_images(given.adopt(recognised.settings, path))
        mean, std = inputs.normalisation(given["dataset_name"], given["normalize"])
        network = Network.of({**given.values(Role.NETWORK), **recognised.settings, "mean": mean, "std": std})
        _check_stem(recognised, network, given)
        info = encoders.info_of(network, given["dataset_name"], given["pretrain_epoch_size"], Path(path).name)
    parameters = encoders.parameters_from(recognised, network, source)
    _report(network, path, recognised.left_out)
    if recognised.pads_by_2:
        logger.warning("warning: solo-learn's CIFAR encoders pad their first convolution by 2, the encoders here by 1, "
                       "so the features differ (by about 0.3 of their deviation in a short trained run); train "
                       "classifiers on the features from here")
    return parameters, info


def to_torch(given: Given) -> Tuple[Weights, Dict[str, Any]]:
    """Return the weights of the encoder --source_path by torchvision's names, and the description of its network.

    Raises:
        UserError: it is not the checkpoint of an encoder, or a flag contradicts it.
    """
    source = encoders.load(given["source_path"], "source_path")
    network = source.network.without_head
    description = _description(network, source.info)
    given.adopt(description, str(source.path))
    encoder = build_encoder(network)
    encoders.load_weights(encoder, source)
    _report(network, str(source.path), "the projection head" if source.network.projection_dimension else "")
    return {torch_name(value.name): value.asnumpy() for value in encoder.get_parameters()}, description


def _description(network: Network, info: Dict[str, Any]) -> Dict[str, Any]:
    """Return what weights do not tell, by the names of the flags if there are such flags."""
    return {**network.settings, "mean": network.mean, "std": network.std,
            "dataset_name": info["settings"]["dataset_name"], "pretrain_epoch_size": info["epoch"]}


def _check_stem(recognised: Recognised, network: Network, given: Given) -> None:
    kernel, stem = recognised.weights["conv1.weight"].shape[2], STEMS[network.stem]
    if kernel != stem.kernel:
        flag = "stem" if "stem" in given.chosen else "dataset_name"
        raise UserError(f"--{flag}: got {given[flag]}, which stands for the {stem.title}, but the first convolution in "
                        f"{given['source_path']} is {kernel}x{kernel}; name the data set, or the --stem, that fits it")


def _report(network: Network, source: str, left_out: str) -> None:
    """Say what was taken and left out, and how the network takes pixels, which weights do not tell."""
    head = (f"projection head to {network.projection_dimension} dimensions" if network.projection_dimension else
            "no projection head")
    logger.info("taken from %s: %s, width x %g, %s, %s; left out: %s", source, network.encoder,
                network.width_multiplier, STEMS[network.stem].title, head, left_out or "nothing")
    logger.info("pixels: red, green, blue, from 0 to 1, %s",
                f"minus {network.mean}, divided by {network.std}" if network.mean else "not normalised")
