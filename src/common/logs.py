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
    """Messages with names from anywhere, each a line that a terminal and a file in UTF-8 can take."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _Stream:
    """A stream to somebody who may be gone, or out of space: then the rest is for nobody, and ends nothing."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.lost: Optional[OSError] = None

    def write(self, text: str) -> None:
        try:
            self.stream.write(text)
        except OSError as error:
            self._give_up(error)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self._give_up(error)

    def fileno(self) -> int:
        return self.stream.fileno()

    def _give_up(self, error: OSError) -> None:
        self.lost = error
        lead_nowhere(self.stream)
        logger.warning("warning: the output takes no more lines (%s), and goes on without them", reason_of(error))


class _Console(logging.StreamHandler):
    """A stream, above the progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm  # not at the top: its absence is reported through this module
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


class _LogFile(logging.FileHandler):
    """A file that the run can do without, where it cannot be written any more."""

    def handleError(self, record: logging.LogRecord) -> None:
        logger.removeHandler(self)
        logger.warning("warning: %s takes no more lines (%s)", self.baseFilename, reason_of(sys.exc_info()[1]))


def log_to_console(stream: Optional[TextIO] = None) -> None:
    """Send the log lines to ``stream``, by default standard output, and remember them until there is a file for them.

    The lines stand alone, without time or level, because people grep for them.
    """
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    console = _Console(_Stream(stream or sys.stdout))
    console.setFormatter(_Printable())
    logger.addHandler(console)
    logger.addHandler(MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1))


def quieten() -> None:
    """Let the console have warnings and errors alone from now on; a log file goes on having everything."""
    for console in _consoles():
        console.setLevel(logging.WARNING)


def has_bar() -> bool:
    """Return whether progress is shown as a bar: on a terminal that is not to be quiet."""
    return sys.stdout.isatty() and not any(console.level > logging.INFO for console in _consoles())


def bar(**options: Any) -> "tqdm":
    """Return a progress bar below the log lines, which shows nothing where there is to be none; options of tqdm."""
    from tqdm import tqdm
    streams = [console.stream for console in _consoles()]
    return tqdm(file=streams[0] if streams else sys.stdout, leave=False, disable=not has_bar(),
                dynamic_ncols=True, **options)


def lost_output() -> Optional[OSError]:
    """Return what has kept log lines from the console, where no file has them either."""
    if any(isinstance(handler, logging.FileHandler) for handler in logger.handlers):
        return None
    return next((console.stream.lost for console in _consoles() if console.stream.lost), None)


def _consoles() -> List[_Console]:
    return [handler for handler in logger.handlers if isinstance(handler, _Console)]


def log_to_file(path: Path) -> None:
    """Send the log lines, those so far included, to ``path`` as well (appended)."""
    if path.exists() and os.path.samestat(path.stat(), os.fstat(sys.stdout.fileno())):
        for handler in logger.handlers:
            handler.setLevel(logging.INFO)  # a launcher has sent standard output there already: it is the log
        return
    file = _LogFile(path, encoding="utf-8")
    file.setFormatter(_Printable())
    for handler in list(logger.handlers):
        if isinstance(handler, MemoryHandler):
            handler.setTarget(file)
            handler.close()
            logger.removeHandler(handler)
    logger.addHandler(file)


def log_epoch(epoch: int, steps: int, last_loss: Any, seconds: float) -> None:
    """Log the two lines of an epoch, in the model zoo's format; ``last_loss`` as NumPy prints a float32."""
    logger.info("epoch: %d step: %d, loss is %s", epoch, steps, last_loss)
    logger.info("epoch time: %.3f ms, per step time: %.3f ms", 1e3 * seconds, 1e3 * seconds / steps)


def lead_nowhere(stream: TextIO) -> None:
    """Lose what is still to be written to a stream: Python would try it again at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
