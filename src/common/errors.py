"""Errors that a user can mend. The scripts print each as one line."""


class UserError(Exception):
    """Bad input: the message is one line with the culprit, what was expected and the remedy.

    Any other exception is a defect of this project and keeps its traceback.
    """

    status = 2


class DamagedError(UserError):
    """A file of this project is not as it was written; an older one may be whole."""


class SomeFailedError(UserError):
    """Some of many items failed, each with a line of its own; the others are done."""

    status = 1


class DivergedError(UserError):
    """The loss is not a finite number any more."""

    status = 3


def option(name: str) -> str:
    """Return an argument of a script as its user writes it: ``--name``, or NAME of a positional one."""
    return name if name.isupper() else f"--{name}"


def printable(text: str) -> str:
    """Return ``text`` with every character that a terminal cannot print as an escape."""
    return "".join(character if character.isprintable() else character.encode("unicode_escape").decode()
                   for character in text)
