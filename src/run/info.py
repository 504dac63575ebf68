"""What a checkpoint says of itself, and how what earlier versions said is brought up to date.

The info of an encoder's checkpoint: ``holds`` "simclr"; ``network`` (src/settings/network.py); ``settings``, those of
the flags with the role of learning; ``epoch``, None where it is unknown; ``mindspore``, the version. A run's has
``data``, the fingerprint of its images, and ``global_batch``, the images of a step, besides.

That of a classifier's: ``holds`` "linear_classifier"; ``class_num``, ``features``, ``dataset_name``, ``classes``;
``encoder_digest`` and ``encoder_epoch``, those of the encoder that it was trained on; ``epoch`` and ``mindspore``.
"""
import dataclasses
from typing import Any, Dict

from src.dataset import DATA_SETS
from src.settings.flags import LEARNING
from src.settings.given import flags_of
from src.settings.network import Network, default_stem
from src.settings.scripts import TrainSettings

# Side, mean and deviation that the name of a data set stood for while checkpoints kept no more than the name.
_MEANT = {
    "cifar10": (32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": (32, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "stl10": (96, (0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)),
    "imagefolder": (224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "shapes": (32, (0.5, 0.5, 0.5), (0.29, 0.29, 0.29)),
}

# What runs did before there was a flag for it.
_LATER = {"views": 2}


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
