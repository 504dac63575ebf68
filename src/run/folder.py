"""A run that a script has opened: what it needs besides the method, on one rank or on many."""
import platform
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterable, Iterator, Optional

import mindspore
import numpy
import yaml
from mindspore import Parameter

from src.common.errors import UserError
from src.common.files import clear_unfinished, flush, locked, write_text, writing
from src.common.logs import log_to_file, logger
from src.device import dry_run
from src.device.dry_run import is_dry_run
from src.distributed import collectives
from src.distributed.process_group import Process
from src.run import checkpoint, staging
from src.run.checkpoint import Checkpoint
from src.run.layout import Layout
from src.run.records import Record, Records, Sink, appended_to


class Run:
    """A run's folder, opened on every rank. Rank 0 alone reads checkpoints, and writes.

    Args:
        folder: of the run.
        process: this rank.
        url: the run's place in a cloud, or None.
    """

    def __init__(self, folder: str, process: Process, url: Optional[str] = None):
        self.layout = Layout(Path(folder))
        self.process = process
        self.records = Records(self._appended()) if process.is_first else Records()
        self.copy = staging.Copy(self.layout.path, url) if url and process.is_first else None
        self.has_begun = False
        self.until_closed = ExitStack()
        self.is_reserved = False

    def _appended(self) -> Sink:
        append = appended_to(self.layout.records)

        def to_file(record: Record) -> None:
            with writing("train_output_path", self.layout.records):
                append(record)

        return to_file

    def together(self) -> ContextManager[None]:
        """Open a part that may fail on some ranks; where it does, all end. See ``collectives.together``."""
        return collectives.together(self.process)

    def read(self, find: Callable[[], Optional[Checkpoint]]) -> Optional[Checkpoint]:
        """Let rank 0 ``find`` a checkpoint, and tell the other ranks of it.

        Raises:
            UserError: rank 0 could not.
        """
        found = None
        with self.together():
            if self.process.is_first:
                found = find()
        return checkpoint.shared(found, self.process)

    def broadcast(self, parameters: Iterable[Parameter]) -> None:
        """Give every rank the values of rank 0."""
        collectives.broadcast(parameters, self.process)

    def reserve(self) -> None:
        """Keep other processes from writing to the folder, where it is there, until the run is closed.

        Raises:
            UserError: another one does already; the folder cannot be written.
        """
        if self.is_reserved or not self.layout.path.is_dir():
            return
        with writing("train_output_path", self.layout.path):
            try:
                is_locked = self.until_closed.enter_context(locked(self.layout.lock, wait=False))
            except BlockingIOError:
                holder = ""
                with suppress(OSError):  # it may just have ended
                    holder = self.layout.lock.read_text(encoding="utf-8", errors="replace")
                raise UserError(f"--train_output_path: {self.layout.path} is in use by {holder or 'another process'}; "
                                "wait for its end, or name another folder") from None
            for folder in self.layout.folders if is_locked else ():
                clear_unfinished(folder)
        if not is_locked:
            logger.warning("warning: the file system of %s has no locks: start no second run there", self.layout.path)
        self.is_reserved = True

    def make(self) -> None:
        """Make the folder, where it was not there when the run was opened, and reserve it.

        Raises:
            UserError: it cannot be made, or another process has begun a run in it since.
        """
        if self.is_reserved:
            return
        with writing("train_output_path", self.layout.path):
            self.layout.path.mkdir(parents=True, exist_ok=True)  # a data set may have been made in there
            flush(self.layout.path.parent)
        self.reserve()
        if self.layout.holds_run:
            raise UserError(f"--train_output_path: another process has just begun a run in {self.layout.path}; name "
                            "another folder")

    def begin(self, settings: Dict[str, Any], script: str) -> None:
        """Make the folder and write down there what is run; the log goes there too from now on.

        Args:
            settings: resolved ones, for config.yaml.
            script: as in src/run/layout.py.

        Raises:
            UserError: the folder cannot be made or written.
        """
        if self.process.is_first:
            self.make()
            with writing("train_output_path", self.layout.path):
                write_text(self.layout.config(script), yaml.safe_dump(
                    {"settings": settings, **_circumstances(self.process)}, sort_keys=False))
                log_to_file(self.layout.log(script))
                if is_dry_run():
                    write_text(self.layout.dry_run, dry_run.MEANING + "\n")
        self.has_begun = True
        chosen = "" if settings["device_target"] else " (the default: Ascend where one is present, else CPU)"
        place = f", rank {self.process.rank} of {self.process.world_size}" if self.process.world_size > 1 else ""
        logger.info("MindSpore %s, Python %s, on %s%s%s; run folder %s", mindspore.__version__,
                    platform.python_version(), self.process.device_target, chosen, place, self.layout.path)

    def flush_records(self) -> None:
        """Bring the records to the disk: before a checkpoint that comes after them."""
        if self.layout.records.exists():
            flush(self.layout.records)

    def sync(self) -> None:
        """Copy what is new to the cloud, where the run has a place there; failing is a warning."""
        if self.copy and self.has_begun:
            self.copy.try_to_send()


@contextmanager
def open_run(folder: str, process: Process, url: Optional[str] = None) -> Iterator[Run]:
    """Open a run for a script; the arguments are those of ``Run``.

    At the end, and after an error or an interruption, the run is copied to its place in the cloud. A dry run ends with
    the one figure that it gives.

    Raises:
        UserError: the last copy failed.
    """
    run = Run(folder, process, url)
    with run.until_closed:
        with run.together():
            if process.is_first:
                _check_kind(run.layout)
                run.reserve()
        try:
            yield run
        except BaseException:
            run.sync()
            raise
        if run.has_begun and process.is_first:
            run.flush_records()
        if run.copy and run.has_begun:
            run.copy.send()
    if is_dry_run():
        logger.info("dry run: %.0f MB of device memory at most (workspaces of kernels are as CANN tells them)",
                    mindspore.runtime.max_memory_allocated() / 2**20)


def _check_kind(layout: Layout) -> None:
    """Raise UserError where the files of a dry run, which mean nothing, would be mixed with those of a real one."""
    is_marked = layout.dry_run.exists()
    if is_marked and not is_dry_run():
        raise UserError(f"--train_output_path: {layout.path} holds the files of a dry run; remove it, or name another "
                        "folder")
    if is_dry_run() and not is_marked and layout.path.is_dir() and any(layout.path.iterdir()):
        raise UserError(f"--train_output_path: {layout.path} is not empty; a dry run, whose files mean nothing, takes "
                        "a new folder")


def _circumstances(process: Process) -> Dict[str, Any]:
    try:
        git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent,
                             capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        git = "unknown"
    return {
        "device_target": process.device_target,
        "world_size": process.world_size,
        "versions": {"mindspore": mindspore.__version__, "numpy": numpy.__version__,
                     "python": platform.python_version(), "machine": platform.machine()},
        "git_revision": git,
        "command_line": [Path(sys.executable).name, *sys.argv],
    }
