"""Locks, and what a process that was killed has left."""
import errno
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
with locked(Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process, which holds a lock until its standard input ends."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lock_is_one_processes_and_says_whose(tmp_path, holder):
    with pytest.raises(BlockingIOError), files.locked(tmp_path / "lock", wait=False):
        pass
    assert (tmp_path / "lock").read_text() == f"process {holder.pid} on {os.uname().nodename}"
    holder.communicate()
    with files.locked(tmp_path / "lock", wait=False):
        assert f"process {os.getpid()} " in (tmp_path / "lock").read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_ends_with_its_process(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / "lock").exists()
    with files.locked(tmp_path / "lock", wait=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_one_waits_for_the_other(tmp_path, holder):
    waiting = subprocess.Popen([sys.executable, "-c", HOLDER.replace("wait=False", "wait=True"),
                                str(tmp_path / "lock")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": str(ROOT)})
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.5)
    holder.communicate()
    assert waiting.communicate(timeout=30)[0] == "held\n"
    assert list(tmp_path.iterdir()) == []


def test_where_there_are_no_locks_it_goes_on(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(files.fcntl, "lockf", no_locks)
    with files.locked(tmp_path / "lock", wait=False) as is_locked:
        assert not is_locked
    with files.one_at_a_time(tmp_path / "place"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_follows_no_link(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "lock").symlink_to("precious")
    with pytest.raises(OSError, match="symbolic links"), files.locked(tmp_path / "lock", wait=False):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


def test_what_killed_processes_have_left_goes_and_nothing_else(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stay = {".hidden", ".hidden.7", "whole.ckpt", f".report.html.{os.getppid()}.part", f".x.{dead.pid}.staging"}
    go = {f".net-2.ckpt.{dead.pid}.part.ckpt", f".net-2.ckpt.{dead.pid}.part.tmp", f".metrics.jsonl.{dead.pid}.part",
          f".config.yaml.{os.getpid()}.part"}  # the last is of a process before with this one's number
    for name in stay | go:
        (tmp_path / name).write_text("")
    (tmp_path / f".latest.{dead.pid}.part").symlink_to("nothing")
    files.clear_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == stay


def test_a_link_is_replaced_whole(tmp_path):
    for target in ("first", "second"):
        files.link_whole(tmp_path / "latest", target)
        assert os.readlink(tmp_path / "latest") == target and len(list(tmp_path.iterdir())) == 1


def test_where_no_temporary_folder_can_be_made_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="^TMPDIR: no temporary folder can be made .No such file.*"), \
            files.temporary_folder("x-"):
        pass
