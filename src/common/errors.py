"""The errors that a user can mend; the scripts print them as one line."""


class UserError(Exception):
    """Bad input: the message is one line with the culprit, what was expected and the remedy.

    Any other exception is a defect of this project and keeps its traceback.
    """

    status = 2


class DivergedError(UserError):
    """The loss is no number any more."""

    status = 3
