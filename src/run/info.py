"""What a checkpoint says of itself, and how what earlier versions said is brought up to date.

The info of an encoder's checkpoint: ``holds`` "simclr"; ``network`` (src/settings/network.py); ``settings``, those of
the flags with the role of learning; ``epoch``, None where it is unknown; ``mindspore``, the version. A run's has
``data``, the fingerprint of its images, and ``global_batch``, the images of a step, besides.

That of a classifier's: ``holds`` "linear_classifier"; ``class_num``, ``features``, ``dataset_name``, ``classes``;
``encoder_digest`` and ``encoder_epoch``, those of the encoder that it was trained on; ``epoch`` and ``mindspore``.
"""
import dataclasses
import json
import typing
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator

from src.common.errors import UserError
from src.common.files import reason_of
from src.dataset import DATA_SETS
from src.settings.flags import LEARNING
from src.settings.given import flags_of
from src.settings.network import Network, default_stem
from src.settings.scripts import TrainSettings
from src.settings.types import shown

# Side, mean and deviation that the name of a data set stood for while checkpoints kept no more than the name.
_MEANT = {
    "cifar10": (32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": (32, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "stl10": (96, (0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)),
    "imagefolder": (224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "shapes": (32, (0.5, 0.5, 0.5), (0.29, 0.29, 0.29)),
}

# What runs did before there was a flag for it.
_LATER = {"views": 2, "amp_level": "O0", "sync_bn": True, "lr_scaling": None, "cross_device_negatives": True}

ENCODER, CLASSIFIER = "simclr", "linear_classifier"  # what a checkpoint holds
_FLAGS = {field.name: field.metadata["takes"] for field in flags_of(TrainSettings)}
_OPEN = {name for name, hint in typing.get_type_hints(TrainSettings).items() if type(None) in typing.get_args(hint)}
_LARGEST = 2**28  # weights of a classifier: 1 GB


@contextmanager
def believed(source: str) -> Iterator[None]:
    """Make the user's error of what ``source`` says of itself, where that is no info.

    Raises:
        UserError: something in it is missing, or of another kind than it should be.
    """
    try:
        yield
    except KeyError as error:
        raise _damaged(source, f"{error} is missing") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(source, reason_of(error)) from None


def _damaged(source: str, reason: str) -> UserError:
    return UserError(f"{source}: what it says of itself is damaged, or of another version ({reason}); take another "
                     "file, or make it again")


def read(text: str) -> Dict[str, Any]:
    """Return the info that ``text`` has as JSON, brought up to date and checked; to be ``believed``."""
    info = json.loads(text)
    if not isinstance(info, dict):
        raise TypeError("it is no JSON object")
    info = up_to_date(info)
    check(info)
    return info


def check(info: Dict[str, Any]) -> None:
    """Raise ValueError, KeyError, TypeError or AttributeError where an info, up to date, is none."""
    if info["holds"] == CLASSIFIER:
        _check_classifier(info)
        return
    _need("holds", info["holds"], lambda value: value == ENCODER)
    _check_network(Network.of(info["network"]))
    _check_flag("dataset_name", info["settings"]["dataset_name"])
    _need("epoch", info["epoch"], lambda value: _is_count(value) or value is None and "global_batch" not in info)
    if "global_batch" in info:  # a run
        _need("global_batch", info["global_batch"], lambda value: _is_count(value) and value > 1)
        _need("data", info["data"], lambda value: isinstance(value, str))
        for field in flags_of(TrainSettings, LEARNING):
            _check_flag(field.name, info["settings"][field.name])


def _check_network(network: Network) -> None:
    for name, value in dataclasses.asdict(network).items():
        if name in _FLAGS and not (name == "projection_dimension" and value is None):
            _check_flag(name, value)
    for name, value in (("mean", network.mean), ("std", network.std)):
        _need(name, value, lambda value: value is None and network.mean is network.std or _is_colour(value))
    _need("std", network.std, lambda value: value is None or min(value) > 0)


def _check_classifier(info: Dict[str, Any]) -> None:
    for name in ("class_num", "features"):
        _need(name, info[name], lambda value: _is_count(value) and value > 0)
    _need("class_num", info["class_num"], lambda value: value * info["features"] <= _LARGEST)
    _need("classes", info["classes"], lambda value: isinstance(value, list) and len(value) <= info["class_num"]
          and all(isinstance(name, str) for name in value))
    _check_flag("dataset_name", info["dataset_name"])
    _need("encoder_digest", info["encoder_digest"], lambda value: isinstance(value, str))
    _need("encoder_epoch", info["encoder_epoch"], lambda value: value is None or _is_count(value))


def _check_flag(name: str, value: Any) -> None:
    """Raise ValueError where ``value`` is not what the flag ``name`` of train.py takes; its text is the value's."""
    if value is None and name in _OPEN:
        return
    try:
        is_taken = _FLAGS[name].convert(str(value)) == value
    except (ValueError, KeyError):
        is_taken = False
    if not is_taken:
        raise ValueError(f"{name} is {shown(value)}, takes {_FLAGS[name].expects}")


def _need(name: str, value: Any, is_right: Callable[[Any], bool]) -> None:
    if not is_right(value):
        raise ValueError(f"{name} is {shown(value)}")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _is_colour(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(
        type(part) in (int, float) and abs(part) < 1e6 and (part == 0 or abs(part) > 1e-6) for part in value)


def network_of(settings: Dict[str, Any]) -> Network:
    """Return the network that the settings of earlier versions describe.

    The first ones had neither ``image_size`` nor ``stem``; encoders of finetune.py and convert.py have no head.
    """
    side, mean, std = _MEANT[settings["dataset_name"]]
    side = settings.get("image_size") or side
    normalize = settings["normalize"]
    return Network(settings["encoder"], settings["width_multiplier"], settings.get("stem") or default_stem(side), side,
                   mean if normalize else None, std if normalize else None, settings.get("projection_dimension"),
                   settings.get("head_batch_norm", False))


def up_to_date(info: Dict[str, Any]) -> Dict[str, Any]:
    """Return the info of a checkpoint of any version as one of now has it."""
    if "holds" not in info:
        info = _with_network(dict(info))
    if "global_batch" in info:  # a run
        info = {**info, "settings": {**_LATER, **info["settings"]}}
    return info


def _with_network(info: Dict[str, Any]) -> Dict[str, Any]:
    """Bring up to date what has no description of its network."""
    info["holds"] = info.pop("kind")
    if "settings" in info:
        settings = info["settings"]
        learning = {field.name for field in flags_of(TrainSettings, LEARNING)}
        info["network"] = dataclasses.asdict(network_of(settings))
        info["settings"] = {name: value for name, value in settings.items() if name in learning}
        if "data" in info:  # the first runs had one device
            info.setdefault("global_batch", settings["batch_size"])
    else:
        info.setdefault("classes", list(DATA_SETS[info["dataset_name"]].classes))
    return info
