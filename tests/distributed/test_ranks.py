"""Several processes on the CPU, for real: what they compute, what they write, and what becomes of bad luck."""
import argparse
import os
import re
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import equivalence
import numpy as np
import pytest
import yaml
from distributed.jobs import (
    LAUNCHER,
    log,
    outcome,
    process_of_rank,
    start_launcher,
    state_of,
    two_processes,
    waiting_for,
)
from helpers import call_script, done, equal, features_of, of_kind, refused, values, write_cifar
from mindspore import nn, ops

import train
from src.distributed import collectives
from src.distributed.process_group import Process
from src.layers.ascend_batch_norm import AscendBatchNorm
from src.layers.batch_norm import GlobalBatchNorm, batch_norm
from src.run import inputs, records
from src.training import beginning, loop

pytestmark = pytest.mark.long

SMALL = ("--encoder", "resnet18", "--width_multiplier", "0.0625", "--batch_size", "8", "--projection_dimension", "8",
         "--head_batch_norm", "True", "--epoch_size", "4")


def other_data_for_rank_1(folder, data):
    """Return the place of a Python that takes its data from the folder ``data`` where it is rank 1."""
    python = folder / f"python_{data.name}"
    python.write_text(f"""#!/bin/sh
if [ "$MS_ROLE" = MS_WORKER ] && [ "$RANK_ID" = 1 ]; then
    set -- "$@" --train_dataset_path {data}
fi
exec {sys.executable} "$@"
""")
    python.chmod(0o755)
    return str(python)


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Three launches at once, which wait for each other more than they work, in a folder with a small CIFAR-10.

    ``run`` goes to its end; of ``killed`` rank 1 is killed in the second epoch, and ``fewer`` is a copy of what it has
    left; rank 1 of ``blind`` does not see the data. Gives the folder, and what became of each.
    """
    folder = tmp_path_factory.mktemp("distributed")
    write_cifar(folder / "data")
    processes = {name: start_launcher(folder, name, *SMALL) for name in ("killed", "run")}
    processes["blind"] = start_launcher(folder, "blind", *SMALL,
                                        PYTHON=other_data_for_rank_1(folder, Path("/nowhere")))
    try:
        waiting_for((folder / "killed" / "checkpoint" / "checkpoint_simclr-1.ckpt").exists, processes["killed"])
        victims = [process_of_rank(rank, "train.py", str(folder / "killed")) for rank in (0, 1)]
        os.kill(victims[1], signal.SIGKILL)
        outcomes = {"killed": outcome(processes["killed"], 30)}  # the job ends within 30 s
        assert not any(state_of(victim) for victim in victims)
        shutil.copytree(folder / "killed", folder / "fewer", symlinks=True)
        shutil.rmtree(folder / "killed.launch")
        return folder, {**outcomes, **{name: outcome(processes[name]) for name in ("run", "blind")}}
    finally:
        for process in processes.values():
            process.terminate()  # nothing happens where it has ended


@pytest.fixture(scope="module")
def work(launched):
    """The folder, with a finished run of two processes in ``run``."""
    folder, outcomes = launched
    status, out, errors = outcomes["run"]
    assert status == 0, out + errors
    return folder


# --- what they compute ---

def test_two_processes_compute_what_one_does(tmp_path):
    """Loss, every gradient, batch-norm statistics and weights after 3 steps; see benchmarks/equivalence.py."""
    options = argparse.Namespace(encoder="resnet18", width_multiplier=0.0625, global_batch=16, steps=3, optimizer="SGD",
                                 seeds=[0], smooth="True")
    with ThreadPoolExecutor(2) as pool:  # processes that wait for each other more than they work
        found = equivalence.summary(*pool.map(
            lambda processes: equivalence.run_processes(options, processes, tmp_path), (2, 1)))
    for kind, reach in equivalence.REACH.items():
        assert found[kind]["worst"] < reach, found


class Built(Exception):
    """The network and the loss are built, and that is enough."""


# The collectives of one of two ranks that have the same.
ALIKE = SimpleNamespace(AllGather=lambda: lambda value: ops.concat([value, value]),
                        AllReduce=lambda: lambda value: 2 * value)


@pytest.mark.parametrize("across, synchronised", [("True", "True"), ("False", "False")])
def test_what_is_across_devices_can_be_chosen(monkeypatch, tmp_path, across, synchronised):
    built = []

    def stop(model, loss, *_):
        built.extend((model, loss))
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "prepare", lambda given: Process("CPU", 1, 2))
    monkeypatch.setattr(collectives, "ops", ALIKE)
    for module in (collectives, inputs, beginning):
        monkeypatch.setattr(module, "share", lambda value, *_: value)
    monkeypatch.setattr(loop, "learner_of", stop)
    call_script("train.py", *SMALL, "--train_dataset_path", write_cifar(tmp_path / "data"),
                "--cross_device_negatives", across, "--sync_bn", synchronised, "--views", "3", cwd=tmp_path)
    model, loss = built
    assert (loss.rank, loss.world_size) == ((1, 2) if across == "True" else (0, 1))
    assert loss.views_per_image == 3
    assert isinstance(model.encoder.bn1, GlobalBatchNorm) is (synchronised == "True")
    assert isinstance(model.projection_head.bn1, GlobalBatchNorm) is (synchronised == "True")


def test_batch_norm_is_of_all_ranks_where_there_are_several():
    assert isinstance(batch_norm(True, Process("Ascend", 0, 8))(4), AscendBatchNorm)
    assert batch_norm(True, Process("Ascend")) is batch_norm(False, Process("GPU", 0, 8)) is nn.BatchNorm2d


def test_the_ranks_report_the_same_and_rank_0_alone_writes(work):
    losses = [re.findall(r"^epoch: (\d) step: 6, loss is (\S+)$", log(work, "run", rank), re.M) for rank in (0, 1)]
    assert [epoch for epoch, _ in losses[0]] == ["1", "2", "3", "4"]
    assert losses[0] == losses[1]
    written = records.read(work / "run" / "metrics.jsonl")
    assert [(record["kind"], record["epoch"]) for record in written] == [
        *(("pretrain", epoch) for epoch in (1, 2, 3, 4)), ("monitor", 4)]
    assert 0 <= written[-1]["knn_accuracy"] <= 1
    settings = yaml.safe_load((work / "run" / "config.yaml").read_text())
    assert settings["world_size"] == 2
    assert settings["settings"]["device_num"] == 2  # what the launcher has promised
    assert settings["settings"]["learning_rate"] == pytest.approx(9e-4 * (16 / 1024) ** 0.5)  # of the global batch
    assert "rank 1 of 2" in log(work, "run", 1)
    assert "of 2 x 8 images" in log(work, "run", 0)
    assert "a loss of about 6.87;" in log(work, "run", 0)  # 2 ln(2 * 16 - 1)
    names = {"checkpoint", "config.yaml", "log", "metrics.jsonl", "report.html", "views.png"}
    assert {path.name for path in (work / "run").iterdir()} == names


# --- bad luck ---

@pytest.fixture(scope="module")
def resumed(work):
    """The run ``killed`` once more, to its end, with a rank 1 that does not see the test images."""
    assert not (work / "killed" / "checkpoint" / "checkpoint_simclr-4.ckpt").exists()
    (work / "untested").mkdir()
    (work / "untested" / "data_batch_1.bin").symlink_to(work / "data" / "data_batch_1.bin")
    python = other_data_for_rank_1(work, work / "untested")
    status, out, errors = outcome(start_launcher(work, "killed", *SMALL, "--resume", "True", PYTHON=python))
    assert status == 0, out + errors


def test_a_killed_rank_ends_the_job_and_is_named(launched):
    status, _, errors = launched[1]["killed"]
    assert status == 137
    assert errors.startswith(f"{LAUNCHER}: rank 1 was killed by signal 9")


def test_a_killed_run_resumes_to_the_same_weights(work, resumed):
    equal(values(work / "run"), values(work / "killed"))


def test_nobody_waits_for_a_rank_without_test_images(work, resumed):
    """Every rank trains on, without kNN; the rest of the monitor is as it was."""
    warning = "warning: no kNN accuracy during the run, for want of test images"
    assert f"{warning} (they are not the same on every rank: give every machine the same)" in log(work, "killed", 0)
    assert f"{warning} (--train_dataset_path: no test files" in log(work, "killed", 1)
    (found,), (expected,) = (of_kind("monitor", work / name) for name in ("killed", "run"))
    assert found["knn_accuracy"] is None
    for name in ("alignment", "uniformity", "embedding_std", "effective_rank"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5)


def test_a_run_resumes_on_another_number_of_devices(work):
    """One process goes on with the global batch of the two."""
    resume = ("train.py", "--resume", "--train_dataset_path", "data", "--train_output_path", "fewer")
    said = done(call_script(*resume, cwd=work))
    assert "epochs of 6 steps of 16 images" in said
    assert re.findall(r"^epoch: (\d) step: 6", said, re.M)[-1] == "4"
    mine, theirs = (values(work / name) for name in ("fewer", "run"))
    assert mine["global_step"] == theirs["global_step"] == 24
    refused(call_script(*resume, "--batch_size", "8", cwd=work),
            "--batch_size: got 8, but .* was trained with 16 images per step, 16 on each of 1 devices")


def test_a_rank_that_cannot_see_the_data(launched):
    """As on a machine where the data is not: every rank ends, and says what is wrong where."""
    work, outcomes = launched
    status, _, errors = outcomes["blind"]
    assert status == 2
    message = "--train_dataset_path: /nowhere is not a folder"
    assert message in errors
    assert f"train.py: rank 1: {message}" in log(work, "blind", 0)
    assert f"train.py: {message}" in log(work, "blind", 1)
    assert "Traceback" not in errors + log(work, "blind", 0) + log(work, "blind", 1)
    assert not (work / "blind").exists()


# --- linear_eval.py and finetune.py ---

ENCODER = ("--device_target", "CPU", "--train_dataset_path", "data", "--encoder_checkpoint_path",
           "run/checkpoint/latest", "--batch_size", "8")


def test_fine_tuning_gives_one_network(work):
    """Also where the ranks have batch-norm statistics of their own: what is judged is what is kept."""
    flags = ("--run_distribute", "True", "--epoch_size", "2", "--label_fraction", "0.5", "--sync_bn", "False",
             "--train_output_path", "tuned")
    with two_processes(work / "tuned.launch", "finetune.py", *ENCODER, *flags, cwd=work) as (process, _):
        status, said, _ = outcome(process)
    assert status == 0, said
    folder = work / "tuned"
    written = records.read(folder / "metrics.jsonl")
    assert [record["kind"] for record in written] == ["finetune", "finetune", "finetune_eval"]
    assert "(50 images, 5 of each class, drawn by the seed), 2 epochs of 16 images" in written[-1]["protocol"]
    settings = yaml.safe_load((folder / "finetune_config.yaml").read_text())
    assert (settings["world_size"], settings["settings"]["device_num"]) == (2, None)  # nobody has promised anything
    place = folder / "finetune" / "pretrained-0.5"
    done(call_script("linear_eval.py", "--encoder_checkpoint_path", place / "encoder.ckpt",
                     "--pre_classifier_checkpoint_path", place / "linear_classifier.ckpt", "--train_dataset_path",
                     "data", "--train_output_path", "again", cwd=work))
    (again,) = of_kind("linear_eval", work / "again")
    assert again["confusion"] == written[-1]["confusion"]


def test_linear_evaluation_shares_the_images_and_not_the_wait(work):
    """Rank 1 ends as soon as the representations are there, whatever rank 0 does then, and rank 0 ends well alone."""
    flags, folder = (*ENCODER, "--epoch_size", "3"), work / "together"
    with two_processes(work / "together.launch", "linear_eval.py", "--run_distribute", "True", *flags,
                       "--train_output_path", "together", cwd=work) as (process, events):
        waiting_for(lambda: list((folder / "features").glob("test-*.npz")), process)
        first = process_of_rank(0, "linear_eval.py", "together")
        os.kill(first, signal.SIGSTOP)
        waiting_for(lambda: "end 1 0\n" in events.read_text(), process, 30)
        assert state_of(first) == "T"
        assert "Average accuracy" not in (folder / "eval_log").read_text()
        os.kill(first, signal.SIGCONT)
        status, said, _ = outcome(process)
        assert status == 0, said
        assert "end 0 0\n" in events.read_text()
    done(call_script("linear_eval.py", *flags, "--train_output_path", "alone", cwd=work))
    for split, count in (("train", 100), ("test", 37)):
        mine, theirs = (features_of(place, split) for place in (folder, work / "alone"))
        assert len(mine) == count
        assert np.allclose(mine, theirs, atol=1e-6)
    (together,), (alone,) = (of_kind("linear_eval", place) for place in (folder, work / "alone"))
    assert together["images"] == 37
    assert together["confusion"] == alone["confusion"]
