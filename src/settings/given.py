"""What a flag is, and the two states of a script's settings: as the user gave them, and resolved.

The flags of a script are the fields of a frozen dataclass, whose objects hold a value for every flag. Before, there is
a ``Given`` with the user's values; missing values follow later from a checkpoint, the images or other flags.
"""
import dataclasses
from enum import Enum
from typing import Any, Dict, List, Mapping

from src.common.errors import UserError
from src.settings.types import FlagType


class Role(Enum):
    """What a flag is about. A run can be resumed with other circumstances, but with nothing else changed."""

    NETWORK = "the network"          # a checkpoint keeps these: src/settings/network.py
    LEARNING = "learning"
    CIRCUMSTANCE = "circumstances"   # where and how it is run


NETWORK, LEARNING, CIRCUMSTANCE = Role


class Group(Enum):
    """The groups that --help and docs/flags.md show flags in, in this order."""

    USUAL = "the usual ones"
    DATA = "data"
    NETWORK = "network"
    VIEWS = "views"
    LEARNING = "learning"
    EVALUATION = "evaluation"
    RUN = "the run and its files"
    DEVICE = "devices"
    CLOUD = "cloud storage"


def flag(takes: FlagType, help: str, role: Role, group: Group, default: Any = None, usual: bool = False,
         required: bool = False) -> Any:
    """Return a field of a script's settings; ``usual`` shows it among the usual flags instead of in ``group``."""
    return dataclasses.field(metadata={
        "takes": takes, "help": help, "role": role, "group": Group.USUAL if usual else group, "default": default,
        "required": required})


def changed(settings_type: type, name: str, **changes: Any) -> Any:
    """Return the flag ``name`` of ``settings_type`` with another default or help text."""
    metadata = next(field.metadata for field in dataclasses.fields(settings_type) if field.name == name)
    return dataclasses.field(metadata={**metadata, **changes})


def flags_of(settings_type: type, *roles: Role) -> List[dataclasses.Field]:
    """Return the flags of ``settings_type`` with any of ``roles``, by default all, in the order of definition."""
    return [field for field in dataclasses.fields(settings_type) if not roles or field.metadata["role"] in roles]


def values_of(settings: Any, *roles: Role) -> Dict[str, Any]:
    """Return the values of resolved ``settings`` by the names of the flags; ``roles`` as in ``flags_of``."""
    return {field.name: getattr(settings, field.name) for field in flags_of(type(settings), *roles)}


@dataclasses.dataclass(frozen=True)
class Given:
    """The settings of a script before they are resolved.

    ``given[name]`` is the user's value of a flag, else the value that was filled in, else the default or None.
    """

    settings_type: type  # of the resolved settings
    chosen: Mapping[str, Any]  # the user's values, from the command line or a recipe
    filled: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        default = next(field for field in flags_of(self.settings_type) if field.name == name).metadata["default"]
        return self.chosen.get(name, self.filled.get(name, default))

    def values(self, *roles: Role) -> Dict[str, Any]:
        """Return the values by the names of the flags; ``roles`` as in ``flags_of``."""
        return {field.name: self[field.name] for field in flags_of(self.settings_type, *roles)}

    def fill(self, **values: Any) -> "Given":
        """Return the same settings with ``values`` for flags that the user left out."""
        return dataclasses.replace(self, filled={**self.filled, **values})

    def adopt(self, stored: Mapping[str, Any], source: str) -> "Given":
        """Fill in the values that the checkpoint ``source`` has ``stored``; refuse other values of the user.

        Names that are no flags are ignored. A stored None says that the checkpoint has no such thing.
        """
        flags = {field.name for field in flags_of(self.settings_type)}
        taken = {name: value for name, value in stored.items() if name in flags}
        for name, value in taken.items():
            if name in self.chosen and self.chosen[name] != value:
                made = "without it" if value is None else f"with {value}"
                raise UserError(f"--{name}: got {self.chosen[name]}, but {source} was made {made}; leave the flag out")
        return self.fill(**taken)

    def refusal(self, name: str, why: str) -> UserError:
        """Return the error of a flag whose value contradicts others."""
        value = self[name]
        return UserError(f"--{name}: got {'nothing' if value is None else value} {why}")

    def resolved(self, **values: Any) -> Any:
        """Return the resolved settings, an object of ``settings_type``, with ``values`` for flags left out."""
        return self.settings_type(**self.fill(**values).values())
