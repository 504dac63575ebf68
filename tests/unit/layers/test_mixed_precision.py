"""Mixed precision. MindSpore's CPU computes in float32 what it has no float16 kernel for, and rounds the result."""
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import ROOT
from mindspore import Parameter, Tensor, amp, nn
from mindspore import dtype as mstype
from small_network import SmallNetwork

from src.common.errors import DivergedError
from src.layers import mixed_precision
from src.layers.batch_norm import GlobalBatchNorm
from src.nt_xent import NTXent
from src.optimizer import build_optimizer
from src.run import checkpoint
from src.simclr_model import simclr_of
from src.training import callbacks
from src.training.callbacks import OverflowReport
from src.training.loop import Learner
from src.training.step import ScaledTrainStep, TrainStep

sys.path.append(str(ROOT / "benchmarks"))
import common

BATCH = 8
SETTINGS = {"encoder": "resnet18", "width_multiplier": 0.0625, "dataset_name": "shapes", "normalize": False,
            "projection_dimension": 16, "head_batch_norm": True}


def views(seed=0):
    return Tensor(np.random.default_rng(seed).integers(0, 256, (2 * BATCH, 3, 32, 32), dtype=np.uint8))


def copy_weights(source, target):
    for theirs, mine in zip(source.get_parameters(), target.get_parameters()):
        assert theirs.name == mine.name
        mine.set_data(Tensor(theirs.asnumpy()))


def state(step):
    parameters = [*step.model.get_parameters(), *step.optimizer.get_parameters()]
    return {parameter.name: parameter.asnumpy().copy() for parameter in parameters}


def optimizer_for(model, name="Adam", rate=3e-3, steps=50):
    return build_optimizer(name, model.trainable_params(), np.full(steps, rate, np.float32), 0.0)


# --- what is cast ---

@pytest.mark.parametrize("level", ["O2", "O3"])
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, GlobalBatchNorm])
def test_parameters_keep_names_and_types(level, norm):
    plain, model = (simclr_of(SETTINGS, norm) for _ in range(2))
    mixed_precision.in_float16(model, level)
    assert [(p.name, p.shape, p.dtype) for p in model.get_parameters()] == [
        (p.name, p.shape, p.dtype) for p in plain.get_parameters()]
    assert {p.dtype for p in model.get_parameters()} == {mstype.float32}


@pytest.mark.parametrize("level, norm, norm_in_float32", [
    ("O2", nn.BatchNorm2d, True), ("O2", GlobalBatchNorm, True), ("O2", nn.SyncBatchNorm, True),
    ("O3", nn.BatchNorm2d, False), ("O3", GlobalBatchNorm, True)])
def test_what_is_cast(level, norm, norm_in_float32):
    model = simclr_of(SETTINGS, norm)
    mixed_precision.in_float16(model, level)
    cells = [cell for _, cell in model.cells_and_names()]
    norms = [cell for cell in cells if isinstance(cell, norm)]
    weighted = [cell for cell in cells if isinstance(cell, (nn.Conv2d, nn.Dense))]
    assert len(norms) == 21 and len(weighted) == 22
    assert {(cell.fp16, cell.fp32) for cell in weighted} == {(True, False)}
    assert {(cell.fp16, cell.fp32) for cell in norms} == {(not norm_in_float32, norm_in_float32)}


# --- steps ---

@pytest.mark.parametrize("level", ["O2", "O3"])
def test_steps_in_float16_follow_those_in_float32(level):
    """From the same weights, the losses of 12 updates go the same way."""
    models = SmallNetwork(), SmallNetwork()
    copy_weights(*models)
    plain = TrainStep(models[0], NTXent(BATCH), optimizer_for(models[0]))
    mixed = ScaledTrainStep(mixed_precision.in_float16(models[1], level), NTXent(BATCH), optimizer_for(models[1]),
                            mixed_precision.loss_scaler())
    losses = [], []
    for step, found in zip((plain, mixed), losses):
        step.set_train()
        while len(found) < 12:
            loss = float(step(views()).asnumpy())
            if int(step.optimizer.global_step.asnumpy()[0]) > len(found):  # else the gradients overflowed
                found.append(loss)
    assert losses[0][0] != losses[1][0]  # rounded to float16 on its way
    assert losses[1][0] == pytest.approx(losses[0][0], rel=2e-3)
    assert losses[1] == pytest.approx(losses[0], rel=5e-2)
    assert losses[1][-1] < losses[1][0] - 1


def test_float16_gradients_overflow_and_the_scale_recovers():
    """With a scale that is far too large, nothing happens to the weights until it has come down."""
    model, scaler = SmallNetwork(), amp.DynamicLossScaler(2.0**30, 2, 2000)
    step = ScaledTrainStep(mixed_precision.in_float16(model, "O2"), NTXent(BATCH), optimizer_for(model), scaler)
    step.set_train()
    trainable = {parameter.name for parameter in model.trainable_params()}
    for overflows in range(1, 30):
        before = state(step)
        assert np.isfinite(step(views()).asnumpy())
        if int(step.optimizer.global_step.asnumpy()[0]):
            break
        after = state(step)
        assert all(np.array_equal(before[name], after[name]) for name in before
                   if name in trainable or name not in {p.name for p in model.get_parameters()})
        assert scaler.scale_value.asnumpy() == 2.0**(30 - overflows)
    assert 2 < overflows < 29
    assert scaler.scale_value.asnumpy() == 2.0**(31 - overflows)  # the last one did not overflow
    after = state(step)
    assert all(np.isfinite(value).all() for value in after.values())
    assert not np.array_equal(before["conv1.weight"], after["conv1.weight"])


@pytest.mark.parametrize("name", ["Adam", "SGD", "LARS"])
def test_the_scale_changes_nothing(name):
    """In float32 a scale of 2^16 is exact: weights, statistics and optimizer are those of a plain step to the bit."""
    models = SmallNetwork(), SmallNetwork()
    copy_weights(*models)
    plain = TrainStep(models[0], NTXent(BATCH), optimizer_for(models[0], name))
    scaled = ScaledTrainStep(models[1], NTXent(BATCH), optimizer_for(models[1], name), mixed_precision.loss_scaler())
    for step in (plain, scaled):
        step.set_train()
        for seed in range(4):
            loss = step(views(seed))
    expected, found = state(plain), state(scaled)
    assert float(loss.asnumpy()) > 1
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert np.array_equal(found[key], value), key
    assert np.array_equal(plain.totals.asnumpy(), scaled.totals.asnumpy())


def test_the_scale_is_doubled_after_many_steps(monkeypatch):
    monkeypatch.setattr(mixed_precision, "GROWTH_INTERVAL", 3)
    model, scaler = SmallNetwork(), mixed_precision.loss_scaler()
    step = ScaledTrainStep(model, NTXent(BATCH), optimizer_for(model), scaler)
    scales = []
    for _ in range(7):
        step(views())
        scales.append(float(scaler.scale_value.asnumpy()) / mixed_precision.FIRST_SCALE)
    assert scales == [1, 1, 2, 2, 2, 4, 4]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What the two ranks of tests/mixed_precision_ranks.py find."""
    folder = tmp_path_factory.mktemp("ranks")
    command = common.msrun(2, folder / "logs") + [str(ROOT / "tests" / "mixed_precision_ranks.py"),
                                                  str(folder / "found")]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120,
                            env={**os.environ, "PATH": common.own_path()})
    logs = "".join(file.read_text() for file in (folder / "logs").glob("worker_*.log"))
    assert result.returncode == 0, result.stderr + logs
    return [json.loads((folder / f"found{rank}").read_text()) for rank in (0, 1)]


def test_ranks_agree_on_an_overflow_of_one(ranks):
    """Rank 1 overflows in step 2: no rank updates there, and both halve the scale."""
    for found in ranks:
        # weight, scale, updates; the steps are 0.25 x momentum's 1 and 1.9
        assert found["overflow"] == [[0.75, 2**16, 1], [0.75, 2**15, 1], [pytest.approx(0.275), 2**15, 2]]


@pytest.mark.parametrize("level", ["O2", "O3"])
def test_global_batch_norm_in_mixed_precision(ranks, level):
    assert ranks[0] == ranks[1]
    assert ranks[0][level] != ranks[0]["O0"]
    assert ranks[0][level] == pytest.approx(ranks[0]["O0"], rel=2e-2)


# --- a run ---

def test_a_resumed_run_has_the_same_weights_and_scale(tmp_path):
    def learner():
        model, scaler = SmallNetwork(), mixed_precision.loss_scaler()
        optimizer = optimizer_for(model, "LARS", 1.0)
        step = ScaledTrainStep(mixed_precision.in_float16(model, "O2"), NTXent(BATCH), optimizer, scaler)
        return Learner(model, optimizer, step, np.empty(0), scaler)

    whole, resumed = learner(), learner()
    whole.scaler.scale_value.set_data(Tensor(2.0**24, mstype.float32))  # it overflows before and after the save
    whole.step.set_train()
    for seed in range(8):
        if seed == 4:
            saved_scale = float(whole.scaler.scale_value.asnumpy())
            file = checkpoint.save_epoch(tmp_path, "net", 1, whole.state(), {"kind": "simclr"}, 1)
        whole.step(views(seed))
    checkpoint.load_into(resumed.state(), checkpoint.load(str(file), "simclr", "resume").parameters, "x")
    resumed.step.set_train()
    for seed in range(4, 8):
        resumed.step(views(seed))
    assert float(whole.scaler.scale_value.asnumpy()) < saved_scale < 2**24
    pairs = list(zip(whole.state(), resumed.state()))
    assert {"loss_scale", "loss_scale_counter", "velocity.conv1.weight"} <= {p.name for p, _ in pairs}
    for mine, theirs in pairs:
        assert mine.name == theirs.name
        assert np.array_equal(mine.asnumpy(), theirs.asnumpy()), mine.name


def test_a_run_in_mixed_precision(run, tmp_path):
    small = ("--dataset_name", "shapes", "--num_samples", "64", "--encoder", "resnet18", "--width_multiplier", "0.0625",
             "--projection_dimension", "8", "--train_output_path", "run")
    result = run("train.py", *small, "--batch_size", "32", "--epoch_size", "2", "--amp_level", "O2", "--optimizer",
                 "LARS", "--lr_scaling", "sqrt", "--weight_decay", "1e-6")
    assert result.returncode == 0, result.stderr
    assert "mixed precision O2, loss scale 65536\n" in result.stdout
    found = checkpoint.load(str(tmp_path / "run"), "simclr", "test")
    settings = found.info["settings"]
    assert (settings["amp_level"], settings["lr_scaling"]) == ("O2", "sqrt")
    assert settings["learning_rate"] == pytest.approx(0.075 * 32**0.5)
    assert {"loss_scale", "loss_scale_counter", "velocity.encoder.conv1.weight"} <= found.parameters.keys()
    result = run("train.py", *small, "--resume", "--amp_level", "O0")
    assert result.returncode == 2
    assert "--amp_level: got O0, but " in result.stderr


# --- the report ---

def report(overflows, scale, steps=4):
    updates = Parameter(Tensor(np.array([10], np.int32)), name="global_step")
    context = SimpleNamespace(original_args=lambda: SimpleNamespace(batch_num=steps, cur_epoch_num=1))
    callback = OverflowReport(updates, Tensor(scale, mstype.float32), first_epoch=2)
    callback.on_train_epoch_begin(context)
    updates.set_data(Tensor(np.array([10 + steps - overflows], np.int32)))
    callback.on_train_epoch_end(context)


@pytest.mark.parametrize("overflows, lines", [
    (0, []), (3, ["overflow in 3 of the 4 steps of epoch 3: no update there; loss scale 8 from here on"])])
def test_overflows_are_reported(overflows, lines, caplog, monkeypatch):
    monkeypatch.setattr(callbacks.logger, "propagate", True)
    caplog.set_level("INFO", "simclr")
    report(overflows, 8)
    assert [record.getMessage() for record in caplog.records] == lines


def test_a_run_that_only_overflows_stops():
    report(4, 2)
    with pytest.raises(DivergedError, match="the gradients of every step of epoch 3 overflowed"):
        report(4, 1)
