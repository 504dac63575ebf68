"""How a script ends: its exit status, and its last line."""
import errno
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Callable, Tuple

from src.common.errors import UserError, printable
from src.common.interruption import interruptible
from src.common.logs import log_to_console, lost_output

# Errors of the disk, at whatever place they arise: it is full, lost, or read-only.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)


def status_of(main: Callable[[], None]) -> int:
    """Run a script's ``main`` and return its exit status: an error of the user is one line and status 2."""
    sys.stdout.reconfigure(errors="backslashreplace")  # a name that its encoding lacks would end the script
    log_to_console()
    status, text = 0, ""
    with interruptible() as interruption:
        try:
            main()
            sys.stdout.flush()
            if lost_output():
                raise lost_output()
        except SystemExit:  # after --help
            raise
        except BaseException as error:
            # MindSpore turns a KeyboardInterrupt within its own code into another error.
            if interruption.number or isinstance(error, KeyboardInterrupt):
                status, text = 128 + (interruption.number or signal.SIGINT), "interrupted"
            else:
                status, text = _explained(error)
    _say(f"{Path(sys.argv[0]).name}: {printable(text)}\n" if text else "")
    return status


def _explained(error: BaseException) -> Tuple[int, str]:
    """Return exit status and last line for an error."""
    if isinstance(error, UserError):
        return error.status, str(error)
    if isinstance(error, ModuleNotFoundError) and not (error.name or "src").startswith("src"):
        return 2, (f"the package {error.name} is not installed here; pip install -r requirements.txt, or activate the "
                   "environment that has it")
    if isinstance(error, BrokenPipeError):  # the reader of the output, such as `head`, has enough
        return 128 + signal.SIGPIPE, ""
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        return 2, f"{error.filename or 'the output'}: {error.strerror}; look at the disk, and start again"
    if isinstance(error, MemoryError):
        return 2, "there is not enough memory for this; take smaller batches, or fewer images"
    _say("".join(traceback.format_exception(type(error), error, error.__traceback__)))
    return 1, "this is a defect of the program; please report it, with the lines above: CONTRIBUTING.md says how"


def _say(text: str) -> None:
    """Write to standard error. What cannot be written to either stream is lost, and does not change the status."""
    for stream, last in ((sys.stdout, ""), (sys.stderr, text)):
        try:
            stream.write(last)
            stream.flush()
        except OSError:
            # Python would try once more when it ends, and then change the status.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
