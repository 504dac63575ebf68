"""Mixed precision, as far as a CPU goes.

MindSpore's CPU has no float16 convolution. So the steps here either compute in float32, where a loss scale that is
a power of two must change nothing, or with ``RoundedConv``, whose inputs, weights and outputs are float16 and whose
arithmetic is float32.
"""
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from mindspore import Parameter, Tensor, amp, nn
from mindspore import dtype as mstype
from mindspore.common.initializer import HeNormal

from src import callbacks, checkpoint, mixed_precision, resnet
from src.batch_norm import GlobalBatchNorm
from src.callbacks import OverflowReport
from src.errors import DivergedError, UserError
from src.flags import TrainConfig
from src.nt_xent import NTXent
from src.optimizer import build_optimizer
from src.pretraining import build_learner
from src.process_group import Process
from src.resnet import build_encoder
from src.simclr_model import ProjectionHead, SimCLR
from src.train_step import ScaledTrainStep, TrainStep

sys.path.append(str(ROOT / "benchmarks"))
import common

BATCH = 8


class RoundedConv(nn.Conv2d):
    """float16 inputs and weights -> float16 outputs, computed in float32; so are its gradients."""

    def construct(self, x):
        weight = self.weight.astype(x.dtype).astype(mstype.float32)
        return self.conv2d(x.astype(mstype.float32), weight).astype(x.dtype)


@pytest.fixture
def float16_convolution(monkeypatch):
    def conv(inputs, outputs, kernel, stride=1):
        return RoundedConv(inputs, outputs, kernel, stride, pad_mode="pad", padding=kernel // 2, has_bias=False,
                           weight_init=HeNormal(mode="fan_out", nonlinearity="relu"))
    monkeypatch.setattr(resnet, "conv", conv)


def network(norm=nn.BatchNorm2d):
    encoder = build_encoder("resnet18", 0.0625, norm=norm)
    return SimCLR(encoder, ProjectionHead(encoder.features, 16, norm))


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
    plain, model = network(norm), network(norm)
    mixed_precision.in_float16(model, level)
    assert [(p.name, p.shape, p.dtype) for p in model.get_parameters()] == [
        (p.name, p.shape, p.dtype) for p in plain.get_parameters()]
    assert {p.dtype for p in model.get_parameters()} == {mstype.float32}


@pytest.mark.parametrize("level, norm, norm_in_float32", [
    ("O2", nn.BatchNorm2d, True), ("O2", GlobalBatchNorm, True),
    ("O3", nn.BatchNorm2d, False), ("O3", GlobalBatchNorm, True)])
def test_what_is_cast(level, norm, norm_in_float32):
    model = network(norm)
    mixed_precision.in_float16(model, level)
    cells = [cell for _, cell in model.cells_and_names()]
    norms = [cell for cell in cells if isinstance(cell, nn.BatchNorm2d)]
    weighted = [cell for cell in cells if isinstance(cell, (nn.Conv2d, nn.Dense))]
    assert len(norms) == 21 and len(weighted) == 22
    assert {(cell.fp16, cell.fp32) for cell in weighted} == {(True, False)}
    assert {(cell.fp16, cell.fp32) for cell in norms} == {(not norm_in_float32, norm_in_float32)}


# --- steps ---

@pytest.mark.parametrize("level, norm", [("O2", nn.BatchNorm2d), ("O2", GlobalBatchNorm), ("O3", GlobalBatchNorm)])
def test_steps_in_float16_follow_those_in_float32(float16_convolution, level, norm):
    """The weights of both are the same at the start; the losses of 15 steps go the same way."""
    models = network(norm), network(norm)
    copy_weights(*models)
    scaler = mixed_precision.loss_scaler()
    plain = TrainStep(models[0], NTXent(BATCH), optimizer_for(models[0]))
    mixed = ScaledTrainStep(mixed_precision.in_float16(models[1], level), NTXent(BATCH), optimizer_for(models[1]),
                            scaler)
    for step in (plain, mixed):
        step.set_train()
    losses = np.array([[float(step(views()).asnumpy()) for step in (plain, mixed)] for _ in range(15)])
    assert losses[0, 0] != losses[0, 1]  # rounded to float16 on its way
    assert np.allclose(losses[0, 0], losses[0, 1], rtol=5e-3)
    assert np.allclose(losses[:, 0], losses[:, 1], rtol=5e-2)
    assert losses[-1, 1] < losses[0, 1] - 1
    assert int(mixed.optimizer.global_step.asnumpy()[0]) == 15


def test_float16_gradients_overflow_and_the_scale_recovers(float16_convolution):
    """With a scale that is far too large, nothing happens to the weights until it has come down."""
    model, scaler = network(), amp.DynamicLossScaler(2.0**30, 2, 2000)
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
    assert not np.array_equal(before["encoder.conv1.weight"], after["encoder.conv1.weight"])


@pytest.mark.parametrize("name", ["Adam", "SGD", "LARS"])
def test_the_scale_changes_nothing(name):
    """In float32 a scale of 2^16 is exact: weights, statistics and optimizer are those of a plain step to the bit."""
    models = network(), network()
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
    model, scaler = network(), mixed_precision.loss_scaler()
    step = ScaledTrainStep(model, NTXent(BATCH), optimizer_for(model), scaler)
    scales = []
    for _ in range(7):
        step(views())
        scales.append(float(scaler.scale_value.asnumpy()) / mixed_precision.FIRST_SCALE)
    assert scales == [1, 1, 2, 2, 2, 4, 4]


def test_ranks_agree_on_an_overflow_of_one(tmp_path):
    """Rank 1 overflows in step 2: no rank updates there, and all halve the scale."""
    command = common.msrun(2, tmp_path / "logs") + [str(ROOT / "tests" / "overflow_on_one_rank.py"),
                                                    str(tmp_path / "found")]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120,
                            env={**os.environ, "PATH": common.own_path()})
    logs = "".join(file.read_text() for file in (tmp_path / "logs").glob("worker_*.log"))
    assert result.returncode == 0, result.stderr + logs
    # weight, scale, updates: by 0.25 x momentum's 1 and 1.9
    expected = [[0.75, 2**16, 1], [0.75, 2**15, 1], [pytest.approx(0.275), 2**15, 2]]
    for rank in (0, 1):
        assert json.loads((tmp_path / f"found{rank}").read_text()) == expected


# --- a run ---

def test_a_resumed_run_has_the_same_weights_and_scale(float16_convolution, tmp_path):
    config = TrainConfig(encoder="resnet18", width_multiplier=0.0625, batch_size=BATCH, epoch_size=2, optimizer="LARS",
                         learning_rate=1.0, warmup_epochs=0.0, projection_dimension=16, amp_level="O2")
    whole, resumed = (build_learner(config, 4, Process("GPU")) for _ in range(2))
    whole.scaler.scale_value.set_data(Tensor(2.0**40, mstype.float32))  # some overflows, before and after the save
    whole.step.set_train()
    for seed in range(8):
        if seed == 4:
            file = checkpoint.save_epoch(tmp_path, "net", 1, whole.state(), {"kind": "simclr"}, 1)
        whole.step(views(seed))
    checkpoint.load_into(resumed.state(), checkpoint.load(str(file), "simclr", "resume").parameters, "x")
    resumed.step.set_train()
    for seed in range(4, 8):
        resumed.step(views(seed))
    pairs = list(zip(whole.state(), resumed.state()))
    assert {"loss_scale", "loss_scale_counter", "velocity.encoder.conv1.weight"} <= {p.name for p, _ in pairs}
    for mine, theirs in pairs:
        assert mine.name == theirs.name
        assert np.array_equal(mine.asnumpy(), theirs.asnumpy()), mine.name


@pytest.mark.parametrize("level", ["O2", "O3"])
def test_not_on_the_cpu(run, tmp_path, level):
    with pytest.raises(UserError, match=f"--amp_level: got {level} on the CPU"):
        mixed_precision.check(level, "CPU")
    mixed_precision.check(level, "Ascend")
    mixed_precision.check("O0", "CPU")


def test_a_script_refuses_it_before_anything_is_written(run, tmp_path):
    result = run("train.py", "--amp_level", "O2", "--device_target", "CPU")
    assert result.returncode == 2
    assert result.stderr.startswith("train.py: --amp_level: got O2 on the CPU")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


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
