"""The file of an encoder: a checkpoint, or what convert.py writes for PyTorch as .safetensors, on the way back."""
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
from mindspore import Parameter, Tensor, nn

from src.common.errors import UserError, option
from src.common.logs import logger
from src.resnet import ENCODERS, ResNet, build_encoder, widths_of
from src.run import checkpoint, info
from src.run.checkpoint import Checkpoint
from src.settings.network import Network
from src.simclr_model import build_head
from src.weights import torch_weights
from src.weights.torch_weights import Found, torch_name


def load(path: str, flag: str) -> Checkpoint:
    """Read the file of an encoder.

    Args:
        path: a checkpoint, as for ``checkpoint.load``, or a .safetensors file that tells of its network.
        flag: the flag that gave ``path``, for error messages.

    Raises:
        UserError: there is no such file, it holds something else, or other weights than those of the network.
    """
    source = f"{option(flag)}: {path}"
    if not path.endswith(".safetensors"):
        read = checkpoint.load(path, checkpoint.ENCODER, flag)
        check_size(read, source)
        return read
    found = torch_weights.recognise(torch_weights.read(path, flag), source)
    told = told_of(found, path, flag)
    if not told:
        raise UserError(f"{source} does not tell how its network takes images, as those that convert.py writes do; "
                        "make a checkpoint of it with convert.py")
    if found.left_out:
        logger.info("left out: %s", torch_weights.summary(found.left_out))
    network = Network.of(told)
    parameters = parameters_from(found, network, source)
    return Checkpoint(Path(path).resolve(), {parameter.name: parameter for parameter in parameters},
                      info_of(network, told["dataset_name"], told["pretrain_epoch_size"], Path(path).name))


def told_of(found: Found, path: str, flag: str) -> Dict[str, Any]:
    """Return what a file that ``torch_weights.read`` has read tells of its network, and of nothing else.

    Raises:
        UserError: it makes no sense.
    """
    told = torch_weights.told_settings(path, flag)
    if not told:
        return {}
    with info.believed(f"{option(flag)}: {path}"):
        network = Network.of({**told, **found.settings})
        info.check(info_of(network, told["dataset_name"], told["pretrain_epoch_size"], path))
        return {**network.settings, "mean": network.mean, "std": network.std,
                **{name: told[name] for name in ("dataset_name", "pretrain_epoch_size")}}


def check_size(source: Checkpoint, name: str) -> None:
    """Raise UserError where a checkpoint has not the weights, by the largest, that the network it tells of has.

    It is built only then: that takes the memory of a network as large as the checkpoint says.
    """
    network = source.network
    block, depths = ENCODERS[network.encoder]
    width = widths_of(network)[-1]
    largest = {f"encoder.layer4.{depths[-1] - 1}.conv2.weight": (width, width, 3, 3)}
    if network.projection_dimension is not None:
        largest["projection_head.dense2.weight"] = (network.projection_dimension, width * block.expansion)
    there = {part: tuple(source.parameters[part].shape) for part in largest if part in source.parameters}
    checkpoint.check_fit(*({part: (shape, "Float32") for part, shape in shapes.items()} for shapes in (largest, there)),
                         name)


def load_weights(encoder: ResNet, source: Checkpoint) -> None:
    """Copy the weights of ``source`` into an encoder that was built for its network; a projection head stays behind.

    Raises:
        UserError: they do not fit it.
    """
    checkpoint.load_into(encoder.get_parameters(), checkpoint.part(source.parameters, "encoder."), str(source.path))


def info_of(network: Network, dataset_name: str, epoch: int, converted_from: str) -> Dict[str, Any]:
    """Return the info of an encoder from PyTorch; it has neither optimizer nor data, and is no run to resume."""
    return {"holds": checkpoint.ENCODER, "epoch": epoch, "network": asdict(network),
            "converted_from": converted_from, "settings": {"dataset_name": dataset_name}}


def parameters_of(network: Network) -> Dict[str, Parameter]:
    """Return the parameters of a network, named as in a checkpoint, by PyTorch's names."""
    encoder = build_encoder(network)
    cells: List[Tuple[str, nn.Cell]] = [("encoder.", encoder)]
    if network.projection_dimension is not None:
        cells.append(("projection_head.", build_head(encoder.features, network)))
    for prefix, cell in cells:
        cell.update_parameters_name(prefix)
    return {torch_name(parameter.name): parameter for _, cell in cells for parameter in cell.get_parameters()}


def parameters_from(found: Found, network: Network, source: str) -> List[Parameter]:
    """Return the weights that were found as the parameters of a checkpoint.

    Raises:
        UserError: they do not fit the network, or no network of use can have them.
    """
    parameters = parameters_of(network)
    checkpoint.check_fit({name: (tuple(target.shape), "float32") for name, target in parameters.items()},
                         {name: (value.shape, str(value.dtype)) for name, value in found.weights.items()}, source)
    converted = [Parameter(Tensor(np.ascontiguousarray(found.weights[name])), name=target.name)
                 for name, target in parameters.items()]
    checkpoint.check_values(converted, source)
    return converted
