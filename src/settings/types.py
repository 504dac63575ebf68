"""The types of flags: how the text of a value is converted, and what it may be, in words."""
import math
import os
import re
import reprlib
from typing import Any, Callable, NamedTuple

# Python's own int and float are not strict enough: they take spaces, underscores, digits of all scripts, and nan.
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 60  # characters


class FlagType(NamedTuple):
    """``convert`` makes the value of a text, or raises ValueError where the text is not what ``expects`` says."""

    convert: Callable[[str], Any]
    expects: str


def shown(value: Any) -> str:
    """Return a rejected value for a message: as Python writes it, shortened in the middle where it is long."""
    return _SHORT.repr(value)


def integer(minimum: int, maximum: float = math.inf) -> FlagType:
    """Integers from ``minimum`` to ``maximum``."""
    return _in_range(int, _INTEGER, minimum, maximum, f"an integer of at least {minimum}")


def number(minimum: float, maximum: float = math.inf, above: bool = False) -> FlagType:
    """Finite numbers from ``minimum`` to ``maximum``; ``above`` excludes the minimum itself."""
    lowest = math.nextafter(minimum, math.inf) if above else minimum
    return _in_range(float, _NUMBER, lowest, maximum, f"a number {'above' if above else 'of at least'} {minimum}")


def _in_range(kind: type, pattern: "re.Pattern[str]", lowest: float, highest: float, expects: str) -> FlagType:
    def convert(text: str) -> Any:
        value = kind(text) if pattern.fullmatch(text) else math.nan
        if not lowest <= value <= highest or value == math.inf:  # which "1e400" becomes
            raise ValueError(text)
        return value

    return FlagType(convert, expects if highest == math.inf else f"{expects} and at most {highest}")


def choice(*names: str) -> FlagType:
    """One of ``names``, in the same case."""
    return FlagType(lambda text: names[names.index(text)], "one of " + ", ".join(names))


def or_auto(takes: FlagType) -> FlagType:
    """What ``takes`` is for, or `auto`, which leaves the flag out."""
    return FlagType(lambda text: None if text == "auto" else takes.convert(text), f"auto, or {takes.expects}")


def _text(text: str) -> str:
    if not text or b"\0" in os.fsencode(text):  # fsencode raises ValueError for characters that no file name can have
        raise ValueError(text)
    return text


def _path(text: str) -> str:
    name = os.fsencode(_text(text))
    if len(name) > 4095 or max(map(len, name.split(b"/"))) > 255:  # Linux takes no longer paths and names
        raise ValueError(text)
    return text


BOOLEAN = FlagType(lambda text: bool(("false", "true").index(text.lower())), "True or False")
PATH = FlagType(_path, "a path")
URL = FlagType(_text, "a URL")
