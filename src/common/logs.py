"""The one logger, its lines that people grep for, and what a script does with an error."""
import logging
import os
import signal
import sys
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any, Callable, Optional, TextIO

from src.common.errors import UserError, printable

logger = logging.getLogger("simclr")


class _Printable(logging.Formatter):
    """Messages with names from anywhere, each a line that a terminal and a file in UTF-8 can take."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _Console(logging.StreamHandler):
    """A stream, above the progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm  # not at the top: its absence is reported through this module
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def log_to_console(stream: Optional[TextIO] = None) -> None:
    """Send the log lines to ``stream``, by default standard output, and remember them until there is a file for them.

    The lines stand alone, without time or level, because people grep for them.
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


def quieten() -> None:
    """Let the console have warnings and errors alone from now on; a log file goes on having everything."""
    for handler in logger.handlers:
        if isinstance(handler, _Console):
            handler.setLevel(logging.WARNING)


def has_bar() -> bool:
    """Return whether progress is shown as a bar: on a terminal that is not to be quiet."""
    consoles = [handler for handler in logger.handlers if isinstance(handler, _Console)]
    return sys.stdout.isatty() and not any(handler.level > logging.INFO for handler in consoles)


def log_to_file(path: Path) -> None:
    """Send the log lines, those so far included, to ``path`` as well (appended)."""
    if path.exists() and os.path.samestat(path.stat(), os.fstat(sys.stdout.fileno())):
        for handler in logger.handlers:
            handler.setLevel(logging.INFO)  # a launcher has sent standard output there already: it is the log
        return
    file = logging.FileHandler(path, encoding="utf-8")
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


def status_of(main: Callable[[], None]) -> int:
    """Run a script's ``main`` and return its exit status: a user's error is one line and 2."""
    script = Path(sys.argv[0]).name
    # MindSpore's data engine turns Ctrl-C into SIGTERM, whose default is to die without a word.
    signal.signal(signal.SIGTERM, _interrupt)
    log_to_console()
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        sys.stderr.write(f"{script}: {printable(str(error))}\n")
        return error.status
    except ModuleNotFoundError as error:
        if (error.name or "src").startswith("src"):
            raise
        sys.stderr.write(f"{script}: the package {error.name} is not installed here; pip install -r requirements.txt, "
                         "or activate the environment that has it\n")
        return 2
    except BrokenPipeError:  # whoever reads the output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still flushes at its end
        return 141
    except KeyboardInterrupt:
        sys.stderr.write(f"{script}: interrupted\n")
        return 130
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end is near, and has nothing to interrupt any more
    return 0


def _interrupt(*_) -> None:
    raise KeyboardInterrupt
