"""PyTorch's weights of ResNets: files and names.

The names are torchvision's, which are this project's but for those of batch norm, alone or with what lightly,
solo-learn, MoCo, DataParallel and torch.compile put before them. Only float32 is taken, so every bit is kept.
"""
import importlib
import json
import os
import re
import warnings
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Tuple

import numpy as np

from src.common.errors import UserError, option
from src.common.files import written_whole
from src.common.logs import logger
from src.resnet import ENCODERS
from src.run.info import believed

Weights = Dict[str, np.ndarray]

PICKLES = (".pth", ".pt", ".ckpt", ".tar")
NESTED = ("state_dict", "model")  # where training scripts put the state dict
# What may stand before all names, in any order: of DataParallel, a module that holds the network, torch.compile.
WRAPPERS = re.compile(r"(?:(?:module|model|_orig_mod)\.)*")
# What stands before the encoder's names: nothing (torchvision), this project's reference and older solo-learn,
# lightly and solo-learn, MoCo v1 and v2, MoCo v3. Where several are there, as in MoCo, the first one counts.
PREFIXES = ("", "encoder.", "backbone.", "encoder_q.", "base_encoder.")
HEADS = ("projection_head.", "projector.")  # lightly and the reference, solo-learn; MoCo v2 calls it fc
CLASSIFIERS = ("fc.", "linear.")  # torchvision, lightly
COUNTER = "num_batches_tracked"
SAFE_TORCH = (2, 6)  # from which on `weights_only` keeps its word: CVE-2025-32434
SETTINGS = "simclr_settings"  # in the metadata of this project's .safetensors files: what weights do not tell, as JSON
# An encoder cut out as nn.Sequential(*list(resnet.children())[:-1]), as lightly does, has numbers for names; 2 and 3
# are ReLU and pooling. In lightly's own ResNet these are no children: cut out it has lost them, and 2 is layer1.
NUMBERED = dict(zip("014567", ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")))
BATCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
PLAIN_HEAD = {"0.weight": "dense1.weight", "0.bias": "dense1.bias", "2.weight": "dense2.weight",
              "2.bias": "dense2.bias"}
NORMED_HEAD = {"0.weight": "dense1.weight", **{f"1.{part}": f"bn1.{part}" for part in BATCH_NORM.values()},
               "3.weight": "dense2.weight", "3.bias": "dense2.bias"}


class Found(NamedTuple):
    """What a state dict holds: an encoder, a head that fits it (or nothing), and the rest."""

    settings: Dict[str, Any]  # encoder, width_multiplier, and projection_dimension and head_batch_norm of a head
    weights: Weights          # torchvision's names, and projection_head.{dense1,bn1,dense2}; shapes as in the file
    left_out: List[str]       # in the file's names
    counters: int             # of num_batches_tracked
    is_solo_learn: bool       # by its names: then a 3x3 first convolution is to be padded by 2


def torch_name(name: str) -> str:
    """Return PyTorch's name of the parameter ``name`` of a checkpoint, such as encoder.bn1.gamma -> bn1.weight."""
    stem, _, last = name.rpartition(".")
    return (f"{stem}." if stem else "").replace("encoder.", "", 1) + BATCH_NORM.get(last, last)


def summary(names: Iterable[str]) -> str:
    """Name what is left out, long groups by their beginning and number: ``fc.weight, fc.bias, encoder_k.* (62)``."""
    groups: Dict[str, List[str]] = {}
    for name in names:
        groups.setdefault(re.match(WRAPPERS.pattern + "[^.]*", name)[0], []).append(name)
    return ", ".join(", ".join(group) if len(group) < 5 else f"{first}.* ({len(group)})"
                     for first, group in groups.items())


def _first(names: Iterable[Any]) -> str:
    names = list(map(str, names))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# --- files ---

def _package(module: str, path: str, flag: str) -> Any:
    """Import what only those need who convert such files."""
    try:
        return importlib.import_module(module)
    except ImportError:
        name, other = ("torch", ".safetensors") if module == "torch" else ("safetensors", ".pth")
        raise UserError(f"{option(flag)}: {path} needs the package {name}, which is not installed here; pip install "
                        f"{name}, or take a {other} file") from None


def read(path: str, flag: str) -> Weights:
    """Read a state dict, as it is, from a file pickled by PyTorch or a .safetensors file (which needs no PyTorch).

    Args:
        path: the file; its suffix decides.
        flag: the flag that gave ``path``, for error messages.

    Raises:
        UserError: there is no such file, it holds no state dict, or the package that reads it is missing.
    """
    if not path.endswith((".safetensors", *PICKLES)):
        raise UserError(f"{option(flag)}: got {path}, takes a file of PyTorch ({', '.join(PICKLES)}) or .safetensors")
    if not Path(path).is_file():
        raise UserError(f"{option(flag)}: no file {path}; name one with PyTorch's weights")
    return _read_safetensors(path, flag) if path.endswith(".safetensors") else _read_pickle(path, flag)


def told_settings(path: str, flag: str) -> Dict[str, Any]:
    """Return what a file that was ``read`` tells of its network: nothing, but for what ``write`` has written.

    Raises:
        UserError: that is no JSON object.
    """
    if not path.endswith(".safetensors"):
        return {}
    with _package("safetensors", path, flag).safe_open(path, framework="numpy") as file:
        text = (file.metadata() or {}).get(SETTINGS, "{}")
    with believed(f"{option(flag)}: {path}"):
        return dict(json.loads(text))


def _not_float32(path: str, flag: str, name: str, dtype: str) -> UserError:
    return UserError(f"{option(flag)}: {path}: {name} is {dtype}, takes float32; save the weights as float32 first")


def _read_safetensors(path: str, flag: str) -> Weights:
    safetensors = _package("safetensors", path, flag)
    weights, name = {}, ""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dict
                weights[name] = file.get_tensor(name)
    except (TypeError, AttributeError, KeyError):  # NumPy has no bfloat16
        raise _not_float32(path, flag, name, "of a type that NumPy does not have") from None
    except (safetensors.SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{option(flag)}: {path} is not a safetensors file ({reason}); copy or download it "
                        "again") from None
    return weights


def _read_pickle(path: str, flag: str) -> Weights:
    torch = _package("torch", path, flag)
    if tuple(map(int, torch.__version__.split(".")[:2])) < SAFE_TORCH:
        raise UserError(f"{option(flag)}: {path}: PyTorch {torch.__version__} may run code that a pickle holds; take "
                        f"{'.'.join(map(str, SAFE_TORCH))} or later, or a .safetensors file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of, such as other pickles than its own, ends in an error
            entries = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files end in errors of many kinds
        lines = str(error).split("WeightsUnpickler error:")[-1].strip().splitlines()
        reason = lines[0].split(". ")[0] if lines else type(error).__name__
        hint = " (a checkpoint of this project goes to a target for PyTorch)" if path.endswith(".ckpt") else ""
        raise UserError(f"{option(flag)}: {path} is no file of tensors alone that PyTorch can read ({reason}); save "
                        f"the state dict: torch.save(model.state_dict(), ...){hint}") from None
    while inner := next((key for key in NESTED if isinstance(entries, Mapping)
                         and isinstance(entries.get(key), Mapping)), None):
        beside = [key for key in entries if key != inner]
        if beside:
            logger.info("left out: %s (beside %s)", ", ".join(map(str, beside)), inner)
        entries = entries[inner]
    if not isinstance(entries, Mapping) or not entries or not all(map(torch.is_tensor, entries.values())):
        what = _first(entries) if isinstance(entries, Mapping) and entries else type(entries).__name__
        raise UserError(f"{option(flag)}: {path} holds no state dict of tensors, alone or under {' or '.join(NESTED)}, "
                        f"but {what}; save it with torch.save(model.state_dict(), ...)")
    weights = {}
    for name, tensor in entries.items():
        try:
            weights[str(name)] = tensor.detach().numpy()
        except (TypeError, RuntimeError):
            raise _not_float32(path, flag, name, str(tensor.dtype)) from None
    return weights


def write(path: Path, weights: Weights, settings: Dict[str, Any], flag: str) -> None:
    """Write ``weights`` to a .safetensors, .pth or .pt file, whole or not at all; the first has ``settings`` too.

    Raises:
        UserError: the package that writes it is missing.
    """
    is_safe = path.suffix == ".safetensors"
    package = _package("safetensors.numpy" if is_safe else "torch", str(path), flag)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        if is_safe:
            package.save_file(weights, str(temporary), metadata={"format": "pt", SETTINGS: json.dumps(settings)})
            temporary.chmod(0o644)  # safetensors' own files are for their owner alone
        else:
            package.save({name: package.from_numpy(value.copy()) for name, value in weights.items()}, temporary)


# --- names ---

def recognise(weights: Weights, source: str) -> Found:
    """Find the encoder of a state dict, and its projection head where that is one of this project's shape.

    Args:
        weights: a state dict, named as by torchvision/models/resnet.py, lightly/models/resnet.py, solo-learn's
            solo/methods/base.py or MoCo's moco/builder.py; convolutions are (outputs, inputs, kernel, kernel).
        source: flag and file, for error messages.

    Raises:
        UserError: there is no ResNet in it, or one that this project does not have.
    """
    wrapper = WRAPPERS.match(os.path.commonprefix(list(weights)))[0]
    rest = {name[len(wrapper):]: value for name, value in weights.items() if not name.endswith(COUNTER)}
    counters = len(weights) - len(rest)
    prefix = _encoder_prefix(rest, wrapper, source)
    beside = (*HEADS, *(prefix + classifier for classifier in CLASSIFIERS))
    others = {name: rest.pop(name) for name in list(rest) if not name.startswith(prefix) or name.startswith(beside)}
    inside = {_plain(name[len(prefix):]): value for name, value in rest.items()}
    settings, features = _architecture(inside, source)
    head, used = _head((*HEADS, f"{prefix}fc."), others, features)
    if head:
        settings.update(projection_dimension=len(head["dense2.weight"]), head_batch_norm="bn1.weight" in head)
        inside.update({f"projection_head.{part}": value for part, value in head.items()})
    is_solo_learn = prefix in ("encoder.", "backbone.") and any(name.startswith("projector.") for name in others)
    return Found(settings, inside, [wrapper + name for name in others if name not in used], counters, is_solo_learn)


def _encoder_prefix(weights: Weights, wrapper: str, source: str) -> str:
    for prefix in PREFIXES:
        if f"{prefix}2.0.conv1.weight" in weights:
            raise UserError(
                f"{source} has its first stage at {wrapper}{prefix}2, right after the batch norm, as lightly's own "
                "ResNet cut into a Sequential, and so no ReLU between them; takes a ResNet with that ReLU, whose "
                "features are others; train lightly's ResNet whole (resnet.linear = nn.Identity()), or torchvision's")
        if f"{prefix}layer1.0.conv1.weight" in weights or f"{prefix}4.0.conv1.weight" in weights:
            return prefix
    raise UserError(f"{source} holds no ResNet by torchvision's names, alone or after {', '.join(PREFIXES[1:])} "
                    "(with module., model. or _orig_mod. before all names or none), but "
                    f"{_first(wrapper + name for name in weights) or 'nothing'}; save a state dict of such names")


def _plain(name: str) -> str:
    """Return torchvision's name for lightly's name of a part of the encoder."""
    first, dot, others = name.partition(".")
    return re.sub(r"^(layer\d\.\d+\.)shortcut\.", r"\1downsample.", f"{NUMBERED.get(first, first)}{dot}{others}")


def _architecture(encoder: Weights, source: str) -> Tuple[Dict[str, Any], int]:
    """Return the settings and the number of features of the encoder, from names and shapes."""
    for name in ("conv1.weight", "layer4.0.conv1.weight"):
        if name not in encoder or encoder[name].ndim != 4:
            there = encoder[name].shape if name in encoder else "missing"
            raise UserError(f"{source} does not fit a ResNet: {name} is {there}")
    depths = [len({name.split(".")[1] for name in encoder if name.startswith(f"layer{n}.")}) for n in range(1, 5)]
    block_name = "Bottleneck" if "layer1.0.conv3.weight" in encoder else "BasicBlock"
    # The last stage's width tells the multiplier exactly: the other stages have a half, a quarter and an eighth.
    width = encoder["layer4.0.conv1.weight"].shape[0]
    for name, (block, known) in ENCODERS.items():
        if (block.__name__, list(known)) == (block_name, depths):
            return {"encoder": name, "width_multiplier": width / 512}, width * block.expansion
    takes = ", ".join(f"{name} ({block.__name__} {known})" for name, (block, known) in ENCODERS.items())
    raise UserError(f"{source} has the stages {block_name} {depths}, takes one of {takes}")


def _head(starts: Tuple[str, ...], weights: Weights, features: int) -> Tuple[Weights, List[str]]:
    """Return a projection head of this project's shape, and the names that it has in ``weights``; else nothing."""
    for start in starts:
        parts = {name[len(start):].replace("layers.", "", 1): name for name in weights if name.startswith(start)}
        for layout in (PLAIN_HEAD, NORMED_HEAD):
            head = {layout.get(part, part): weights[name] for part, name in parts.items()}
            if set(head) == set(layout.values()) and head["dense2.weight"].shape[1:] == (features,):
                return head, list(parts.values())
    return {}, []
