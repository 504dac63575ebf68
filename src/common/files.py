"""Files that are written whole or not at all, and by one process at a time."""
import errno
import fcntl
import hashlib
import os
import re
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Iterator, Optional, Tuple, Union

from src.common.errors import UserError

BLOCK = 2**20  # bytes read at a time
_UNFINISHED = re.compile(r"\..+\.(\d+)\.part(\.ckpt|\.tmp)?")  # MindSpore writes .tmp first, which becomes .ckpt


@contextmanager
def written_whole(path: Path, suffix: str = "") -> Iterator[Path]:
    """Give a temporary name beside ``path``; the file written there is flushed and renamed to ``path``.

    The name begins with a dot, so that no search for files like ``path`` matches it, and ends with ``suffix``. After
    an error the temporary file is removed.
    """
    temporary = _beside(path, suffix)
    try:
        yield temporary
        flush(temporary)  # before the rename: after a loss of power the new name must not stand for an empty file
        os.replace(temporary, path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def link_whole(path: Path, target: str) -> None:
    """Make ``path`` a link to ``target``; at every moment it is the old link or the new one."""
    temporary = _beside(path)
    try:
        temporary.symlink_to(target)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()  # some copies of a run have an empty folder in the place of the link
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder inside an existing one, unless it exists, and bring its name to the disk."""
    if not path.is_dir():
        path.mkdir(exist_ok=True)
        flush(path.parent)


def flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk, where they outlast a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot flush a folder
            raise
    finally:
        os.close(descriptor)


def _beside(path: Path, suffix: str = "") -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part{suffix}")


def clear_unfinished(folder: Path) -> None:
    """Remove the unfinished files and links that killed processes have left in a folder."""
    for path in folder.glob(".*"):
        match = _UNFINISHED.fullmatch(path.name)
        # In a container a killed process often had the same number as this one.
        if match and (int(match[1]) == os.getpid() or not Path("/proc", match[1]).exists()):
            path.unlink()


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until no other process of this machine makes ``path``, a file or folder; the lock is beside it."""
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock"), wait=True):
        yield


@contextmanager
def locked(file: Path, wait: bool) -> Iterator[bool]:
    """Hold a lock against other processes. ``file`` names the process that holds it, and is removed afterwards.

    Gives False where the file system has no locks, as some network file systems. Do not nest two locks on one file: the
    end of the inner one would end both. Raises a BlockingIOError where another process holds the lock, on this or
    another machine, and ``wait`` is False, and an OSError where the file cannot be made.
    """
    descriptor, is_locked = _lock(file, wait)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode())
        yield is_locked
    finally:
        with suppress(OSError):  # the folder may have been removed
            file.unlink()
        os.close(descriptor)


def _lock(file: Path, wait: bool) -> Tuple[int, bool]:
    """Return the descriptor of ``file`` and whether it is locked."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        is_locked = True
        try:
            # Not flock: the children of a killed process would keep it, and some network file systems ignore it.
            fcntl.lockf(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                os.close(descriptor)
                raise
            is_locked = False
        # The last holder may have removed the file since it was opened; then the lock is on a file without a name.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.lstat(file)):
                return descriptor, is_locked
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
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
    """Turn what prevents writing to ``place``, which ``--flag`` names, into a UserError.

    That is an OSError, or a RuntimeError, which MindSpore raises for files.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise UserError(f"--{flag}: cannot write to {place} ({reason_of(error)}); name {takes}") from None


@contextmanager
def reading(place: Union[str, Path], remedy: str = "check that it is there, and its permissions") -> Iterator[None]:
    """Turn an OSError, which prevents reading the file ``place``, into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{place}: cannot be read ({reason_of(error)}); {remedy}") from None


@contextmanager
def to_read(file: Path, source: Optional[str] = None, remedy: str = "remove it, or name another place"
            ) -> Iterator[BinaryIO]:
    """Open a file that a user names, or ``source`` as messages call it, to read its bytes.

    Raises a UserError where it cannot be read, or is not a regular file.
    """
    with reading(source or file, remedy):
        if not stat.S_ISREG(file.stat().st_mode):  # first: to open a pipe waits for its other end
            raise OSError("it is a folder, a pipe or a device")
        with file.open("rb") as stream:
            yield stream


def read_text(file: Path, source: str, remedy: str, largest: int = 2**20) -> str:
    """Return the text of a file of at most ``largest`` bytes that a user names, such as a recipe or a rank table.

    ``source`` is what messages call it, and ``remedy`` what to do where it is not such a file. Raises a UserError where
    it cannot be read, is not a regular file, is too large, or is not text in UTF-8.
    """
    with to_read(file, source, remedy) as stream:
        content = stream.read(largest + 1)
    if len(content) > largest:
        raise UserError(f"{source}: has more than {largest} bytes; {remedy}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: is not text in UTF-8 (byte {error.start}); {remedy}") from None


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Make a folder, and remove it afterwards. Raises a UserError where it cannot be made."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=prefix)
    except OSError as error:
        raise UserError(f"TMPDIR: cannot make a temporary folder ({reason_of(error)}); name one that can be written"
                        ) from None
    with folder as name:
        yield Path(name)


def reason_of(error: Exception) -> str:
    """Return why something failed, in one line."""
    return getattr(error, "strerror", None) or (str(error).strip() or type(error).__name__).splitlines()[0]
