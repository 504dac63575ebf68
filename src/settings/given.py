"""What a flag is, and the two types of a script's settings: those that the user gave, and the resolved ones.

A script's flags are the fields of a frozen dataclass, the type of its resolved settings, in which nothing is open any
more. What the user gave is a ``Given``: some values are missing there, and follow from a checkpoint, from the images or
from other settings.
"""
import dataclasses
import typing
from enum import Enum
from typing import Any, Dict, Generic, List, Mapping, Type, TypeVar

from src.common.errors import UserError
from src.settings.types import FlagType


class Role(Enum):
    """What a flag is about. A run may be resumed with other circumstances, and with nothing else."""

    NETWORK = "the network"          # what a checkpoint keeps of it: src/settings/network.py
    LEARNING = "learning"            # what is learned
    CIRCUMSTANCE = "circumstances"   # where and how it is run


class Group(Enum):
    """What --help shows together, in this order."""

    USUAL = "the usual ones"
    DATA = "data"
    NETWORK = "network"
    VIEWS = "views"
    LEARNING = "learning"
    EVALUATION = "evaluation"
    RUN = "the run and its files"
    DEVICE = "devices"
    CLOUD = "cloud storage"


def flag(takes: FlagType, help: str, role: Role, group: Group, default: Any = None, usual: bool = False) -> Any:
    """Return a field of a script's settings.

    Args:
        takes: what its text may be.
        help: for --help and docs/flags.md.
        role: what it is about.
        group: what it is shown with; ``usual`` ones are shown before all others.
        default: None where it has none, or where it follows from something else.
    """
    return dataclasses.field(metadata={
        "takes": takes, "help": help, "role": role, "group": Group.USUAL if usual else group, "default": default})


def changed(settings_type: type, name: str, **changes: Any) -> Any:
    """Return the flag ``name`` of ``settings_type`` with another default or help text."""
    metadata = next(field.metadata for field in dataclasses.fields(settings_type) if field.name == name)
    return dataclasses.field(metadata={**metadata, **changes})


def flags_of(settings_type: type, *roles: Role) -> List[dataclasses.Field]:
    """Return the flags of ``settings_type``, in the order of definition; those of ``roles`` where some are given."""
    return [field for field in dataclasses.fields(settings_type) if not roles or field.metadata["role"] in roles]


def values_of(settings: Any, *roles: Role) -> Dict[str, Any]:
    """Return the flags of resolved ``settings`` with their values, ready for YAML or JSON; ``roles`` as above."""
    return {field.name: getattr(settings, field.name) for field in flags_of(type(settings), *roles)}


Settings = TypeVar("Settings")


@dataclasses.dataclass(frozen=True)
class Given(Generic[Settings]):
    """What the user gave of a script's settings, and what was found out since.

    ``given[name]`` is the user's value of a flag, else what was found out, else the default, which may be None.

    Args:
        settings_type: of the script.
        chosen: the user's values, from the command line or a recipe.
        found: values of what the user left open.
    """

    settings_type: Type[Settings]
    chosen: Mapping[str, Any]
    found: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        default = next(field for field in flags_of(self.settings_type) if field.name == name).metadata["default"]
        return self.chosen.get(name, self.found.get(name, default))

    def values(self, *roles: Role) -> Dict[str, Any]:
        """Return the flags with their values, those of ``roles`` where some are given."""
        return {field.name: self[field.name] for field in flags_of(self.settings_type, *roles)}

    def fill(self, **values: Any) -> "Given[Settings]":
        """Return the like with ``values`` for what the user left open; the user's own stay."""
        return dataclasses.replace(self, found={**self.found, **values})

    def adopt(self, stored: Mapping[str, Any], source: str) -> "Given[Settings]":
        """Fill in those of the ``stored`` values of a checkpoint that the script has flags for.

        Raises:
            UserError: the user has chosen another value than ``source`` has.
        """
        own = {field.name for field in flags_of(self.settings_type)}
        taken = {name: value for name, value in stored.items() if name in own}
        for name, value in taken.items():
            if name in self.chosen and self.chosen[name] != value:
                raise UserError(f"--{name}: got {self.chosen[name]}, but {source} was made with {value}; "
                                "leave the flag out to take the checkpoint's")
        return self.fill(**taken)

    def resolved(self, **values: Any) -> Settings:
        """Return the settings, with ``values`` for what is still open.

        Raises:
            TypeError: something that must not be None is left open.
        """
        complete = self.fill(**values)
        hints = typing.get_type_hints(self.settings_type)
        result = complete.values()
        missing = [name for name, value in result.items() if value is None and not _may_be_none(hints[name])]
        if missing:
            raise TypeError(f"these settings are still open: {', '.join(missing)}")
        return self.settings_type(**result)


def _may_be_none(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)
