"""Data files, opened to be read: what may have no end, such as a pipe, is none."""
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Iterator

from src.common.errors import UserError
from src.common.files import reading


@contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """Open a file to read its bytes.

    Raises:
        UserError: it cannot be read, or is a folder, a pipe or a device.
    """
    with reading(file):
        if not stat.S_ISREG(file.stat().st_mode):  # before it is opened, which waits for the other end of a pipe
            raise UserError(f"{file}: is a folder, a pipe or a device, and no file; remove it, or name another place")
        with file.open("rb") as stream:
            yield stream
