"""Several processes on the CPU, for real: what they compute, what they write, and what becomes of bad luck."""
import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import ROOT, start_script
from mindspore import nn
from test_scripts import parameters, refused

from src.data.cifar import write_file
from src.data.shapes import draw
from src.distributed.process_group import Process
from src.layers.batch_norm import GlobalBatchNorm, batch_norm
from src.run.folder import read_metrics
from src.settings.flags import TrainConfig
from src.settings.parsing import parse
from src.simclr_model import simclr_of
from src.tasks import pretraining
from src.training import loop

sys.path.append(str(ROOT / "benchmarks"))
import communication
import equivalence

import common

LAUNCHER = "run_distribution_train_msrun.sh"
SMALL = ("--encoder", "resnet18", "--width_multiplier", "0.0625", "--batch_size", "8", "--projection_dimension", "8",
         "--head_batch_norm", "True", "--epoch_size", "4")


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def start(folder, output, *flags, **env):
    """Start the launcher with two processes on the CPU."""
    place = folder / f"{output}.launch"  # for the logs
    place.mkdir()
    return subprocess.Popen(
        ["sh", str(ROOT / "scripts" / LAUNCHER), "2", "cifar10", str(folder / "data"), *SMALL, "--train_output_path",
         str(folder / output), *flags], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHON": sys.executable, "DEVICE_TARGET": "CPU", "MASTER_PORT": free_port(), **env})


def finish(process, seconds=120):
    out, errors = process.communicate(timeout=seconds)
    assert process.returncode == 0, out + errors
    return out


def process_of_rank(rank, output):
    """Return the process id of the Python that trains as ``rank`` for the run ``output``."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            variables = (folder / "environ").read_bytes().decode().split("\0")
        except OSError:
            continue
        if output in words and words[1].endswith("train.py") and "MS_ROLE=MS_WORKER" in variables \
                and f"RANK_ID={rank}" in variables:
            return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")


def is_alive(process_id):
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a small CIFAR-10, and a finished run of two processes in ``run``."""
    folder = tmp_path_factory.mktemp("distributed")
    (folder / "data").mkdir()
    write_file(folder / "data" / "data_batch_1.bin", draw(100, 1))
    write_file(folder / "data" / "test_batch.bin", draw(37, 9))
    finish(start(folder, "run"))
    return folder


def log(folder, output, rank):
    return (folder / f"{output}.launch" / "train_msrun" / f"worker_{rank}.log").read_text()


# --- what they compute ---

def test_two_processes_compute_what_one_does(tmp_path):
    """Loss, every gradient, batch-norm statistics and weights after 3 steps; see benchmarks/equivalence.py."""
    options = argparse.Namespace(encoder="resnet18", width_multiplier=0.0625, global_batch=16, steps=3, optimizer="SGD",
                                 seeds=[0], smooth="True")
    one, two = (equivalence.run_processes(options, processes, tmp_path) for processes in (1, 2))
    found = equivalence.summary(two, one)
    for kind, reach in equivalence.REACH.items():
        assert found[kind]["worst"] < reach, found


def test_what_a_rank_sends(tmp_path):
    """Counted from the graph of one of 4 ranks, against the sizes of what must be sent, and no collective more."""
    options = argparse.Namespace(encoder="resnet18", width_multiplier=0.0625, batch_size=8)
    found = communication.count(options, 4)
    model = simclr_of({"dataset_name": "cifar10", "normalize": False, **vars(options), "projection_dimension": 128,
                       "head_batch_norm": False})
    weights = model.trainable_params()
    channels = sum(parameter.size for name, parameter in model.parameters_and_names() if name.endswith("moving_mean"))
    norms = sum(name.endswith("moving_mean") for name, _ in model.parameters_and_names())
    # MindSpore may merge the gradients of two shifts into one, where both are shifts of the same sum.
    twins = [weight.size for weight in weights if weight.name.endswith("downsample.1.beta")]
    gradients = found["collectives"].pop("gradients"), found["bytes_sent"].pop("gradients")
    assert len(weights) - len(twins) <= gradients[0] <= len(weights)
    size = sum(weight.size for weight in weights)
    assert 1.5 * 4 * (size - sum(twins)) <= gradients[1] <= 1.5 * 4 * size
    assert found["collectives"] == {"embeddings": 2, "batch norm": 2 * norms, "loss": 1}
    rows = 4 * 2 * 8 * 128  # bytes of a rank's embeddings
    assert found["bytes_sent"] == {
        "embeddings": 3 * rows + 1.5 * 4 * rows, "batch norm": 1.5 * 4 * 4 * channels, "loss": 1.5 * 4 * 2}
    assert found["similarity_matrix_bytes"] == 4 * 16 * 64


@pytest.mark.parametrize("across, synchronised", [("True", "True"), ("False", "False")])
def test_what_is_across_devices_can_be_chosen(monkeypatch, across, synchronised):
    config = parse(TrainConfig, [*SMALL, "--cross_device_negatives", across, "--sync_bn", synchronised,
                                 "--learning_rate", "1e-3", "--warmup_epochs", "1"])
    built = {}
    monkeypatch.setattr(loop, "TrainStep", lambda model, loss, optimizer, ranks: built.update(loss=loss))
    model = pretraining.build_learner(config, 3, Process("CPU", 1, 2)).model
    assert built["loss"].itself.shape == ((16, 32) if across == "True" else (16, 16))
    assert isinstance(model.encoder.bn1, GlobalBatchNorm) is (synchronised == "True")
    assert isinstance(model.projection_head.bn1, GlobalBatchNorm) is (synchronised == "True")


def test_ascend_has_mindspores_own_batch_norm():
    assert batch_norm(True, Process("Ascend", 0, 8)) is nn.SyncBatchNorm
    assert batch_norm(True, Process("Ascend")) is batch_norm(False, Process("GPU", 0, 8)) is nn.BatchNorm2d


def test_the_ranks_report_the_same_and_rank_0_alone_writes(work):
    losses = [re.findall(r"^epoch: (\d) step: 6, loss is (\S+)$", log(work, "run", rank), re.M) for rank in (0, 1)]
    assert [epoch for epoch, _ in losses[0]] == ["1", "2", "3", "4"]
    assert losses[0] == losses[1]
    records = read_metrics(work / "run" / "metrics.jsonl")
    assert [(record["kind"], record["epoch"]) for record in records] == [
        *(("pretrain", epoch) for epoch in (1, 2, 3, 4)), ("monitor", 4)]
    settings = yaml.safe_load((work / "run" / "config.yaml").read_text())
    assert settings["world_size"] == settings["settings"]["device_num"] == 2
    assert settings["settings"]["learning_rate"] == pytest.approx(9e-4 * (16 / 1024) ** 0.5)  # of the global batch
    assert "rank 1 of 2" in log(work, "run", 1)
    assert "of 2 x 8 images" in log(work, "run", 0)
    assert "a loss of about 6.87;" in log(work, "run", 0)  # 2 ln(2 * 16 - 1)
    names = {"checkpoint", "config.yaml", "log", "metrics.jsonl"}
    assert {path.name for path in (work / "run").iterdir()} == names


# --- bad luck ---

@pytest.fixture(scope="module")
def killed(work):
    """``work`` with a run ``killed``, whose rank 1 was killed in the second epoch, and what the launcher said."""
    process = start(work, "killed")
    deadline = time.monotonic() + 120
    while not (work / "killed" / "checkpoint" / "checkpoint_simclr-1.ckpt").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    victims = [process_of_rank(rank, str(work / "killed")) for rank in (0, 1)]
    os.kill(victims[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=30)  # the job ends within 30 s
    assert not any(is_alive(victim) for victim in victims)
    assert not (work / "killed" / "checkpoint" / "checkpoint_simclr-4.ckpt").exists()
    shutil.copytree(work / "killed", work / "fewer", symlinks=True)
    return work, process.returncode, errors


def test_a_killed_rank_ends_the_job_and_is_named(killed):
    _, status, errors = killed
    assert status == 137
    assert errors.startswith(f"{LAUNCHER}: rank 1 was killed by signal 9")


def test_a_killed_run_resumes_to_the_same_weights(killed):
    work, _, _ = killed
    shutil.rmtree(work / "killed.launch")
    finish(start(work, "killed", "--resume", "True"))
    whole, resumed = (parameters(work / name / "checkpoint") for name in ("run", "killed"))
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)


def test_a_run_resumes_on_another_number_of_devices(killed):
    """One process goes on with the global batch of the two."""
    work, _, _ = killed
    resume = ("train.py", "--resume", "--train_dataset_path", "data", "--train_output_path", "fewer")
    result = start_script(*resume, cwd=work)
    assert result.returncode == 0, result.stderr
    assert "epochs of 6 steps of 16 images" in result.stdout
    assert re.findall(r"^epoch: (\d) step: 6", result.stdout, re.M)[-1] == "4"
    mine, theirs = (parameters(work / name / "checkpoint") for name in ("fewer", "run"))
    assert mine["global_step"] == theirs["global_step"] == 24
    refused(start_script(*resume, "--batch_size", "8", cwd=work),
            "--batch_size: got 8, but .* was trained with 16 images per step, 16 on each of 1 devices")


def test_a_rank_that_cannot_see_the_data(work):
    """As on a machine where the data is not: every rank ends, and says what is wrong where."""
    python = work / "blind_python"
    python.write_text(f"""#!/bin/sh
if [ "$MS_ROLE" = MS_WORKER ] && [ "$RANK_ID" = 1 ]; then
    set -- "$@" --train_dataset_path /nowhere
fi
exec {sys.executable} "$@"
""")
    python.chmod(0o755)
    process = start(work, "blind", PYTHON=str(python))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    message = "--train_dataset_path: /nowhere is not a folder"
    assert message in errors
    assert f"train.py: rank 1: {message}" in log(work, "blind", 0)
    assert f"train.py: {message}" in log(work, "blind", 1)
    assert "Traceback" not in errors + log(work, "blind", 0) + log(work, "blind", 1)
    assert not (work / "blind").exists()


def test_a_table_of_eight_for_four_processes(work):
    table = ROOT / "tests" / "rank_tables" / "8p.json"
    result = start_script("train.py", "--run_distribute", "True", "--device_target", "Ascend", cwd=work, timeout=30,
                        env={"RANK_TABLE_FILE": str(table), "RANK_SIZE": "4", "RANK_ID": "0", "DEVICE_ID": "0"})
    refused(result, "RANK_TABLE_FILE: .*8p.json has 8 devices, but 4 processes were started")


# --- linear_eval.py ---

def run_with_two(work, script, *flags):
    """Run a script that takes an encoder on two ranks, and return the command."""
    command = common.msrun(2, work / f"{script}.logs") + [
        str(ROOT / script), "--run_distribute", "True", "--device_target", "CPU", "--train_dataset_path", "data",
        "--encoder_checkpoint_path", "run/checkpoint/latest", "--batch_size", "8", *flags]
    result = subprocess.run([*command, "--train_output_path", "together"], cwd=work, capture_output=True, text=True,
                            timeout=120, env={**os.environ, "PATH": common.own_path()})
    assert result.returncode == 0, result.stderr
    return command


def test_fine_tuning_gives_one_network(work):
    """Also where the ranks have batch-norm statistics of their own: what is judged is what is kept."""
    run_with_two(work, "finetune.py", "--epoch_size", "2", "--label_fraction", "0.5", "--sync_bn", "False")
    records = read_metrics(work / "together" / "metrics.jsonl")
    assert [record["kind"] for record in records] == ["finetune", "finetune", "finetune_eval"]
    assert "(50 images, 5 of each class, drawn by the seed), 2 epochs of 16 images" in records[-1]["protocol"]
    place = work / "together" / "finetune" / "pretrained-0.5"
    result = start_script(
        "linear_eval.py", "--encoder_checkpoint_path", place / "encoder.ckpt", "--pre_classifier_checkpoint_path",
        place / "linear_classifier.ckpt", "--train_dataset_path", "data", "--train_output_path", "again", cwd=work)
    assert result.returncode == 0, result.stderr
    assert read_metrics(work / "again" / "metrics.jsonl")[-1]["confusion"] == records[-1]["confusion"]
    shutil.rmtree(work / "together")


def test_linear_evaluation_shares_the_images(work):
    command = run_with_two(work, "linear_eval.py", "--epoch_size", "3")
    alone = start_script("linear_eval.py", *command[command.index("--device_target"):], "--train_output_path", "alone",
                       cwd=work)
    assert alone.returncode == 0, alone.stderr
    for split, count in (("train", 100), ("test", 37)):
        (mine,), (theirs,) = ([np.load(file) for file in (work / name / "features").glob(f"{split}-*.npy")]
                              for name in ("together", "alone"))
        assert len(mine) == count
        assert np.allclose(mine, theirs, atol=1e-6)
    records = [read_metrics(work / name / "metrics.jsonl")[-1] for name in ("together", "alone")]
    assert records[0]["images"] == 37
    assert records[0]["confusion"] == records[1]["confusion"]
