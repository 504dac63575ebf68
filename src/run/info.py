"""The info of a checkpoint: the JSON object in it that says what it holds.

The info of an encoder has ``network`` (src/settings/network.py); ``settings``, the values of the flags with the role of
learning; ``epoch``, None where it is unknown. A checkpoint of train.py also has ``data``, the fingerprint of the
images, and ``global_batch``, the number of images in a step. The info of a classifier says what it takes and tells
apart, and which encoder it was trained on. Both have ``mindspore``, the version that wrote the file.
"""
from contextlib import contextmanager
from typing import Any, Dict, Iterator

from src.common.errors import UserError
from src.common.files import reason_of
from src.settings.given import flags_of
from src.settings.network import Network
from src.settings.scripts import TrainSettings
from src.settings.types import shown

ENCODER, CLASSIFIER = "simclr", "linear_classifier"  # what a checkpoint ``holds``
_OPEN = (int, type(None))  # an epoch is unknown where the weights come from PyTorch
_FIELDS = {ENCODER: {"network": dict, "settings": dict, "epoch": _OPEN},
           CLASSIFIER: {"class_num": int, "features": int, "dataset_name": str, "classes": list, "epoch": _OPEN,
                        "encoder_digest": str, "encoder_epoch": _OPEN}}
_FLAGS = {field.name: field.metadata["takes"] for field in flags_of(TrainSettings)}


@contextmanager
def believed(source: str) -> Iterator[None]:
    """Turn what goes wrong while the info of ``source`` is read into a UserError of one line."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else reason_of(error)
        raise UserError(f"{source}: its description of the network is damaged, or of another version ({reason}); take "
                        "another file, or make it again") from None


def check(info: Dict[str, Any]) -> None:
    """Check names and types, and that the network is one that flags of train.py can describe.

    Raises:
        ValueError, KeyError, TypeError: something is missing or is not what it should be; see ``believed``.
    """
    for name, types in _FIELDS[info["holds"]].items():
        if not isinstance(info[name], types):
            raise TypeError(f"{name} is {shown(info[name])}")
    if info["holds"] == ENCODER:
        network = Network.of(info["network"])
        for name, value in {**network.settings, "dataset_name": info["settings"]["dataset_name"]}.items():
            _check_flag(name, value)
        for colour in (network.mean, network.std) if (network.mean, network.std) != (None, None) else ():
            if [type(part) for part in colour] != 3 * [float]:
                raise TypeError(f"mean and std are {shown(network.mean)} and {shown(network.std)}")


def _check_flag(name: str, value: Any) -> None:
    try:
        is_taken = _FLAGS[name].convert(str(value)) == value
    except ValueError:
        is_taken = False
    if not is_taken:
        raise ValueError(f"{name} is {shown(value)}, takes {_FLAGS[name].expects}")
