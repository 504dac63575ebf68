"""The one logger, its lines that people grep for, and where they go."""
import logging
import os
import sys
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Optional, TextIO

from src.common.errors import printable
from src.common.files import reason_of

if TYPE_CHECKING:
    from tqdm import tqdm

logger = logging.getLogger("simclr")


class _Printable(logging.Formatter):
    """Escapes what a terminal cannot print, such as in the names of files."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _Expendable(logging.StreamHandler):
    """A handler that a run can do without: when its output is full or closed, the other handlers go on."""

    lost: Optional[OSError] = None

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            raise error
        self.lost = error
        self.setLevel(logging.CRITICAL + 1)  # nothing more
        logger.warning("warning: %s takes no more lines (%s)", getattr(self.stream, "name", "output"), reason_of(error))


class _Console(_Expendable):
    """Writes above the progress bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm  # not at the top: if it is missing, `status_of` says so in one line
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


class _LogFile(_Expendable, logging.FileHandler):
    """Writes to the log of a run."""


def log_to_console(stream: Optional[TextIO] = None) -> None:
    """Send the log lines to ``stream``, by default standard output, and keep them for the run's log.

    The lines have neither time nor level, because people grep for them.
    """
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    console = _Console(stream or sys.stdout)
    console.setFormatter(_Printable())
    logger.addHandler(console)
    logger.addHandler(MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1))


def log_to_file(path: Path) -> None:
    """Append the log lines, including those so far, to ``path`` as well."""
    if path.exists() and os.path.samestat(path.stat(), os.fstat(sys.stdout.fileno())):
        for console in _consoles():
            console.setLevel(logging.INFO)  # a launcher has sent standard output there: the console is the log
        return
    file = _LogFile(path, encoding="utf-8")
    file.setFormatter(_Printable())
    for handler in list(logger.handlers):
        if isinstance(handler, MemoryHandler):
            handler.setTarget(file)
            handler.close()  # writes what it has kept
            logger.removeHandler(handler)
    logger.addHandler(file)


def quieten() -> None:
    """Show only warnings and errors on the console from now on; a log file still gets everything."""
    for console in _consoles():
        console.setLevel(logging.WARNING)


def has_bar() -> bool:
    """Return whether progress is shown as a bar: on a terminal, and not with ``--quiet``."""
    return sys.stdout.isatty() and not any(console.level > logging.INFO for console in _consoles())


def bar(**options: Any) -> "tqdm":
    """Return a progress bar below the log lines, disabled where there is none; options of tqdm."""
    from tqdm import tqdm
    return tqdm(file=sys.stdout, leave=False, disable=not has_bar(), dynamic_ncols=True, **options)


def lost_output() -> Optional[OSError]:
    """Return the error that has kept log lines from the console, unless a run's log has them."""
    if any(isinstance(handler, _LogFile) for handler in logger.handlers):
        return None
    return next((console.lost for console in _consoles() if console.lost), None)


def _consoles() -> List[_Console]:
    return [handler for handler in logger.handlers if isinstance(handler, _Console)]


def log_epoch(epoch: int, steps: int, last_loss: Any, seconds: float) -> None:
    """Log the two lines of an epoch, in the model zoo's format; ``last_loss`` as NumPy prints a float32."""
    logger.info("epoch: %d step: %d, loss is %s", epoch, steps, last_loss)
    logger.info("epoch time: %.3f ms, per step time: %.3f ms", 1e3 * seconds, 1e3 * seconds / steps)
