"""The file of an encoder: a checkpoint, or what convert.py writes for PyTorch as .safetensors, on the way back."""
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
from mindspore import Parameter, Tensor, nn

from src.common.errors import UserError, option
from src.common.logs import logger
from src.resnet import ResNet, build_encoder
from src.run import checkpoint
from src.run.checkpoint import Checkpoint
from src.settings.network import Network
from src.simclr_model import build_head
from src.tasks import torch_weights
from src.tasks.torch_weights import Found, torch_name


def load(path: str, flag: str) -> Checkpoint:
    """Read the file of an encoder.

    Args:
        path: a checkpoint, as for ``checkpoint.load``, or a .safetensors file that tells of its network.
        flag: the flag that gave ``path``, for error messages.

    Raises:
        UserError: there is no such file, it holds something else, or other weights than those of the network.
    """
    if not path.endswith(".safetensors"):
        return checkpoint.load(path, checkpoint.ENCODER, flag)
    source = f"{option(flag)}: {path}"
    found = torch_weights.recognise(torch_weights.read(path, flag), source)
    told = torch_weights.told_settings(path, flag)
    if not told:
        raise UserError(f"{source} does not tell how its network takes images, as those that convert.py writes do; "
                        "make a checkpoint of it with convert.py")
    if found.left_out:
        logger.info("left out: %s", torch_weights.summary(found.left_out))
    network = Network.of({**told, **found.settings})
    parameters = parameters_from(found, network, source)
    return Checkpoint(Path(path).resolve(), {parameter.name: parameter for parameter in parameters},
                      info_of(network, told["dataset_name"], told["pretrain_epoch_size"], Path(path).name))


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
        UserError: they do not fit the network.
    """
    parameters = parameters_of(network)
    checkpoint.check_fit({name: (tuple(target.shape), "float32") for name, target in parameters.items()},
                         {name: (value.shape, str(value.dtype)) for name, value in found.weights.items()}, source)
    return [Parameter(Tensor(np.ascontiguousarray(found.weights[name])), name=target.name)
            for name, target in parameters.items()]
