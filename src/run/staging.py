"""Staging through the object storage of ModelArts and CloudBrain, with their package moxing."""
import filecmp
import glob
import os
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, Iterator, Optional, Tuple

from src.common.errors import UserError
from src.common.files import one_at_a_time, reason_of, writing
from src.common.logs import logger
from src.run.layout import LATEST, Layout

MARKER = ".staged-from"  # in a folder that was staged: the URL
RUN = Layout(Path()).checkpoints.latest.as_posix()  # what makes a folder a run
RESULTS = Layout(Path()).records.as_posix()  # what is there also when only an encoder from elsewhere was evaluated


def stage_in(url: str, folder: Path) -> None:
    """Copy the data set at ``url`` to ``folder``, once per machine however many processes ask for it.

    The folder is either not there or whole. A copy of the same URL is kept, one of another URL replaced.

    Args:
        url: a folder in the storage, from ``--data_url``.
        folder: where it goes; new, empty, or staged earlier.

    Raises:
        UserError: the copy failed, ``folder`` holds files of another origin, or moxing is missing.
    """
    url, folder = url.rstrip("/"), folder.resolve()
    with _alone(folder, "data_url") as scratch:
        marker = folder / MARKER
        if marker.is_file() and marker.read_text(encoding="utf-8") == url:
            logger.info("%s is in %s already", url, folder)
            return
        if folder.exists() and not marker.is_file() and any(folder.iterdir()):
            raise UserError(f"--data_url: {folder} holds files that did not come from {url}; name an empty folder, "
                            "or leave --data_url out")
        new = scratch / "new"
        _download(url, new, "data_url")
        (new / MARKER).write_text(url, encoding="utf-8")
        if folder.exists():
            folder.rename(scratch / "old")
        new.rename(folder)


def fetch_run(url: str, folder: Path) -> None:
    """Bring an earlier run at ``url`` into ``folder``, once per machine, where there is none yet.

    Nothing happens where ``folder`` has a run already or the storage has none.

    Args:
        url: the folder of the run in the storage, from ``--train_url``.
        folder: the local folder of the run.

    Raises:
        UserError: the storage has a run and copying it failed, or moxing is missing.
    """
    url, folder = url.rstrip("/"), folder.resolve()
    with _alone(folder, "train_url") as scratch:
        mark = RUN if os.path.lexists(folder / RUN) else _mark_at(url)
        if mark is None:
            logger.info("no earlier run at %s", url)
            return
        if os.path.lexists(folder / mark):
            logger.info("%s has a run already, nothing is fetched", folder)
            return
        new = scratch / "new"
        _download(url, new, "train_url")
        # `latest` moves last: a process killed before that leaves no run, and the next one fetches anew.
        for file in sorted(new.rglob("*"), key=lambda file: (file.name == LATEST, file == new / RUN)):
            target = folder / file.relative_to(new)
            if file.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                _restore_link(file, target.parent)
                os.replace(file, target)


def _restore_link(file: Path, folder: Path) -> None:
    """Make a `latest` that came as a file the link again that it was, to the file of ``folder`` that it equals."""
    if file.name == LATEST:
        for twin in folder.iterdir():
            if twin.is_file() and not twin.is_symlink() and filecmp.cmp(file, twin, shallow=False):
                file.unlink()
                file.symlink_to(twin.name)
                return


def holds_run(url: str) -> bool:
    """Tell whether there is a run at ``url`` in the storage, or results of linear_eval.py or finetune.py alone.

    Raises:
        UserError: the storage does not answer, or moxing is missing.
    """
    return _mark_at(url) is not None


def _mark_at(url: str) -> Optional[str]:
    """Return the file by which one knows what the storage has at ``url``, or None where there is nothing."""
    return next((mark for mark in (RUN, RESULTS)
                 if _call("exists", f"{url.rstrip('/')}/{mark}", flag="train_url")), None)


class Copy:
    """A copy of a run's folder in the storage, which is brought up to date again and again.

    Args:
        folder: the run's folder.
        url: its place in the storage, from ``--train_url``; only one process may write there.
    """

    def __init__(self, folder: Path, url: str):
        self.folder = folder
        self.url = url.rstrip("/")
        self.sent: Dict[Path, Tuple[int, ...]] = {}
        self.one_at_a_time = threading.Lock()  # should a run end while its last checkpoint is still being sent

    def send(self) -> None:
        """Copy out what was not sent as it is now, without temporary files.

        Raises:
            UserError: copying failed, or moxing is missing.
        """
        with self.one_at_a_time:
            # Links come last: what `latest` points to is in the storage then, which has no links but can copy.
            for file in sorted(self.folder.rglob("*"), key=lambda file: (file.is_symlink(), file)):
                name = file.relative_to(self.folder)
                if not file.is_file() or any(part.startswith(".") for part in name.parts):
                    continue
                status = file.stat()
                state = (status.st_ino, status.st_size, status.st_mtime_ns)
                if self.sent.get(name) != state:
                    twin = next((other for other, sent in self.sent.items() if sent == state), None)
                    source = f"{self.url}/{twin.as_posix()}" if twin else str(file.resolve())
                    _call("copy", source, f"{self.url}/{name.as_posix()}", flag="train_url")
                    self.sent[name] = state

    def try_to_send(self) -> None:
        """Do the same, but failing is a warning."""
        try:
            self.send()
        except (UserError, OSError) as error:
            logger.warning("warning: %s", error)


def _download(url: str, folder: Path, flag: str) -> None:
    folder.mkdir()
    _call("copy_parallel", url, str(folder), flag=flag)
    if not any(folder.iterdir()):
        raise UserError(f"--{flag}: there are no files at {url}; give a folder that has some")


def _call(function: str, *arguments: str, flag: str) -> Any:
    files = _moxing_file()
    try:
        return getattr(files, function)(*arguments)
    except Exception as error:  # of many kinds: the storage's, the network's, the disk's
        raise UserError(f"--{flag}: {function} of {' to '.join(arguments)} failed ({reason_of(error)}); check the URL, "
                        "the access to it and the space on the disk") from None


def _moxing_file() -> ModuleType:
    try:
        import moxing
    except ModuleNotFoundError as error:
        if error.name != "moxing":
            raise
        raise UserError("--run_cloudbrain: got True, but there is no package moxing, which exists only on ModelArts "
                        "and CloudBrain; leave --run_cloudbrain out elsewhere") from None
    return moxing.file


@contextmanager
def _alone(folder: Path, flag: str) -> Iterator[Path]:
    """Wait until no other process of this machine stages to ``folder``; give an empty folder beside it."""
    _moxing_file()  # its absence is reported before anything is written
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}.staging")
    with writing(flag, folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(folder):
            for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.*.staging"):  # of killed processes
                shutil.rmtree(leftover, ignore_errors=True)
            scratch.mkdir()
            try:
                yield scratch
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
