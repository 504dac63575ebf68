"""How a script ends: with which exit status, and what it says last."""
import errno
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Callable

from src.common.errors import UserError, printable
from src.common.interruption import interruptible
from src.common.logs import lead_nowhere, log_to_console, lost_output

# What the surroundings of a script refuse, wherever that happens: a disk that is full, lost, or must not be written.
_SURROUNDINGS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)


def status_of(main: Callable[[], None]) -> int:
    """Run a script's ``main`` and return its exit status: a user's error is one line and 2."""
    script = Path(sys.argv[0]).name
    _open_standard_files()
    log_to_console()
    with interruptible() as interruption:
        try:
            main()
            sys.stdout.flush()
            if lost_output():
                raise lost_output()
            return 0
        except KeyboardInterrupt:
            pass
        except BaseException as error:
            if not interruption.number:  # what comes of one inside of MindSpore may be another error
                return _told(error, script)
    _say(f"{script}: interrupted\n")
    return 128 + (interruption.number or signal.SIGINT)


def _told(error: BaseException, script: str) -> int:
    """Say what has ended a script, and return its exit status. All of them say it here.

    Raises:
        SystemExit: it is one, as after --help.
    """
    status, line = 2, ""
    if isinstance(error, UserError):
        status, line = error.status, str(error)
    elif isinstance(error, ModuleNotFoundError) and not (error.name or "src").startswith("src"):
        line = (f"the package {error.name} is not installed here; pip install -r requirements.txt, or activate the "
                "environment that has it")
    elif isinstance(error, BrokenPipeError):  # whoever reads the output, such as `head`, has enough
        lead_nowhere(sys.stdout)
        return 141
    elif isinstance(error, OSError) and error.errno in _SURROUNDINGS:
        lead_nowhere(sys.stdout)  # it may be the one that cannot be written
        line = f"{error.filename or 'the output'}: {error.strerror}; look at the disk, and start again"
    elif isinstance(error, MemoryError):
        line = "there is not enough memory for this; take smaller batches, or fewer images"
    elif isinstance(error, SystemExit):
        raise error
    else:
        _say("".join(traceback.format_exception(type(error), error, error.__traceback__)))
        status, line = 1, ("this is a defect of the program, whatever it was given; please report it, with the lines "
                           "above: CONTRIBUTING.md says how")
    _say(f"{script}: {printable(line)}\n")
    return status


def _say(text: str) -> None:
    """Write to standard error, and let nothing that was printed before change the exit status: both may be closed."""
    for stream, last in ((sys.stdout, ""), (sys.stderr, text)):
        try:
            stream.write(last)
            stream.flush()
        except OSError:
            lead_nowhere(stream)


def _open_standard_files() -> None:
    """Give a process that was started without standard files some: the next ones opened would be taken for them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8"))
    if getattr(sys.stdout, "errors", "") == "strict":  # what its encoding has not would end the script
        sys.stdout.reconfigure(errors="backslashreplace")
