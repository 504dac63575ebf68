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
from typing import BinaryIO, Iterator, Optional, Union

from src.common.errors import UserError

BLOCK = 2**20  # bytes that are read at a time
_UNFINISHED = re.compile(r"\..+\.(\d+)\.part(\.ckpt|\.tmp)?")  # MindSpore writes .tmp first, which becomes .ckpt


@contextmanager
def written_whole(path: Path, suffix: str = "") -> Iterator[Path]:
    """Give a temporary name beside ``path``; what was written there is flushed and renamed to ``path``.

    The name begins with a dot, so that no search for ``path``'s kind finds it, and ends with
    ``suffix``. After an error nothing is left of it.
    """
    temporary = _beside(path, suffix)
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)
    finally:
        if temporary.exists():
            temporary.unlink()


def link_whole(path: Path, target: str) -> None:
    """Make ``path`` a link to ``target``; at every moment it is the one that it was, or this one."""
    temporary = _beside(path)
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    try:
        if not path.is_symlink() and path.is_dir():
            path.rmdir()  # a folder, with which a copy has replaced the link
        os.replace(temporary, path)
    except OSError:
        temporary.unlink()
        raise
    flush(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder in one that is there, where it is missing, and bring its name to the disk."""
    if not path.is_dir():
        path.mkdir(exist_ok=True)
        flush(path.parent)


def flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk, where they outlast a loss of power."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # as of file systems that cannot do so for a folder
            raise
    finally:
        os.close(number)


def _beside(path: Path, suffix: str = "") -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part{suffix}")


def clear_unfinished(folder: Path) -> None:
    """Remove the unfinished files and links in a folder of processes that were killed."""
    for path in folder.glob(".*"):
        match = _UNFINISHED.fullmatch(path.name)
        if match and (int(match[1]) == os.getpid() or not Path("/proc", match[1]).exists()):
            path.unlink()


@contextmanager
def one_at_a_time(place: Path) -> Iterator[None]:
    """Wait until no other process is in here with the same ``place``, a file or folder that is to be made.

    The ranks of a distributed run use it where each would otherwise make the same. The lock is beside it.
    """
    place = Path(os.path.realpath(place))
    place.parent.mkdir(parents=True, exist_ok=True)
    with locked(place.with_name(f".{place.name}.lock"), wait=True):
        yield


@contextmanager
def locked(file: Path, wait: bool) -> Iterator[bool]:
    """Hold a lock, which ends with the process at the latest. Its file says who does, and is gone afterwards.

    It is for other processes: one that asks twice for the same has it twice, and loses it with the first. Gives False
    where there are no locks, as on some network file systems.

    Raises:
        BlockingIOError: another process holds it, on this or another machine, and this one is not to ``wait``.
        OSError: there can be no such file.
    """
    while True:
        number = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            is_locked = _lock(number, wait)
            try:
                if not os.path.samestat(os.fstat(number), os.lstat(file)):
                    continue
            except FileNotFoundError:  # its last holder has removed it
                continue
            try:
                os.ftruncate(number, 0)
                os.write(number, f"process {os.getpid()} on {os.uname().nodename}".encode())
                yield is_locked
            finally:
                with suppress(OSError):  # the folder may be gone
                    file.unlink()
            return
        finally:
            os.close(number)


def _lock(number: int, wait: bool) -> bool:
    """Lock an open file, or return False where that cannot be."""
    try:
        # Not flock, which the children of a killed process would go on holding, and some network ignores.
        fcntl.lockf(number, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise
        return False
    return True


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


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Give a folder that is gone afterwards.

    Raises:
        UserError: none can be made.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix=prefix)
    except OSError as error:
        raise UserError(f"TMPDIR: no temporary folder can be made ({reason_of(error)}); name one that can be written"
                        ) from None
    with made as folder:
        yield Path(folder)


@contextmanager
def to_read(file: Path, source: Optional[str] = None, remedy: str = "remove it, or name another place"
            ) -> Iterator[BinaryIO]:
    """Open a file that a user names, or ``source`` as messages call it, to read its bytes.

    Raises:
        UserError: it cannot be read, or is a folder, or what may have no end: a pipe or a device.
    """
    with reading(source or file, remedy):
        if not stat.S_ISREG(file.stat().st_mode):  # before it is opened, which waits for the other end of a pipe
            raise OSError("it is a folder, a pipe or a device")
        with file.open("rb") as stream:
            yield stream


def reason_of(error: Exception) -> str:
    """Say why something failed, in one line."""
    return getattr(error, "strerror", None) or (str(error).strip() or type(error).__name__).splitlines()[0]
