"""The one kind of error that a user can mend."""


class UserError(Exception):
    """Bad input: the message is one line with the culprit, what was expected and the remedy.

    The scripts print it on standard error and end with status 2; any other exception is a defect
    of this project and keeps its traceback.
    """
