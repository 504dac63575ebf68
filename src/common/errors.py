"""The errors that a user can mend; the scripts print them as one line."""


class UserError(Exception):
    """Bad input: the message is one line with the culprit, what was expected and the remedy.

    Any other exception is a defect of this project and keeps its traceback.
    """

    status = 2


class DamagedError(UserError):
    """A file of ours is not what was written: an older one may be whole."""


class SomeFailedError(UserError):
    """Some of many things could not be done, and are named; the others are done."""

    status = 1


class DivergedError(UserError):
    """The loss is no number any more."""

    status = 3


def option(name: str) -> str:
    """Return an argument of a script as its user writes it: ``--name``, or NAME where it has its place instead."""
    return name if name.isupper() else f"--{name}"


def printable(text: str) -> str:
    """Return ``text``, which may come from anywhere, for a terminal or a log: what cannot be printed as an escape."""
    return "".join(character if character.isprintable() else character.encode("unicode_escape").decode()
                   for character in text)
