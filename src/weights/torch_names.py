"""The ResNet in weights of PyTorch: found by torchvision's names, after the longest prefix that they all have.

torchvision's names are this project's, except in batch norm. lightly, solo-learn, MoCo, DataParallel, torch.compile and
training scripts put prefixes before them, such as ``state_dict.module.encoder_q.``.
"""
import re
from collections import Counter
from os.path import commonprefix
from typing import Any, Dict, List, NamedTuple, Tuple

from src.common.errors import UserError
from src.resnet import ENCODERS, Bottleneck
from src.weights.torch_files import Weights

# A ResNet cut out as nn.Sequential(*list(resnet.children())[:-1]) has numbers for names; 2 and 3 are ReLU and pooling.
NUMBERED = dict(zip("014567", ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")))
STAGE = re.compile(r"(|.*\.)(layer1|4|2)\.0\.conv1\.weight")  # the first convolution behind the stem, with its prefix
COPIES = re.compile(r"momentum|encoder_k|teacher|ema[._]|_ema")  # prefixes of moving averages of the encoder
HEADS = ("projection_head.", "projection_head.layers.", "projector.")  # beside the encoder: ours, lightly, solo-learn
BESIDE = ("fc.", "linear.", "projection_head.", "projector.")  # after the encoder's prefix, but not of the encoder
BATCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
# The layers of this project's projection heads, by their numbers in an nn.Sequential, and all of their tensors.
PLAIN_HEAD = {"0": "dense1", "2": "dense2"}, {"dense1.weight", "dense1.bias", "dense2.weight", "dense2.bias"}
NORMED_HEAD = {"0": "dense1", "1": "bn1", "3": "dense2"}, {
    "dense1.weight", *(f"bn1.{part}" for part in BATCH_NORM.values()), "dense2.weight", "dense2.bias"}


class Recognised(NamedTuple):
    """An encoder in the weights of a file, with its projection head if this project has such a head."""

    settings: Dict[str, Any]  # encoder, width_multiplier; for a head projection_dimension and head_batch_norm
    weights: Weights          # by torchvision's names, and projection_head.{dense1,bn1,dense2}
    left_out: str             # a summary of all other tensors in the file


def torch_name(name: str) -> str:
    """Return PyTorch's name for the parameter ``name`` of a checkpoint: encoder.bn1.gamma -> bn1.weight."""
    stem, _, last = name.rpartition(".")
    return (f"{stem}." if stem else "").replace("encoder.", "", 1) + BATCH_NORM.get(last, last)


def recognise(weights: Weights, source: str) -> Recognised:
    """Find the encoder in the tensors of a file, and its projection head.

    Raises a UserError, which begins with ``source``, where there is no ResNet, or one that this project does not have.
    """
    # PyTorch counts the batches for a batch norm without momentum, which these networks do not have.
    weights = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    prefix = _encoder_prefix(weights, source)
    beside = tuple(prefix + part for part in BESIDE)
    names = {name: _torchvision_name(name[len(prefix):]) for name in weights
             if name.startswith(prefix) and not name.startswith(beside)}
    encoder = {plain: weights[name] for name, plain in names.items()}
    settings, features = _architecture(encoder, source)
    parent = prefix[:prefix[:-1].rfind(".") + 1]
    head = _head_names(weights, (f"{prefix}fc.", *(parent + start for start in HEADS)), features)
    if head:
        encoder.update({plain: weights[name] for name, plain in head.items()})
        settings["projection_dimension"] = len(encoder["projection_head.dense2.weight"])
        settings["head_batch_norm"] = "projection_head.bn1.weight" in encoder
    left_out = [name for name in weights if name not in names and name not in head]
    return Recognised(settings, encoder, _summary(left_out, prefix))


def _encoder_prefix(weights: Weights, source: str) -> str:
    matches = list(filter(None, map(STAGE.fullmatch, weights)))
    if not matches:
        some = ", ".join(list(weights)[:3]) or "no tensors"
        raise UserError(f"{source} holds no ResNet by torchvision's names, but {some}; save a ResNet's state dict")
    prefix, stage = min(matches, key=lambda match: bool(COPIES.search(match[1]))).groups()
    # The children of lightly's own ResNet have no ReLU among them, so a Sequential of them computes something else.
    if stage == "2" or f"{prefix}2.0.conv1.weight" in weights:
        raise UserError(f"{source} has its first stage at {prefix}2, so there is no ReLU before it (lightly's own "
                        "ResNet cut into a Sequential); train lightly's ResNet whole (resnet.linear = nn.Identity()), "
                        "or torchvision's")
    return prefix


def _torchvision_name(name: str) -> str:
    first, dot, others = name.partition(".")
    # lightly calls the shortcut's convolution and batch norm `shortcut`.
    return re.sub(r"^(layer\d\.\d+\.)shortcut\.", r"\1downsample.", f"{NUMBERED.get(first, first)}{dot}{others}")


def _architecture(encoder: Weights, source: str) -> Tuple[Dict[str, Any], int]:
    """Return encoder and width_multiplier, and the number of features, from names and shapes."""
    depths = [len({name.split(".")[1] for name in encoder if name.startswith(f"layer{n}.")}) for n in range(1, 5)]
    is_bottleneck = "layer1.0.conv3.weight" in encoder
    # The last stage gives the multiplier exactly: the others have a half, a quarter and an eighth of its width. This
    # convolution is among the largest, so a small file cannot have a network built that no memory holds.
    widest = f"layer4.{depths[3] - 1}.conv2.weight"
    shapes = [getattr(encoder.get(name), "shape", ()) for name in ("conv1.weight", widest)]
    if [len(shape) for shape in shapes] != [4, 4] or shapes[1] != (*2 * shapes[1][:1], 3, 3):
        raise UserError(f"{source} does not fit a ResNet: conv1.weight is {shapes[0] or 'missing'}, {widest} is "
                        f"{shapes[1] or 'missing'}; take a ResNet with torchvision's names and shapes")
    width = shapes[1][0]
    for name, (block, known) in ENCODERS.items():
        if list(known) == depths and (block is Bottleneck) == is_bottleneck:
            return {"encoder": name, "width_multiplier": width / 512}, width * block.expansion
    raise UserError(f"{source} has stages of {depths} {'bottlenecks' if is_bottleneck else 'basic blocks'}; take one "
                    f"of {', '.join(ENCODERS)}")


def _head_names(weights: Weights, starts: Tuple[str, ...], features: int) -> Dict[str, str]:
    """Return the names of a projection head's tensors with this project's names for them, or {}."""
    for start in starts:
        parts = {name: name[len(start):].partition(".") for name in weights if name.startswith(start)}
        for layers, wanted in (PLAIN_HEAD, NORMED_HEAD):
            head = {name: layers.get(layer, layer) + dot + part for name, (layer, dot, part) in parts.items()}
            last = [weights[name].shape[1:] for name, part in head.items() if part == "dense2.weight"]
            if set(head.values()) == wanted and last == [(features,)]:
                return {name: f"projection_head.{part}" for name, part in head.items()}
    return {}


def _summary(names: List[str], prefix: str) -> str:
    """Name tensors by the part of their names in which they begin to differ from the encoder's prefix."""
    groups = Counter(".".join(name.split(".")[:len(commonprefix([name.split("."), prefix.split(".")])) + 1])
                     for name in names)
    return ", ".join(f"{group} ({count} tensors)" if count > 1 else group for group, count in groups.items())
