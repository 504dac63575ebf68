"""Reading an encoder: from a checkpoint, or from weights of PyTorch and a description of their network."""
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict

import numpy as np
from mindspore import Parameter, Tensor, nn

from src.common.errors import UserError, option
from src.resnet import ResNet, build_encoder
from src.run import checkpoint, info
from src.run.checkpoint import Checkpoint
from src.settings.network import Network
from src.simclr_model import SimCLR, build_head
from src.weights import torch_files
from src.weights.torch_names import Recognised, recognise, torch_name


def load(path: str, flag: str) -> Checkpoint:
    """Read an encoder from a checkpoint, or from a .safetensors file that describes its network.

    Raises a UserError, which names the ``flag`` that gave ``path``, where there is no encoder that fits its network.
    """
    if not path.endswith(".safetensors"):
        return checkpoint.load(path, checkpoint.ENCODER, flag)
    source = f"{option(flag)}: {path}"
    weights, description = torch_files.read(path, flag)
    recognised = recognise(weights, source)
    if not description:
        raise UserError(f"{source} does not describe its network, as files of convert.py do; make a checkpoint of it "
                        "with convert.py")
    return from_torch(recognised, description, path, source)


def from_torch(recognised: Recognised, description: Dict[str, Any], path: str, source: str) -> Checkpoint:
    """Return weights of PyTorch from the file ``path`` as a checkpoint, bit by bit. No run can be resumed from it.

    ``description`` says what the weights do not, by the names of flags, with ``mean`` and ``std`` of the colours.
    Raises a UserError, which begins with ``source``, where it makes no sense, or where the weights do not fit the
    network, are not float32, or are not finite.
    """
    with info.believed(source):
        network = Network.of({**description, **recognised.settings})
        described = {"holds": checkpoint.ENCODER, "epoch": description["pretrain_epoch_size"],
                     "network": asdict(network), "converted_from": Path(path).name,
                     "settings": {"dataset_name": description["dataset_name"]}}
        info.check(described)
    encoder = build_encoder(network)
    model = SimCLR(encoder, build_head(encoder.features, network) if network.projection_dimension else nn.Identity())
    targets = {torch_name(target.name): target for target in model.get_parameters()}
    checkpoint.check_fit({name: (tuple(target.shape), "float32") for name, target in targets.items()},
                         {name: (value.shape, str(value.dtype)) for name, value in recognised.weights.items()}, source)
    parameters = {target.name: Parameter(Tensor(np.ascontiguousarray(recognised.weights[name])), name=target.name)
                  for name, target in targets.items()}
    checkpoint.check_values(parameters.values(), source)
    return Checkpoint(Path(path).resolve(), parameters, described)


def load_weights(encoder: ResNet, source: Checkpoint) -> None:
    """Copy the weights of ``source`` into an encoder that was built for its network, without a projection head."""
    checkpoint.load_into(encoder.get_parameters(), checkpoint.part(source.parameters, "encoder."), str(source.path))
