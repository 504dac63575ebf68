"""Reading an encoder: from a checkpoint, or from the .safetensors file that convert.py makes of one for PyTorch."""
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
from mindspore import Parameter, Tensor

from src.common.errors import UserError, option
from src.resnet import ENCODERS, ResNet, build_encoder, widths_of
from src.run import checkpoint, info
from src.run.checkpoint import Checkpoint
from src.settings.network import Network
from src.simclr_model import build_head
from src.weights import torch_files
from src.weights.torch_names import Recognised, recognise, torch_name


def load(path: str, flag: str) -> Checkpoint:
    """Read an encoder.

    Args:
        path: a checkpoint, as for ``checkpoint.load``, or a .safetensors file with a description of its network.
        flag: the flag that gave ``path``, for error messages.

    Raises:
        UserError: there is no such file, it holds something else, or its weights do not fit its network.
    """
    source = f"{option(flag)}: {path}"
    if not path.endswith(".safetensors"):
        loaded = checkpoint.load(path, checkpoint.ENCODER, flag)
        _check_size(loaded, source)
        return loaded
    weights, description = torch_files.read(path, flag)
    recognised = recognise(weights, source)
    if not description:
        raise UserError(f"{source} does not tell how its network takes images, as files of convert.py do; make a "
                        "checkpoint of it with convert.py")
    described = described_info(description, recognised, path, source)
    parameters = parameters_from(recognised, Network.of(described["network"]), source)
    return Checkpoint(Path(path).resolve(), {parameter.name: parameter for parameter in parameters}, described)


def described_info(description: Dict[str, Any], recognised: Recognised, path: str, source: str) -> Dict[str, Any]:
    """Return the info of the encoder in a .safetensors file, from its description and its weights.

    Raises:
        UserError: the description makes no sense.
    """
    with info.believed(source):
        described = info_of(Network.of({**description, **recognised.settings}), description["dataset_name"],
                            description["pretrain_epoch_size"], Path(path).name)
        info.check(described)
    return described


def info_of(network: Network, dataset_name: str, epoch: Optional[int], converted_from: str) -> Dict[str, Any]:
    """Return the info of an encoder from PyTorch. It has no optimizer and no data, so no run can be resumed from it."""
    return {"holds": checkpoint.ENCODER, "epoch": epoch, "network": asdict(network),
            "converted_from": converted_from, "settings": {"dataset_name": dataset_name}}


def load_weights(encoder: ResNet, source: Checkpoint) -> None:
    """Copy the weights of ``source`` into an encoder that was built for its network, without a projection head.

    Raises:
        UserError: they do not fit.
    """
    checkpoint.load_into(encoder.get_parameters(), checkpoint.part(source.parameters, "encoder."), str(source.path))


def parameters_from(recognised: Recognised, network: Network, source: str) -> List[Parameter]:
    """Return the recognised weights as the parameters of a checkpoint, bit by bit.

    Raises:
        UserError: they do not fit the network, are not float32, or are not finite.
    """
    encoder = build_encoder(network)
    cells = {"encoder.": encoder}
    if network.projection_dimension is not None:
        cells["projection_head."] = build_head(encoder.features, network)
    for prefix, cell in cells.items():
        cell.update_parameters_name(prefix)
    targets = {torch_name(target.name): target for cell in cells.values() for target in cell.get_parameters()}
    checkpoint.check_fit({name: (tuple(target.shape), "float32") for name, target in targets.items()},
                         {name: (value.shape, str(value.dtype)) for name, value in recognised.weights.items()}, source)
    parameters = [Parameter(Tensor(np.ascontiguousarray(recognised.weights[name])), name=target.name)
                  for name, target in targets.items()]
    checkpoint.check_values(parameters, source)
    return parameters


def _check_size(loaded: Checkpoint, source: str) -> None:
    """Compare the largest weights with those of the network before it is built, which may take too much memory."""
    network = loaded.network
    block, depths = ENCODERS[network.encoder]
    width = widths_of(network)[-1]
    largest = {f"encoder.layer4.{depths[-1] - 1}.conv2.weight": (width, width, 3, 3)}
    if network.projection_dimension is not None:
        largest["projection_head.dense2.weight"] = (network.projection_dimension, width * block.expansion)
    stored = {name: tuple(loaded.parameters[name].shape) for name in largest if name in loaded.parameters}
    checkpoint.check_fit(*({name: (shape, "Float32") for name, shape in shapes.items()}
                           for shapes in (largest, stored)), source)
