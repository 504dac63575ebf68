"""Files that are written whole or not at all, and by one process at a time."""
import fcntl
import hashlib
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Union

from src.common.errors import UserError

BLOCK = 2**20  # bytes that are read at a time


@contextmanager
def written_whole(path: Path, suffix: str = "") -> Iterator[Path]:
    """Give a temporary name beside ``path``; what was written there is flushed and renamed to ``path``.

    The name begins with a dot, so that no search for ``path``'s kind finds it, and ends with
    ``suffix``. After an error nothing is left of it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{suffix}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if temporary.exists():
            temporary.unlink()


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process of this user and machine is in here with the same ``folder``.

    The ranks of a distributed run use it where each would otherwise fill the same folder.
    """
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    with open(Path(tempfile.gettempdir()) / f"simclr-{os.getuid()}-{name}.lock", "w", encoding="utf-8") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)  # not flock, which the children of a killed process would go on holding
        yield


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file: what was made from it, or lies beside it, can say so."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def writing(flag: str, place: Union[str, Path], takes: str = "a folder that can be written") -> Iterator[None]:
    """Make the user's error of what keeps ``place``, which the flag ``flag`` names, from being written.

    Raises:
        UserError: for an OSError, or for a RuntimeError, which MindSpore raises for files.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise UserError(f"--{flag}: cannot write to {place} ({reason_of(error)}); name {takes}") from None


@contextmanager
def reading(place: Union[str, Path], remedy: str = "check that it is there and its permissions") -> Iterator[None]:
    """Make the user's error of what keeps the file ``place`` from being read.

    Raises:
        UserError: for an OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{place}: cannot be read ({reason_of(error)}); {remedy}") from None


def reason_of(error: Exception) -> str:
    """Say why something failed, in one line."""
    return getattr(error, "strerror", None) or (str(error).strip() or type(error).__name__).splitlines()[0]
