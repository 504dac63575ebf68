"""train.py: what a run leaves, how it goes on, what it refuses."""
import os
import re
import resource
import shutil
import signal

import mindspore as ms
import numpy as np
import pytest
import yaml
from helpers import (
    EPOCHS,
    SMALL,
    STEPS,
    arguments,
    back_to,
    begun_script,
    call_script,
    done,
    equal,
    of_kind,
    refused,
    start_script,
    trap_script,
    values,
    write_cifar,
)

from src.data import shapes
from src.layers import mixed_precision
from src.run import checkpoint, folder, records
from src.run.checkpoint import load


def train(folder, output, *more):
    return call_script("train.py", *arguments(output, *more), cwd=folder)


# --- a finished run ---

def test_log_records_settings_and_page(finished):
    log = (finished / "train.out").read_text()
    losses = re.findall(r"^epoch: (\d+) step: 6, loss is (\d+\.\d+)$", log, re.M)
    assert len(re.findall(r"^epoch time: \d+\.\d{3} ms, per step time: \d+\.\d{3} ms$", log, re.M)) == EPOCHS
    assert (finished / "run" / "log").read_text() == log
    assert "\x1b" not in log and "\r" not in log  # no progress bar where there is no terminal
    found = of_kind(records.PRETRAIN, finished / "run")
    assert [(str(record["epoch"]), str(np.float32(record["last_loss"]))) for record in found] == losses
    assert [epoch for epoch, _ in losses] == ["1", "2", "3"]
    for record in found:
        assert abs(record["loss"] - 2 * np.log(31)) < 1.5  # near that of an untrained network
        assert 0 <= record["contrastive_accuracy"] <= 1
    written = yaml.safe_load((finished / "run" / "config.yaml").read_text())
    assert written["settings"]["learning_rate"] == pytest.approx(9e-4 * (16 / 1024) ** 0.5)
    assert written["settings"]["warmup_epochs"] == pytest.approx(0.45)
    assert written["versions"]["mindspore"] == ms.__version__
    assert written["command_line"][1].endswith("train.py")
    page = (finished / "run" / "report.html").read_text()
    (evaluated,) = of_kind(records.LINEAR_EVAL, finished / "run")  # the last record, which linear_eval.py has written
    assert f"{100 * evaluated['accuracy']:.2f} %" in page and "kNN accuracy of the monitor" in page


@pytest.mark.long
def test_events_instead_of_a_page_and_a_quiet_console(finished, tmp_path):
    pytest.importorskip("tensorboardX")
    result = train(finished, tmp_path / "run", "--epoch_size", 1, "--tensorboard", "--report", "False", "--quiet")
    (warning,) = done(result).splitlines()
    assert warning.startswith("warning: data has 1 of ")
    log = (tmp_path / "run" / "log").read_text()
    assert "about to pretrain resnet18 on " in log and "epoch: 1 step: 6, loss is " in log and "\ndone, 1 epochs" in log
    (file,) = (tmp_path / "run" / "tensorboard").iterdir()
    for name in (b"pretrain/loss", b"pretrain/gradient_norm", b"monitor/alignment", b"views"):
        assert name in file.read_bytes()
    assert of_kind(records.MONITOR, tmp_path / "run") and not (tmp_path / "run" / "report.html").exists()

def test_tensorboard_without_its_package(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(train(finished, tmp_path / "run", "--tensorboard"),
            "--tensorboard: the package tensorboardX is not installed here; pip install tensorboardX, or leave")
    assert not (tmp_path / "run").exists()


def test_checkpoints_hold_everything(finished):
    folder = finished / "run" / "checkpoint"
    assert sorted(os.listdir(folder)) == [f"checkpoint_simclr-{epoch}.ckpt" for epoch in range(EPOCHS + 1)] + ["latest"]
    assert os.readlink(folder / "latest") == "checkpoint_simclr-3.ckpt"
    found = load(str(folder), "simclr", "test")
    assert found.info["epoch"] == EPOCHS
    assert found.info["settings"]["seed"] == 5
    assert found.parameters["global_step"].asnumpy() == EPOCHS * STEPS
    for name in ("encoder.conv1.weight", "encoder.bn1.moving_mean", "projection_head.dense2.bias",
                 "moment1.encoder.conv1.weight", "moment2.projection_head.dense2.bias"):
        assert np.abs(found.parameters[name].asnumpy()).max() > 0


def test_a_seed_repeats_the_run_however_often_it_is_measured(finished, tmp_path, trace):
    """By default a run is measured after every fifth epoch and the last; it does not notice."""
    done(train(finished, tmp_path / "again", "--eval_every", "1"))
    equal(values(finished / "run"), values(tmp_path / "again"))
    measured = of_kind(records.MONITOR, tmp_path / "again")
    assert [record["epoch"] for record in measured] == [1, 2, 3]
    (by_default,) = of_kind(records.MONITOR, finished / "run")
    assert by_default["epoch"] == 3 and 0 <= by_default["knn_accuracy"] <= 1
    assert measured[-1] == {**by_default, "seconds": measured[-1]["seconds"]}
    trace.check(tmp_path / "again")


@pytest.mark.long
def test_a_diverging_run_ends_with_status_3(finished, tmp_path):
    result = start_script("train.py", *arguments(tmp_path / "diverged", "--learning_rate", "1e30", "--optimizer", "SGD",
                                                 "--warmup_epochs", "0"), cwd=finished)
    assert result.returncode == 3, result.stdout + result.stderr
    assert re.fullmatch(r"train.py: the loss of epoch 1, step [2-6] is not finite .*: training has diverged; .*\n",
                        result.stderr)
    for file in (tmp_path / "diverged" / "checkpoint").glob("*.ckpt"):
        assert all(np.isfinite(value).all() for value in values(file).values())


@pytest.mark.long
def test_graphs_are_saved_on_request(finished, tmp_path):
    graphs = tmp_path / "run" / "graphs"
    with begun_script("train.py", *arguments(tmp_path / "run", "--save_graphs", "True"), cwd=finished,
                      until=lambda: any(graphs.rglob("*.ir"))):
        pass  # all of them take a while


# --- saving beside the training ---

@pytest.fixture
def file_limit():
    """Return a function that limits the size of files, which is to MindSpore as a full disk is."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.long
def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(finished, tmp_path, monkeypatch, file_limit):
    save_epoch, before = checkpoint.save_epoch, resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(series, epoch, *rest):
        if epoch == 2:
            file_limit(200_000)
        save_epoch(series, epoch, *rest)

    monkeypatch.setattr(checkpoint, "save_epoch", limited)
    result = train(finished, tmp_path / "run")
    refused(result, "--train_output_path: cannot write to .*run/checkpoint .File too large.; name a folder ")
    assert "done" not in result.stdout
    assert load(str(tmp_path / "run"), "simclr", "x").info["epoch"] == 1
    assert not list((tmp_path / "run" / "checkpoint").glob(".*"))
    file_limit(before[0])
    monkeypatch.undo()
    done(train(finished, tmp_path / "run", "--resume"))
    equal(values(finished / "run"), values(tmp_path / "run"))


def test_a_folder_that_cannot_be_written_shows_before_the_first_epoch(finished, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint").write_text("no folder")
    result = train(finished, tmp_path / "run")
    refused(result, "--train_output_path: cannot write to .*run/checkpoint .*; name a folder ")
    assert "epoch: 1" not in result.stdout


# --- resuming ---

# Kills the process when half of the second epoch's checkpoint is on the disk.
HALF_A_CHECKPOINT = """
fsync = os.fsync
def killed(number):
    path = os.readlink(f"/proc/self/fd/{number}")
    if "checkpoint_simclr-2." in path:
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(number)
os.fsync = killed
"""


def test_a_run_that_was_killed_while_it_saved_resumes_to_the_same_weights_and_records(finished, tmp_path):
    """It has a record that is later than its checkpoint, and is evaluated; and it has no test images."""
    run = tmp_path / "killed"
    (tmp_path / "data").mkdir()
    shutil.copy(finished / "data" / "data_batch_1.bin", tmp_path / "data")
    trap_script("train.py", *arguments("killed"), cwd=tmp_path, trap=HALF_A_CHECKPOINT)
    assert list((run / "checkpoint").glob(".checkpoint_simclr-2.*"))
    assert os.readlink(run / "checkpoint" / "latest") == "checkpoint_simclr-1.ckpt"
    assert [record["epoch"] for record in records.read(run / "metrics.jsonl")] == [1, 2]
    (monitored,) = of_kind(records.MONITOR, finished / "run")
    evaluated = of_kind(records.CLASSIFIER_EPOCH, finished / "run") + of_kind(records.LINEAR_EVAL, finished / "run")
    for record in ({**monitored, "epoch": 1}, {**monitored, "epoch": 2}, *evaluated):
        records.appended_to(run / "metrics.jsonl")(record)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "pretrain", "epoch": 3, "lo')  # as a process leaves it that is killed while it writes

    out = done(call_script("train.py", "--resume", "--train_dataset_path", "data", "--train_output_path", "killed",
                           cwd=tmp_path))
    assert re.search(r"^resumed after epoch 1 of 3 from ", out, re.M)
    assert re.search(r"^warning: no kNN accuracy during the run, for want of test images \(", out, re.M)
    equal(values(finished / "run"), values(run))
    first, measured, *others, second, third, last = records.read(run / "metrics.jsonl")
    assert (measured, others) == ({**monitored, "epoch": 1}, evaluated)
    for record, whole in zip((first, second, third), of_kind(records.PRETRAIN, finished / "run")):
        assert {**record, "seconds": 0, "images_per_second": 0} == {**whole, "seconds": 0, "images_per_second": 0}
    assert (last["kind"], last["epoch"], last["knn_accuracy"]) == (records.MONITOR, 3, None)
    assert last["effective_rank"] == monitored["effective_rank"] > 1
    assert not list((run / "checkpoint").glob(".*"))


def test_a_finished_run_resumes_to_nothing_and_a_damaged_checkpoint_to_the_one_before(copied, finished):
    run = copied / "run"
    newest = run / "checkpoint" / "checkpoint_simclr-3.ckpt"
    before, written = bytearray(newest.read_bytes()), records.read(run / "metrics.jsonl")
    assert "resumed after epoch 3 of 3" in done(train(copied, "run", "--resume"))
    assert newest.read_bytes() == before and records.read(run / "metrics.jsonl") == written
    before[len(before) // 2] ^= 1
    newest.write_bytes(before)
    out = done(train(copied, "run", "--resume"))
    assert "the newest whole checkpoint is used, run/checkpoint/checkpoint_simclr-2.ckpt" in out
    assert "resumed after epoch 2 of 3" in out
    equal(values(finished / "run"), values(run))
    assert [record["epoch"] for record in of_kind(records.PRETRAIN, run)] == [1, 2, 3]
    assert len(records.read(run / "metrics.jsonl")) == len(written)


@pytest.mark.parametrize("flags, message", [
    (("--temperature", "0.1"), r"--temperature: got 0.1, but .*checkpoint_simclr-3.ckpt was made with 0.5"),
    (("--train_dataset_path", "other"),
     r"--train_dataset_path: its training images \(120 images, .*\) are not those that .* \(100 images, ")])
def test_resuming_something_else_is_refused(finished, tmp_path, flags, message):
    write_cifar(tmp_path / "other", train=120)
    flags = [tmp_path / "other" if value == "other" else value for value in flags]
    before = (finished / "run" / "metrics.jsonl").read_bytes()
    refused(train(finished, "run", "--resume", "True", *flags), message)
    assert (finished / "run" / "metrics.jsonl").read_bytes() == before


def test_an_interrupted_run_saves_its_last_epoch(finished, tmp_path):
    """Though it was to save at the end alone; what it has then is what it would have had without interruption."""
    run, flags = tmp_path / "run", ("--save_checkpoint_epochs", "100", "--eval_every", "0", "--report", "False")

    def epochs():
        return [record["epoch"] for record in records.read(run / "metrics.jsonl", quiet=True)]

    with begun_script("train.py", *arguments(run, "--epoch_size", "1000", *flags), cwd=finished,
                      until=lambda: (run / "metrics.jsonl").exists() and len(epochs()) >= 2) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        assert process.stderr.read() == "train.py: interrupted\n"
    found = load(str(run), "simclr", "x").info["epoch"]
    assert 1 <= epochs()[-1] - 1 <= found <= epochs()[-1]  # the record comes a moment before
    assert sorted(os.listdir(run / "checkpoint")) == ["checkpoint_simclr-0.ckpt", f"checkpoint_simclr-{found}.ckpt",
                                                      "latest"]
    assert not list(run.glob(".*"))


@pytest.mark.long
def test_an_interrupted_epoch_is_begun_again(finished, tmp_path, monkeypatch):
    """And the run ends with the weights and records of one that was not interrupted."""
    run = tmp_path / "run"
    appended_to = records.appended_to

    def raising(path):
        def write(record):
            appended_to(path)(record)
            if record["epoch"] == 2 and record["kind"] == "pretrain":
                raise KeyboardInterrupt
        return write

    monkeypatch.setattr(folder, "appended_to", raising)
    assert train(finished, run, "--save_checkpoint_epochs", "3").returncode == 130
    monkeypatch.undo()
    assert load(str(run), "simclr", "x").info["epoch"] == 1
    assert "resumed after epoch 1 of 3" in done(train(finished, run, "--resume"))
    equal(values(finished / "run"), values(run))


def test_a_folder_has_one_run_at_a_time(finished, tmp_path):
    """The second one is told whose it is, and has changed nothing."""
    run = tmp_path / "run"
    with begun_script("train.py", *arguments(run, "--epoch_size", "1000"), cwd=finished,
                      until=(run / "checkpoint" / "latest").exists) as process:
        for second in (train(finished, run), train(finished, run, "--resume"),
                       call_script("linear_eval.py", "--encoder_checkpoint_path", "run", "--train_dataset_path", "data",
                                   "--train_output_path", run, cwd=finished)):
            refused(second, f"--train_output_path: {run} is in use by process {process.pid} on {os.uname().nodename}; "
                            "wait for its end, or name another folder")
        assert not (run / "eval_config.yaml").exists()
    assert (run / ".lock").exists()  # of a killed process, and nobody's any more
    train(finished, run, "--resume", "--epoch_size", "1")
    assert not (run / ".lock").exists()


def test_a_run_is_not_overwritten(finished, copied):
    refused(train(finished, "run"), "--train_output_path: run already holds a run; .*--resume True")
    for file in (copied / "run" / "checkpoint").iterdir():
        if file.name != "checkpoint_simclr-0.ckpt":
            file.unlink()
    refused(train(copied, "run"), "--train_output_path: run already holds a run; .*--resume True")  # it has epochs
    (copied / "run" / "checkpoint" / "checkpoint_simclr-0.ckpt").unlink()
    refused(train(copied, "run", "--resume"), "--resume: run has the records of a run, and no checkpoint in ")


@pytest.mark.long
def test_a_run_may_have_its_data_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "IMAGES", {"train": 32, "test": 10})
    done(call_script("train.py", *SMALL, "--dataset_name", "shapes", "--epoch_size", "1",
                     "--train_dataset_path", "outputs/data", "--train_output_path", "outputs", cwd=tmp_path))
    assert (tmp_path / "outputs" / "config.yaml").exists() and (tmp_path / "outputs" / "data").is_dir()


@pytest.mark.long
def test_a_run_with_several_views_learns_from_all_pairs_and_resumes(finished, tmp_path):
    flags = ("--views", "4", "--batch_size", "8", "--epoch_size", "2")
    out = done(train(finished, tmp_path / "run", *flags))
    assert "about to pretrain resnet18 on 100 images of cifar10: 2 epochs of 12 steps of 8 images in 4 views; " in out
    first, last = of_kind(records.PRETRAIN, tmp_path / "run")
    assert abs(first["loss"] - 2 * np.log(4 * 7 + 1)) < 1.5  # near that of an untrained network
    assert first["images_per_second"] > 0 and last["loss"] < first["loss"] + 0.5
    whole = values(tmp_path / "run")
    back_to(tmp_path / "run", 1)
    resume = ("train.py", "--resume", "--train_dataset_path", "data", "--train_output_path", tmp_path / "run")
    refused(call_script(*resume, "--views", "2", cwd=finished),
            "--views: got 2, but .*checkpoint_simclr-1.ckpt was made with 4")
    assert "resumed after epoch 1 of 2" in done(call_script(*resume, cwd=finished))
    equal(whole, values(tmp_path / "run"))


# --- given weights ---

def cosine(step):
    """The schedule of 12 steps up to 0.05, two of them warm-up."""
    return 0.05 * ((step + 1) / 2 if step < 2 else (1 + np.cos(np.pi * (step - 2) / 10)) / 2)


@pytest.mark.long
@pytest.mark.parametrize("amp_level", ["O0", "O2"])
def test_given_weights_get_the_rest_of_the_schedule(finished, tmp_path, monkeypatch, amp_level):
    """The learning rate of every step is what its update is of SGD's momentum; an epoch is one step here.

    An update that is left out for an overflow does not count: the next one has its rate.
    """
    monkeypatch.setattr(mixed_precision, "FIRST_SCALE", 2.0**18)
    source, run = finished / "run" / "checkpoint" / "checkpoint_simclr-2.ckpt", tmp_path / "run"
    flags = ("--train_dataset_path", "data", "--train_output_path", run)
    out = done(call_script(
        "train.py", *flags, "--pre_trained_path", source, "--pretrain_epoch_size", "4", "--epoch_size", "12",
        "--batch_size", "16", "--num_samples", "16", "--optimizer", "SGD", "--learning_rate", "0.05", "--warmup_epochs",
        "2", "--lr_schedule", "cosine", "--eval_every", "0", "--keep_checkpoint_max", "20", "--amp_level", amp_level,
        "--cpu_layers", "mindspore", cwd=finished))
    assert re.findall(r"^epoch: (\d+) step", out, re.M) == [str(epoch) for epoch in range(5, 13)]
    states = [values(run / "checkpoint" / f"checkpoint_simclr-{epoch}.ckpt") for epoch in range(4, 13)]
    begun, given = states[0], values(source)
    weights = [name for name in given if name.startswith(("encoder.", "projection_head."))]
    assert all(np.array_equal(begun[name], given[name]) for name in weights)
    assert not begun["moments.encoder.conv1.weight"].any()  # the optimizer begins anew

    overflows, trained = 0, [name.partition(".")[2] for name in begun if name.startswith("moments.")]
    for before, after in zip(states, states[1:]):
        update = np.concatenate([(before[name] - after[name]).ravel() for name in trained]).astype(np.float64)
        momentum = np.concatenate([after[f"moments.{name}"].ravel() for name in trained]).astype(np.float64)
        count = int(before["global_step"][0])
        if after["global_step"][0] == count:
            overflows += 1
            assert not update.any()
        else:
            assert update @ momentum / (momentum @ momentum) == pytest.approx(cosine(4 + count), rel=1e-3)
    assert overflows == 0 if amp_level == "O0" else 0 < overflows < 6
    assert of_kind(records.MONITOR, run) == []
    logged = [record["learning_rate"] for record in of_kind(records.PRETRAIN, run)]
    assert logged == pytest.approx([cosine(step) for step in range(4, 12)])

    if amp_level == "O0":  # and a run that is resumed goes on as it would have
        back_to(run, 10)
        assert "resumed after epoch 10 of 12" in done(call_script(
            "train.py", *flags, "--resume", "--cpu_layers", "mindspore", cwd=finished))
        equal(states[-1], values(run))


@pytest.mark.parametrize("flags, message", [
    (("--device_target", "Ascend"), "--device_target: got Ascend, but this machine has no such device"),
    (("--train_output_path", "data/test_batch.bin/run"), "--train_output_path: cannot write to"),
])
def test_bad_input_writes_nothing(finished, flags, message):
    before = sorted(finished.rglob("*"))
    refused(call_script("train.py", *SMALL, "--train_dataset_path", "data", "--train_output_path", "never", *flags,
                        cwd=finished), message)
    assert sorted(finished.rglob("*")) == before
