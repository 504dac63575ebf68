"""Copies from and to the object storage of ModelArts and CloudBrain, with their package moxing."""
import glob
import os
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

from src.common.errors import UserError
from src.common.files import link_whole, one_at_a_time, reason_of, writing
from src.common.logs import logger
from src.run.layout import Layout

MARKER = ".staged-from"  # in a data set that was copied from the storage, whole: its URL


def stage_in(url: str, folder: Path) -> None:
    """Copy the data set at ``url``, from ``--data_url``, once per machine however many ranks ask for it.

    ``folder`` is new, empty, or an earlier copy, which is kept. It never holds half a data set. Raises a UserError
    where the copy failed, ``folder`` holds other files, or moxing is missing.
    """
    url, folder = url.rstrip("/"), folder.resolve()
    with _scratch_beside(folder, "data_url") as scratch:
        marker = folder / MARKER
        if marker.is_file() and marker.read_text(encoding="utf-8") == url:
            logger.info("%s is in %s already", url, folder)
            return
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"--data_url: {folder} holds files that did not come from {url}; name an empty folder, "
                            "or leave --data_url out")
        _moxing("copy_parallel", url, str(scratch), flag="data_url")
        if not any(scratch.iterdir()):
            raise UserError(f"--data_url: there are no files at {url}; give a folder that has some")
        (scratch / MARKER).write_text(url, encoding="utf-8")
        scratch.rename(folder)


class Storage:
    """The place of a run in the storage, ``--train_url``, for one process. ``layout`` is the run on this machine.

    All methods raise UserError where copying fails, or where moxing is missing.
    """

    def __init__(self, url: str, layout: Layout):
        self.url = url.rstrip("/")
        self.layout = layout
        self.sent: Dict[Path, Tuple[int, int]] = {}  # sizes and times of files that are in the storage
        self.sending = threading.Lock()  # a run may end while its last checkpoint is still being sent

    @property
    def holds_run(self) -> bool:
        """Whether there is a run: at least one epoch of a training, or the result of an evaluation."""
        return _moxing("exists", f"{self.url}/{self.layout.records.name}", flag="train_url")

    def fetch(self) -> None:
        """Bring the run in the storage to this machine, unless this machine has one."""
        if self.layout.records.exists() or not self.holds_run:
            logger.info("no run is fetched from %s: there is none, or there is one in %s", self.url, self.layout.path)
            return
        with _scratch_beside(self.layout.path.resolve(), "train_url") as scratch:
            _moxing("copy_parallel", self.url, str(scratch), flag="train_url")
            # The records move last: after a kill before that, the run is fetched once more.
            for file in sorted(scratch.rglob("*"), key=lambda file: file.name == self.layout.records.name):
                if file.is_file():
                    target = self.layout.path / file.relative_to(scratch)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(file, target)
            for series in (self.layout.checkpoints, self.layout.classifiers):
                if series.files():
                    link_whole(series.latest, series.files()[-1].name)

    def send(self) -> None:
        """Copy to the storage what has changed since the last call, but for links and temporary files."""
        with self.sending:
            # Checkpoints go last: the records of all their epochs are in the storage then.
            for file in sorted(self.layout.path.rglob("*"), key=lambda file: (file.suffix == ".ckpt", file)):
                name = file.relative_to(self.layout.path)
                if file.is_symlink() or not file.is_file() or any(part.startswith(".") for part in name.parts):
                    continue
                state = (file.stat().st_size, file.stat().st_mtime_ns)
                if self.sent.get(name) != state:
                    _moxing("copy", str(file), f"{self.url}/{name.as_posix()}", flag="train_url")
                    self.sent[name] = state


def _moxing(function: str, *arguments: str, flag: str) -> Any:
    """Call a function of moxing.file, which raises many kinds of errors: the storage's, the network's, the disk's."""
    try:
        import moxing
    except ModuleNotFoundError as error:
        if error.name != "moxing":
            raise
        raise UserError("--run_cloudbrain: got True, but there is no package moxing, which exists only on ModelArts "
                        "and CloudBrain; leave --run_cloudbrain out elsewhere") from None
    try:
        return getattr(moxing.file, function)(*arguments)
    except Exception as error:
        raise UserError(f"--{flag}: {function} of {' to '.join(arguments)} failed ({reason_of(error)}); check the URL, "
                        "the access to it and the space on the disk") from None


@contextmanager
def _scratch_beside(folder: Path, flag: str) -> Iterator[Path]:
    """Wait until no other process of this machine copies to ``folder``; give an empty folder beside it."""
    # Its name has the process in it: a child of a killed process may still be copying to another one.
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}.staging")
    with writing(flag, folder), one_at_a_time(folder):
        for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.*.staging"):
            shutil.rmtree(leftover, ignore_errors=True)
        scratch.mkdir()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
