"""Locks, and what a process that was killed has left."""
import errno
import fcntl
import os
import subprocess
import sys

import pytest
from helpers import ROOT

from src.common import files
from src.common.errors import UserError

HOLDER = """
import sys
from pathlib import Path
from src.common.files import locked
with locked(Path(sys.argv[1]), wait=len(sys.argv) > 2):
    print("held", flush=True)
    sys.stdin.read()
"""


def start_holder(*arguments):
    return subprocess.Popen([sys.executable, "-c", HOLDER, *map(str, arguments)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.fixture
def holder(tmp_path):
    """Another process, which holds a lock until its standard input ends."""
    process = start_holder(tmp_path / "lock")
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_one_process_has_the_lock_and_another_waits_for_it(tmp_path, holder):
    with pytest.raises(BlockingIOError), files.locked(tmp_path / "lock", wait=False):
        pass
    assert (tmp_path / "lock").read_text() == f"process {holder.pid} on {os.uname().nodename}"
    waiting = start_holder(tmp_path / "lock", "wait")
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.5)
    holder.communicate()
    assert waiting.communicate(timeout=30)[0] == "held\n"
    assert list(tmp_path.iterdir()) == []


def test_a_lock_ends_with_its_process(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / "lock").exists()
    with files.locked(tmp_path / "lock", wait=False):
        assert f"process {os.getpid()} " in (tmp_path / "lock").read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_told_to_the_caller(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(files.fcntl, "lockf", no_locks)
    with files.locked(tmp_path / "lock", wait=False) as is_locked:
        assert not is_locked


def test_unfinished_files_of_killed_processes_go_and_no_others(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stay = {".hidden", ".hidden.7", "whole.ckpt", f".report.html.{os.getppid()}.part", f".x.{dead.pid}.staging"}
    go = {f".net-2.ckpt.{dead.pid}.part.ckpt", f".net-2.ckpt.{dead.pid}.part.tmp", f".metrics.jsonl.{dead.pid}.part",
          f".config.yaml.{os.getpid()}.part"}  # the last is of an earlier process that had this one's number
    for name in stay | go:
        (tmp_path / name).write_text("")
    (tmp_path / f".latest.{dead.pid}.part").symlink_to("nothing")
    files.clear_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == stay


def test_where_no_temporary_folder_can_be_made_tmpdir_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="^TMPDIR: .*No such file"), files.temporary_folder("x-"):
        pass


def test_a_lock_is_on_the_file_that_others_see(tmp_path, monkeypatch):
    """The last holder may remove the file between its opening and its locking; then the lock would hold nobody off."""
    file, lock, removed = tmp_path / "lock", fcntl.lockf, []

    def lockf(descriptor, how):
        if not removed:
            removed.append(file.unlink())
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with files.locked(file, wait=False):
        assert removed and file.exists()
