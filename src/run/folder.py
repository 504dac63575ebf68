"""The run that a script has opened: its folder, on one rank or on many."""
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
from src.run.checkpoint import Checkpoint
from src.run.layout import Layout
from src.run.records import Records, appended_to
from src.run.staging import Storage


class Run:
    """A run's folder, opened on every rank. Rank 0 alone reads checkpoints and writes.

    All methods raise UserError where the folder, or its place in a cloud's storage at ``url``, fails them.
    """

    def __init__(self, folder: str, process: Process, url: Optional[str] = None):
        self.layout = Layout(folder)
        self.process = process
        self.records = Records(appended_to(self.layout.records)) if process.is_first else Records()
        self.storage = Storage(url, self.layout) if url and process.is_first else None
        self.has_begun = False
        self.until_closed = ExitStack()
        self.is_locked = False

    def together(self) -> ContextManager[None]:
        """Open a part that may fail on some ranks; if it does, all of them end. See ``collectives.together``."""
        return collectives.together(self.process)

    def read(self, find: Callable[[], Optional[Checkpoint]]) -> Optional[Checkpoint]:
        """Let rank 0 ``find`` a checkpoint; the other ranks get it without its parameters."""
        checkpoint = None
        with self.together():
            if self.process.is_first:
                checkpoint = find()
        shared = collectives.share(checkpoint and {"path": str(checkpoint.path), "info": checkpoint.info}, self.process)
        if self.process.is_first or shared is None:
            return checkpoint
        return Checkpoint(Path(shared["path"]), {}, shared["info"])

    def broadcast(self, parameters: Iterable[Parameter]) -> None:
        """Give every rank the values of rank 0."""
        collectives.broadcast(parameters, self.process)

    def fetch(self) -> None:
        """Bring an earlier run from the cloud's storage, if the run has a place there; on rank 0."""
        if self.storage:
            self.storage.fetch()
            self.lock()

    def lock(self) -> None:
        """Keep other processes from writing to the folder, if it exists, until the run is closed."""
        if self.is_locked or not self.layout.path.is_dir():
            return
        with writing("train_output_path", self.layout.path):
            try:
                has_locks = self.until_closed.enter_context(locked(self.layout.lock, wait=False))
            except BlockingIOError:
                holder = ""
                with suppress(OSError):  # it may just have ended
                    holder = self.layout.lock.read_text(encoding="utf-8", errors="replace")
                raise UserError(f"--train_output_path: {self.layout.path} is in use by {holder or 'another process'}; "
                                "wait for its end, or name another folder") from None
            for folder in self.layout.folders if has_locks else ():
                clear_unfinished(folder)
        if not has_locks:
            logger.warning("warning: the file system of %s has no locks: start no second run there", self.layout.path)
        self.is_locked = True

    def begin(self, settings: Dict[str, Any], prefix: str) -> None:
        """Make the folder, and write there the log and the ``settings`` of the script with ``prefix`` (layout.py)."""
        if self.process.is_first:
            with writing("train_output_path", self.layout.path):
                if not self.is_locked:  # a new folder, or one that a download has made since the run was opened
                    self.layout.path.mkdir(parents=True, exist_ok=True)
                    flush(self.layout.path.parent)
                    self.lock()
                    if self.layout.holds_run:
                        raise UserError(f"--train_output_path: another process has just begun a run in "
                                        f"{self.layout.path}; name another folder")
                write_text(self.layout.config(prefix), yaml.safe_dump(
                    {"settings": settings, **_circumstances(self.process)}, sort_keys=False))
                log_to_file(self.layout.log(prefix))
                if is_dry_run():
                    write_text(self.layout.dry_run, dry_run.MEANING + "\n")
        self.has_begun = True
        default = "" if settings["device_target"] else " (the default: Ascend where one is present, else CPU)"
        rank = f", rank {self.process.rank} of {self.process.world_size}" if self.process.world_size > 1 else ""
        logger.info("MindSpore %s, Python %s, on %s%s%s; run folder %s", mindspore.__version__,
                    platform.python_version(), self.process.device_target, default, rank, self.layout.path)

    def flush_records(self) -> None:
        """Bring the records to the disk: before a checkpoint that comes after them."""
        if self.layout.records.exists():
            flush(self.layout.records)

    def sync(self) -> None:
        """Copy what is new to the cloud's storage, where the run has a place there; failing is a warning."""
        if self.storage and self.has_begun:
            try:
                self.storage.send()
            except (UserError, OSError) as error:
                logger.warning("warning: %s", error)


@contextmanager
def open_run(folder: str, process: Process, url: Optional[str] = None) -> Iterator[Run]:
    """Open a run for a script.

    At the end, and after an error or an interruption, the run is copied to its place in a cloud's storage, ``url``.
    """
    run = Run(folder, process, url)
    with run.until_closed:
        with run.together():
            if process.is_first:
                _check_folder(run.layout)
                run.lock()
        try:
            yield run
        except BaseException:
            run.sync()  # only warns: the error matters more
            raise
        if run.has_begun and process.is_first:
            run.flush_records()
        if run.storage and run.has_begun:
            run.storage.send()  # raises: a run that is not in the storage has not succeeded
    if is_dry_run():
        logger.info("dry run: %.0f MB of device memory at most (workspaces of kernels are as CANN tells them)",
                    mindspore.runtime.max_memory_allocated() / 2**20)


def _check_folder(layout: Layout) -> None:
    """Raise UserError where no records can be written, or where a dry run and a real one would be mixed."""
    if layout.records.exists() and not layout.records.is_file():
        raise UserError(f"--train_output_path: {layout.records} is not a file; remove it, or name another folder")
    is_marked = layout.dry_run.exists()
    if is_marked and not is_dry_run():
        raise UserError(f"--train_output_path: {layout.path} holds the files of a dry run; remove it, or name "
                        "another folder")
    if is_dry_run() and not is_marked and layout.path.is_dir() and any(layout.path.iterdir()):
        raise UserError(f"--train_output_path: {layout.path} is not empty; a dry run, whose files mean nothing, takes "
                        "a new folder")


def _circumstances(process: Process) -> Dict[str, Any]:
    git = "unknown"
    with suppress(OSError, subprocess.SubprocessError):  # no git here, or no repository
        git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent,
                             capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    versions = {"mindspore": mindspore.__version__, "numpy": numpy.__version__,
                "python": platform.python_version(), "machine": platform.machine()}
    return {"device_target": process.device_target, "world_size": process.world_size, "versions": versions,
            "git_revision": git, "command_line": [Path(sys.executable).name, *sys.argv]}
