"""The one logger, and what a script does with an error."""
import logging
import sys
from pathlib import Path
from typing import Callable, Optional

from tqdm import tqdm

from src.errors import UserError

logger = logging.getLogger("simclr")


class _Console(logging.StreamHandler):
    """Standard output, above the progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def log_to(path: Optional[Path] = None) -> None:
    """Send the log lines to the console and, appended, to ``path``.

    The lines stand alone, without time or level, because people grep for them.
    """
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.addHandler(_Console(sys.stdout))
    if path is not None:
        logger.addHandler(logging.FileHandler(path, encoding="utf-8"))


def status_of(main: Callable[[], None]) -> int:
    """Run a script's ``main`` and return its exit status: a user's error is one line and 2."""
    log_to()
    try:
        main()
    except UserError as error:
        sys.stderr.write(f"{Path(sys.argv[0]).name}: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"{Path(sys.argv[0]).name}: interrupted\n")
        return 130
    return 0
