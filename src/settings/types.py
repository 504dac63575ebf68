"""What a flag can take: how its text becomes a value, and how that is put into words."""
import os
import re
import reprlib
from typing import Any, Callable, NamedTuple

# Python's own int and float take more: spaces, underscores, the digits of all scripts, nan.
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LONGEST_NAME, _LONGEST_PATH = 255, 4095  # bytes; Linux takes no more

_IN_SHORT = reprlib.Repr()
_IN_SHORT.maxstring = _IN_SHORT.maxlong = _IN_SHORT.maxother = 60
_IN_SHORT.maxlevel = 2


class FlagType(NamedTuple):
    """What a flag takes: ``convert`` raises ValueError on text that is not ``expects``."""

    convert: Callable[[str], Any]
    expects: str


def shown(value: Any) -> str:
    """Return a value that is not taken as a message shows it: as Python writes it, and cut where it is long."""
    return _IN_SHORT.repr(value)


def _bounded(convert: type, pattern: "re.Pattern[str]", noun: str, minimum: float, maximum: float,
             above: bool) -> FlagType:
    def convert_in_range(text: str):
        if not pattern.fullmatch(text):
            raise ValueError(text)
        value = convert(text)
        in_range = minimum < value <= maximum if above else minimum <= value <= maximum
        if not in_range or value == float("inf"):
            raise ValueError(text)
        return value

    low = f"above {minimum}" if above else f"of at least {minimum}"
    high = "" if maximum == float("inf") else f" and at most {maximum}"
    return FlagType(convert_in_range, f"{noun} {low}{high}")


def integer(minimum: int, maximum: float = float("inf")) -> FlagType:
    return _bounded(int, _INTEGER, "an integer", minimum, maximum, above=False)


def number(minimum: float, maximum: float = float("inf"), above: bool = False) -> FlagType:
    """A finite number; ``above`` leaves the minimum itself out."""
    return _bounded(float, _NUMBER, "a number", minimum, maximum, above)


def choice(*names: str) -> FlagType:
    def convert(text: str) -> str:
        if text not in names:
            raise ValueError(text)
        return text

    return FlagType(convert, "one of " + ", ".join(names))


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _text(text: str) -> str:
    if not text or b"\0" in os.fsencode(text):  # which refuses what no file system's name can be
        raise ValueError(text)
    return text


def _path(text: str) -> str:
    name = os.fsencode(_text(text))
    if len(name) > _LONGEST_PATH or max(map(len, name.split(b"/"))) > _LONGEST_NAME:
        raise ValueError(text)
    return text


BOOLEAN = FlagType(_boolean, "True or False")
PATH = FlagType(_path, "a path")
URL = FlagType(_text, "a URL")
