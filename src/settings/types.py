"""What a flag can take: how its text becomes a value, and how that is put into words."""
from typing import Any, Callable, NamedTuple


class FlagType(NamedTuple):
    """What a flag takes: ``convert`` raises ValueError on text that is not ``expects``."""

    convert: Callable[[str], Any]
    expects: str


def _bounded(convert: type, noun: str, minimum: float, maximum: float, above: bool) -> FlagType:
    def convert_in_range(text: str):
        value = convert(text)
        in_range = minimum < value <= maximum if above else minimum <= value <= maximum
        if not in_range or value == float("inf"):
            raise ValueError(text)
        return value

    low = f"above {minimum}" if above else f"of at least {minimum}"
    high = "" if maximum == float("inf") else f" and at most {maximum}"
    return FlagType(convert_in_range, f"{noun} {low}{high}")


def integer(minimum: int, maximum: float = float("inf")) -> FlagType:
    return _bounded(int, "an integer", minimum, maximum, above=False)


def number(minimum: float, maximum: float = float("inf"), above: bool = False) -> FlagType:
    """A finite number; ``above`` leaves the minimum itself out."""
    return _bounded(float, "a number", minimum, maximum, above)


def choice(*names: str) -> FlagType:
    def convert(text: str) -> str:
        if text not in names:
            raise ValueError(text)
        return text

    return FlagType(convert, "one of " + ", ".join(names))


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _text(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


BOOLEAN = FlagType(_boolean, "True or False")
PATH = FlagType(_text, "a path")
URL = FlagType(_text, "a URL")
