"""Staging through cloud storage, with a stand-in for moxing and local folders for URLs."""
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from helpers import ROOT, call_script, done, of_kind, refused

from src.common.errors import UserError
from src.distributed import collectives
from src.distributed.process_group import Process
from src.run import staging
from src.run.folder import open_run

STAND_INS = ROOT / "tests" / "stand_ins"


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


def contents(folder, marker=False):
    return {file.relative_to(folder).as_posix(): file.read_text() for file in folder.rglob("*")
            if file.is_file() and (marker or file.name != staging.MARKER)}


def start(call, *arguments, **env):
    """Start a process that makes one call of staging and tells how it ended."""
    code = ("import sys; from pathlib import Path\n"
            "from src.common.errors import UserError; from src.run import staging\n"
            f"try: staging.{call}(sys.argv[1], Path(sys.argv[2]))\n"
            "except UserError as error: sys.exit(f'user error: {error}')")
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env={**os.environ, **env}, text=True,
                            stderr=subprocess.PIPE, start_new_session=True)


def ended(process):
    stderr = process.communicate(timeout=60)[1]
    return process.returncode, stderr


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_many_processes_copy_once_and_see_it_whole(calls, bucket, tmp_path):
    local = tmp_path / "cache" / "data"
    processes = [start("stage_in", bucket, local, MOXING_SECONDS="1.5") for _ in range(4)]
    while processes[0].poll() is None:  # there is never a half of it to be seen
        assert not local.exists() or contents(local) == contents(bucket)
        time.sleep(0.02)
    assert [ended(process) for process in processes] == [(0, "")] * 4
    assert len(calls()) == 1
    assert contents(local) == contents(bucket)
    assert sorted(path.name for path in local.parent.iterdir()) == ["data"]


def test_the_next_one_copies_when_the_copier_is_killed(calls, bucket, tmp_path):
    local = tmp_path / "cache" / "data [1]"
    first = start("stage_in", bucket, local, MOXING_SECONDS="600")
    try:
        wait_for(lambda: list(local.parent.glob("*.staging/new/a.bin")))
        second = start("stage_in", bucket, local)
        time.sleep(0.7)
        assert second.poll() is None and len(calls()) == 1  # it waits
        os.kill(first.pid, signal.SIGKILL)  # but not the child process that copies for it
        assert ended(second) == (0, "")
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    assert len(calls()) == 2
    assert contents(local) == contents(bucket)
    assert sorted(path.name for path in local.parent.iterdir()) == ["data [1]"]


def test_the_next_one_tries_itself_when_the_copier_fails(calls, bucket, tmp_path):
    local = tmp_path / "data"
    first = start("stage_in", bucket, local, MOXING_SECONDS="1.5", MOXING_FAILS="bucket")
    wait_for(calls)
    second = start("stage_in", bucket, local)
    status, stderr = ended(first)
    assert status == 1 and stderr.startswith(f"user error: --data_url: copy_parallel of {bucket} to ")
    assert ended(second) == (0, "")
    assert len(calls()) == 2
    assert contents(local) == contents(bucket)


def test_a_failed_copy_is_one_line_and_leaves_nothing(calls, bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("MOXING_FAILS", "bucket")
    for _ in range(2):
        with pytest.raises(UserError) as error:
            staging.stage_in(str(bucket), tmp_path / "data")
        assert " failed (some parts are failed); check the URL" in str(error.value) and "\n" not in str(error.value)
    assert len(calls()) == 2
    assert not (tmp_path / "data").exists() and not list(tmp_path.glob("*.staging"))


@pytest.mark.parametrize("exists, message", [(False, "--data_url: copy_parallel of .*empty to .* failed"),
                                             (True, "--data_url: there are no files at .*empty; give a folder")])
def test_nothing_at_the_url(calls, tmp_path, exists, message):
    if exists:
        (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        staging.stage_in(str(tmp_path / "empty"), tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_the_same_url_is_kept_and_another_replaces_it(calls, bucket, tmp_path):
    other = tree(tmp_path / "bucket" / "other", {"a.bin": "other a"})
    local = tmp_path / "data"
    local.mkdir()  # an empty folder is as good as none
    for url, copies in ((f"{bucket}/", 1), (str(bucket), 1), (str(other), 2), (str(other), 2), (str(bucket), 3)):
        staging.stage_in(url, local)
        assert len(calls()) == copies
        assert contents(local, marker=True) == {**contents(bucket if "other" not in url else other),
                                                staging.MARKER: url.rstrip("/")}


def test_a_failed_replacement_keeps_the_old(calls, bucket, tmp_path, monkeypatch):
    other = tree(tmp_path / "bucket" / "other", {"a.bin": "other a"})
    staging.stage_in(str(bucket), tmp_path / "data")
    monkeypatch.setenv("MOXING_FAILS", "other")
    with pytest.raises(UserError):
        staging.stage_in(str(other), tmp_path / "data")
    assert contents(tmp_path / "data") == contents(bucket)


def test_files_of_the_user_are_never_replaced(calls, bucket, tmp_path):
    mine = tree(tmp_path / "data", {"mine.bin": "mine"})
    with pytest.raises(UserError, match="--data_url: .* holds files that did not come from .*; name an empty folder"):
        staging.stage_in(str(bucket), mine)
    assert contents(mine) == {"mine.bin": "mine"} and not calls()


def test_a_place_that_cannot_be_written(calls, bucket, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--data_url: cannot write to .*file/data .*; name a folder"):
        staging.stage_in(str(bucket), tmp_path / "file" / "data")


def test_fetch_run(calls, tmp_path):
    remote = tree(tmp_path / "bucket" / "run", {"log": "remote", "checkpoint/c-2.ckpt": "2", "checkpoint/latest": "2"})
    local = tree(tmp_path / "outputs", {"log": "of a run that left no checkpoint", "eval_log": "mine"})
    processes = [start("fetch_run", remote, local, MOXING_SECONDS="1") for _ in range(3)]
    assert [ended(process) for process in processes] == [(0, "")] * 3
    assert len(calls()) == 1
    assert contents(local) == {**contents(remote), "eval_log": "mine"}
    (remote / "checkpoint" / "latest").write_text("3")
    staging.fetch_run(str(remote), local)  # the local run stays what it is
    assert len(calls()) == 1 and contents(local)["checkpoint/latest"] == "2"


def test_results_alone_are_fetched_too(calls, tmp_path):
    remote = tree(tmp_path / "bucket", {"metrics.jsonl": "{}", "finetune/pretrained-1/encoder.ckpt": "1"})
    staging.fetch_run(str(remote), tmp_path / "outputs")
    assert contents(tmp_path / "outputs") == contents(remote) and staging.holds_run(str(remote))
    tree(tmp_path / "outputs", {"metrics.jsonl": "newer, as the last copy failed"})
    staging.fetch_run(str(remote), tmp_path / "outputs")
    assert len(calls()) == 1 and contents(tmp_path / "outputs")["metrics.jsonl"].startswith("newer")
    tree(remote, {"checkpoint/latest": "2"})
    staging.fetch_run(str(remote), tmp_path / "outputs")  # a whole run is more than results
    assert contents(tmp_path / "outputs") == contents(remote)


@pytest.mark.parametrize("files", [{}, {"log": "a run that failed at once"}])
def test_fetch_run_without_a_run_in_the_storage(calls, tmp_path, files):
    staging.fetch_run(str(tree(tmp_path / "bucket", files)), tmp_path / "outputs")
    assert not calls() and not (tmp_path / "outputs").exists()


def test_a_failed_fetch_leaves_no_run(calls, tmp_path, monkeypatch):
    remote = tree(tmp_path / "bucket", {"checkpoint/latest": "2", "log": "remote"})
    monkeypatch.setenv("MOXING_FAILS", "bucket")
    with pytest.raises(UserError, match="--train_url: copy_parallel of "):
        staging.fetch_run(str(remote), tmp_path / "outputs")
    assert not (tmp_path / "outputs").exists()


def test_the_link_comes_last(calls, tmp_path, monkeypatch):
    remote = tree(tmp_path / "bucket", {"checkpoint/latest": "2", "checkpoint/a": "", "checkpoint/z": "", "z": ""})
    moved = []
    monkeypatch.setattr(staging.os, "replace", lambda source, target: moved.append(target.name))
    staging.fetch_run(str(remote), tmp_path / "outputs")
    assert len(moved) == 4 and moved[-1] == "latest"


def save(folder, epoch):
    """As checkpoint.save_epoch leaves it."""
    (folder / "checkpoint" / "latest").unlink(missing_ok=True)
    tree(folder, {f"checkpoint/c-{epoch}.ckpt": str(epoch), "checkpoint/.unfinished.ckpt": "half"})
    (folder / "checkpoint" / "latest").symlink_to(f"c-{epoch}.ckpt")


def test_a_copy_is_brought_up_to_date(calls, tmp_path):
    run, url = tree(tmp_path / "run", {"log": "begun"}), tmp_path / "bucket"
    copy = staging.Copy(run, f"{url}/")
    save(run, 1)
    copy.try_to_send()
    assert contents(url) == {"log": "begun", "checkpoint/c-1.ckpt": "1", "checkpoint/latest": "1"}
    assert len(calls()) == 3
    save(run, 2)
    copy.try_to_send()
    assert contents(url)["checkpoint/latest"] == contents(url)["checkpoint/c-2.ckpt"] == "2"
    assert len(calls()) == 5
    (run / "log").write_text("begun and done")
    copy.send()
    assert contents(url)["log"] == "begun and done"
    assert len(calls()) == 6 and "//" not in "".join(calls())
    assert not [path for path in url.rglob("*") if path.is_symlink()]


def test_a_link_comes_after_its_file_and_is_copied_within_the_storage(calls, tmp_path):
    run, url = tree(tmp_path / "run", {"checkpoint/z-1.ckpt": "1", "z": ""}), tmp_path / "bucket"
    (run / "checkpoint" / "latest").symlink_to("z-1.ckpt")
    (run / "a link").symlink_to(tree(tmp_path / "elsewhere", {"file": "not in the run"}) / "file")
    copy = staging.Copy(run, str(url))
    copy.send()
    assert calls() == [f"{run}/checkpoint/z-1.ckpt -> {url}/checkpoint/z-1.ckpt", f"{run}/z -> {url}/z",
                       f"{tmp_path}/elsewhere/file -> {url}/a link",
                       f"{url}/checkpoint/z-1.ckpt -> {url}/checkpoint/latest"]
    staging.fetch_run(str(url), tmp_path / "outputs")
    assert os.readlink(tmp_path / "outputs" / "checkpoint" / "latest") == "z-1.ckpt"


def test_one_sends_at_a_time(calls, tmp_path, monkeypatch):
    """The end of a run finds its last checkpoint being sent."""
    monkeypatch.setenv("MOXING_SECONDS", "0.3")
    copy = staging.Copy(tree(tmp_path / "run", {"a": "", "b": ""}), str(tmp_path / "bucket"))
    threads = [threading.Thread(target=copy.send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls()) == 2


@contextlib.contextmanager
def begun(folder, url):
    """A run that has begun, without what ``Run.begin`` writes."""
    with open_run(str(folder), Process("CPU"), url and str(url)) as run:
        run.has_begun = True
        yield run


def test_a_failure_in_between_is_a_warning_and_made_good(calls, tmp_path, monkeypatch, warnings):
    folder, url = tree(tmp_path / "run", {"log": "begun"}), tmp_path / "bucket"
    with begun(folder, url) as run:
        monkeypatch.setenv("MOXING_FAILS", "bucket")
        save(folder, 1)
        run.sync()
        assert len(warnings) == 1 and warnings[0].startswith("warning: --train_url: copy of ")
        monkeypatch.delenv("MOXING_FAILS")
    assert contents(url) == {"log": "begun", "checkpoint/c-1.ckpt": "1", "checkpoint/latest": "1"}
    assert len(warnings) == 1


def test_a_failure_at_the_end_is_an_error(calls, tmp_path, monkeypatch, warnings):
    monkeypatch.setenv("MOXING_FAILS", "bucket")
    with pytest.raises(UserError, match="--train_url: copy of .*log to .*bucket/log failed"), \
            begun(tree(tmp_path / "run", {"log": "begun"}), tmp_path / "bucket"):
        pass
    assert not warnings


@pytest.mark.parametrize("error", [ValueError("the cause"), UserError("the cause"), KeyboardInterrupt("the cause")])
@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_failed_is_copied_out_and_its_error_wins(calls, tmp_path, monkeypatch, warnings, error, fails):
    folder, url = tree(tmp_path / "run", {"log": "begun"}), tmp_path / "bucket"
    monkeypatch.setenv("MOXING_FAILS", "bucket" if fails else "")
    with pytest.raises(type(error), match="the cause"), begun(folder, url):
        raise error
    assert len(warnings) == fails
    assert fails or contents(url) == {"log": "begun"}


@pytest.mark.parametrize("error", [None, UserError("refused")])
def test_a_run_that_never_began_is_not_copied(calls, tmp_path, error):
    """What lies in the folder then is of an earlier one."""
    with contextlib.suppress(UserError), open_run(str(tree(tmp_path / "run", {"log": "earlier"})), Process("CPU"),
                                                str(tmp_path / "bucket")) as run:
        run.sync()
        if error:
            raise error
    assert not calls() and not (tmp_path / "bucket").exists()


def test_only_the_first_rank_copies(calls, tmp_path, monkeypatch):
    monkeypatch.setattr(collectives, "together", lambda process: contextlib.nullcontext())  # the other is not there
    with open_run(str(tree(tmp_path / "run", {"log": "begun"})), Process("CPU", 1, 2), str(tmp_path / "bucket")) as run:
        run.has_begun = True
        run.sync()
    assert not calls()


def test_without_a_url_nothing_happens(tmp_path):
    with begun(tmp_path, None) as run:  # nor is moxing needed
        run.sync()


@pytest.mark.parametrize("call", [
    lambda place: staging.stage_in("obs://bucket/data", place / "data"),
    lambda place: staging.fetch_run("obs://bucket/run", place / "outputs"),
    lambda place: staging.holds_run("obs://bucket/run"),
])
def test_missing_moxing_is_named_before_anything_is_written(tmp_path, call):
    with pytest.raises(UserError, match="--run_cloudbrain: got True, but there is no package moxing, .*; leave "):
        call(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_package_that_moxing_misses_is_named_itself(tmp_path, monkeypatch):
    tree(tmp_path, {"moxing/__init__.py": "import obs_of_nobody"})
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="obs_of_nobody"):
        staging.holds_run("obs://bucket/run")


def test_a_storage_that_does_not_answer(calls, monkeypatch):
    import moxing

    def no_answer(url):
        raise KeyError("request-id")

    monkeypatch.setattr(moxing.file, "exists", no_answer)
    with pytest.raises(UserError, match="--train_url: exists of obs://bucket/run/checkpoint/latest failed"):
        staging.holds_run("obs://bucket/run")


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


NETWORK = ("--encoder", "resnet18", "--width_multiplier", "0.0625", "--batch_size", "16", "--eval_every", "0")


@pytest.mark.long
def test_a_job_and_its_successor(job, tmp_path, calls, finished):
    """A job that fails leaves its run in the storage, and one on another machine goes on with it."""
    run_of_job = tmp_path / "bucket" / "runs" / "one"
    failed = job(1, "train.py", *NETWORK, "--epoch_size", "2", "--learning_rate", "1e30", "--optimizer", "SGD",
                 "--warmup_epochs", "0")
    assert failed.returncode == 3, failed.stderr
    log = (run_of_job / "log").read_text()
    assert "epoch: 1 step: 6" in log
    assert (run_of_job / "checkpoint" / "latest").is_file()
    refused(job(2, "train.py", *NETWORK), "--train_url: .* already holds a run; go on with it with --resume True")
    shutil.rmtree(run_of_job)
    shutil.copytree(finished / "run", run_of_job, ignore=shutil.ignore_patterns("linear_classifier"))  # links as files
    (run_of_job / "metrics.jsonl").unlink()
    assert "resumed after epoch 3 of 3" in done(job(3, "train.py", "--resume", "True"))
    assert (run_of_job / "log").read_text().count("done, 3 epochs") == 2
    sent = [line.rpartition("/")[2] for line in calls() if f"-> {run_of_job}/checkpoint/" in line]
    assert sent == ["checkpoint_simclr-0.ckpt", "latest"] + [f"checkpoint_simclr-{epoch}.ckpt" for epoch in range(4)] \
        + ["latest"]  # of the failed job, and all that its successor fetched
    done(job(4, "linear_eval.py", "--encoder_checkpoint_path", "outputs/checkpoint/latest", "--epoch_size", "1"))
    assert of_kind("linear_eval", run_of_job)
    assert any((run_of_job / "linear_classifier").glob("*-1.ckpt"))
    staged = [line for line in calls() if "-> " in line and line.startswith(str(tmp_path / "bucket" / "cifar"))]
    assert len(staged) == 3  # once on every machine that came so far


@pytest.mark.parametrize("script, flags", [
    ("train.py", ()), ("train.py", ("--resume",)), ("linear_eval.py", ("--encoder_checkpoint_path", "x.ckpt")),
    ("finetune.py", ("--encoder_checkpoint_path", "x.ckpt"))])
def test_without_moxing_the_scripts_say_so(tmp_path, script, flags):
    cloud = ("--run_cloudbrain", "True", "--data_url", "s3://data", "--train_url", "s3://run")
    refused(call_script(script, *cloud, *flags, cwd=tmp_path),
            f"^{script}: --run_cloudbrain: got True, but there is no package moxing")
    assert list(tmp_path.iterdir()) == []
