"""Staging through cloud storage, with a stand-in for moxing and local folders for URLs."""
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT, call_script, done, of_kind, refused

from src.common.errors import UserError
from src.distributed import collectives
from src.distributed.process_group import Process
from src.run import staging
from src.run.folder import open_run
from src.run.layout import Layout

STAND_INS = ROOT / "tests" / "stand_ins"
STAGE_IN = """
import sys
from pathlib import Path
from src.run.staging import stage_in
stage_in(sys.argv[1], Path(sys.argv[2]))
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """The stand-in in place; returns a function that gives the copies so far."""
    monkeypatch.syspath_prepend(str(STAND_INS))
    monkeypatch.setenv("PYTHONPATH", f"{STAND_INS}{os.pathsep}{ROOT}")
    record = tmp_path / "calls"
    monkeypatch.setenv("MOXING_CALLS", str(record))
    yield lambda: record.read_text().splitlines() if record.exists() else []
    for name in ("moxing", "moxing.file"):
        sys.modules.pop(name, None)


@pytest.fixture
def bucket(tmp_path):
    """A data set in the storage."""
    return tree(tmp_path / "bucket" / "data", {"a.bin": "a", "deep/b.bin": "b", "c.bin": "c"})


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(logging.getLogger("simclr"), "warning", lambda text, *rest: lines.append(text % rest))
    return lines


def tree(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def contents(folder):
    return {file.relative_to(folder).as_posix(): file.read_text() for file in folder.rglob("*")
            if file.is_file() and file.name != staging.MARKER}


def start(*arguments, **env):
    """Start a process that stages a data set in."""
    return subprocess.Popen([sys.executable, "-c", STAGE_IN, *map(str, arguments)], env={**os.environ, **env},
                            start_new_session=True)


# --- data come in ---

def test_many_processes_copy_once_and_see_it_whole(calls, bucket, tmp_path):
    local = tmp_path / "cache" / "data"
    processes = [start(bucket, local, MOXING_SECONDS="1") for _ in range(3)]
    while processes[0].poll() is None:  # there is never a half of it to be seen
        assert not local.exists() or contents(local) == contents(bucket)
        time.sleep(0.02)
    assert [process.wait(60) for process in processes] == [0] * 3
    staging.stage_in(f"{bucket}/", local)  # of the same URL
    with pytest.raises(UserError, match="holds files that did not come from"):
        staging.stage_in(f"{bucket}-of-others", local)
    assert len(calls()) == 1 and contents(local) == contents(bucket)
    assert sorted(path.name for path in local.parent.iterdir()) == ["data"]


def test_the_next_one_copies_when_the_copier_is_killed(calls, bucket, tmp_path):
    local = tmp_path / "cache" / "data [1]"
    first = start(bucket, local, MOXING_SECONDS="600")
    try:
        deadline = time.monotonic() + 30
        while not list(local.parent.glob("*.staging/a.bin")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        second = start(bucket, local)
        time.sleep(0.7)
        assert second.poll() is None and len(calls()) == 1  # it waits
        os.kill(first.pid, signal.SIGKILL)  # but not the child process that copies for it
        assert second.wait(60) == 0
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    assert len(calls()) == 2 and contents(local) == contents(bucket)
    assert sorted(path.name for path in local.parent.iterdir()) == ["data [1]"]


def test_a_failed_copy_is_one_line_and_leaves_nothing(calls, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("MOXING_FAILS", "bucket")
    with pytest.raises(UserError, match="^--data_url: copy_parallel of .*data to [^\n]*$"):
        staging.stage_in(str(bucket), tmp_path / "data")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="--data_url: .*empty"):
        staging.stage_in(str(tmp_path / "empty"), tmp_path / "data")
    assert not (tmp_path / "data").exists() and not list(tmp_path.glob("*.staging"))


def test_other_files_are_never_replaced(calls, bucket, tmp_path):
    mine = tree(tmp_path / "data", {"mine.bin": "mine"})
    with pytest.raises(UserError, match="--data_url: .*data holds files that did not come from .*; name an empty"):
        staging.stage_in(str(bucket), mine)
    assert contents(mine) == {"mine.bin": "mine"} and not calls()


# --- a run goes out, and comes back ---

def save(folder, epoch):
    """As checkpoint.save_epoch leaves it."""
    tree(folder, {f"checkpoint/checkpoint_simclr-{epoch}.ckpt": str(epoch), "checkpoint/.unfinished.ckpt": "half"})
    (folder / "checkpoint" / "latest").unlink(missing_ok=True)
    (folder / "checkpoint" / "latest").symlink_to(f"checkpoint_simclr-{epoch}.ckpt")


@contextlib.contextmanager
def begun(folder, url, process=None):
    """A run that has begun, without what ``Run.begin`` writes."""
    with open_run(str(folder), process or Process("CPU"), url and str(url)) as run:
        run.has_begun = True
        yield run


def test_what_is_new_is_sent_and_fetched_elsewhere(calls, tmp_path):
    folder, url, elsewhere = tree(tmp_path / "run", {"log": "begun"}), tmp_path / "bucket", Layout(tmp_path / "new")
    save(folder, 1)
    with begun(folder, f"{url}/") as run:
        assert not run.storage.holds_run
        run.sync()
        assert contents(url) == {"log": "begun", "checkpoint/checkpoint_simclr-1.ckpt": "1"} and len(calls()) == 2
        tree(folder, {"metrics.jsonl": "{}", "z": ""})
        save(folder, 2)
        run.sync()
        assert [call.rpartition("/")[2] for call in calls()[2:]] == ["metrics.jsonl", "z", "checkpoint_simclr-2.ckpt"]
        assert run.storage.holds_run
        (folder / "log").write_text("done")
    assert contents(url)["log"] == "done" and len(calls()) == 6
    tree(elsewhere.path, {"log": "of a job that left no records", "mine": ""})
    for _ in range(2):
        staging.Storage(str(url), elsewhere).fetch()
        assert contents(elsewhere.path) == {**contents(url), "mine": "", "checkpoint/latest": "2"}
        assert os.readlink(elsewhere.checkpoints.latest) == "checkpoint_simclr-2.ckpt"
        tree(url, {"z": "newer, but this machine has a run"})
        tree(elsewhere.path, {"z": "newer, but this machine has a run"})
    assert len(calls()) == 7


def test_a_failure_in_between_is_a_warning_and_made_good(calls, tmp_path, monkeypatch, warnings):
    folder, url = tree(tmp_path / "run", {"log": "begun"}), tmp_path / "bucket"
    with begun(folder, url) as run:
        monkeypatch.setenv("MOXING_FAILS", "bucket")
        run.sync()
        assert len(warnings) == 1 and warnings[0].startswith("warning: --train_url: copy of ")
        monkeypatch.delenv("MOXING_FAILS")
    assert contents(url) == {"log": "begun"} and len(warnings) == 1
    monkeypatch.setenv("MOXING_FAILS", "bucket")
    with pytest.raises(UserError, match="--train_url: copy of .*log to .*log failed"), begun(folder, url):
        pass  # at the end it is an error


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_failed_is_copied_out_and_its_error_wins(calls, tmp_path, monkeypatch, warnings, fails):
    folder, url = tree(tmp_path / "run", {"log": "begun"}), tmp_path / "bucket"
    monkeypatch.setenv("MOXING_FAILS", "bucket" if fails else "")
    with pytest.raises(KeyboardInterrupt, match="the cause"), begun(folder, url):
        raise KeyboardInterrupt("the cause")
    assert len(warnings) == fails and (fails or contents(url) == {"log": "begun"})


def test_neither_other_ranks_nor_a_run_that_never_began_are_copied(calls, tmp_path, monkeypatch):
    monkeypatch.setattr(collectives, "together", lambda process: contextlib.nullcontext())  # the other is not there
    folder, url = tree(tmp_path / "run", {"log": "earlier"}), tmp_path / "bucket"
    with begun(folder, url, Process("CPU", 1, 2)) as run:
        run.sync()
    with open_run(str(folder), Process("CPU"), str(url)) as run:
        run.sync()
    assert not calls() and not url.exists()


# --- the scripts ---

@pytest.fixture
def job(calls, tmp_path, finished):
    """Run a script as a job on the platform, whose local folders are new each time; returns a function."""
    storage = tmp_path / "bucket"
    (storage / "runs").mkdir(parents=True)
    shutil.copytree(finished / "data", storage / "cifar-10-batches-bin")

    def run_job(number, script, *flags):
        local = tmp_path / f"machine {number}"
        local.mkdir(exist_ok=True)
        return call_script(script, "--run_cloudbrain", "True", "--data_url", storage / "cifar-10-batches-bin",
                           "--train_url", storage / "runs" / "one", "--train_dataset_path", "data", *flags, cwd=local)
    return run_job


@pytest.mark.long
def test_a_job_and_its_successor(job, tmp_path, calls, finished):
    """A job that fails leaves its run in the storage, and one on another machine goes on with it."""
    run_of_job = tmp_path / "bucket" / "runs" / "one"
    failed = job(1, "train.py", "--encoder", "resnet18", "--width_multiplier", "0.0625", "--batch_size", "16",
                 "--eval_every", "0", "--learning_rate", "1e30", "--optimizer", "SGD", "--warmup_epochs", "0")
    assert failed.returncode == 3, failed.stderr
    assert "epoch: 1 step: 6" in (run_of_job / "log").read_text()
    assert (run_of_job / "checkpoint" / "checkpoint_simclr-0.ckpt").is_file()
    shutil.rmtree(run_of_job)
    shutil.copytree(finished / "run", run_of_job, ignore=shutil.ignore_patterns("linear_classifier*", "latest"))
    refused(job(2, "train.py"), "--train_url: .* already holds a run; .*--resume True")
    out = done(job(3, "train.py", "--resume", "True"))
    assert "resumed after epoch 3 of 3" in out and "points at no checkpoint" not in out
    assert (run_of_job / "log").read_text().count("done, 3 epochs") == 2
    done(job(4, "linear_eval.py", "--encoder_checkpoint_path", "outputs/checkpoint/latest", "--epoch_size", "1"))
    assert len(of_kind("linear_eval", run_of_job)) == 2
    assert (run_of_job / "linear_classifier" / "linear_classifier-1.ckpt").is_file()
    staged = [line for line in calls() if line.startswith(str(tmp_path / "bucket" / "cifar"))]
    assert len(staged) == 3  # once on every machine that came so far


@pytest.mark.parametrize("script", ["train.py", "linear_eval.py", "finetune.py"])
def test_without_moxing_the_scripts_say_so(tmp_path, script):
    encoder = () if script == "train.py" else ("--encoder_checkpoint_path", "x.ckpt")
    cloud = ("--run_cloudbrain", "True", "--data_url", "s3://data", "--train_url", "s3://run")
    refused(call_script(script, *cloud, *encoder, cwd=tmp_path),
            f"^{script}: --run_cloudbrain: got True, but there is no package moxing")
    assert list(tmp_path.iterdir()) == []
