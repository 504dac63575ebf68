"""Mixed precision. Without a float16 kernel, MindSpore computes in float32 on a CPU and rounds the result."""
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Parameter, Tensor, amp, nn
from mindspore import dtype as mstype
from small_network import SmallNetwork

from src.common.errors import DivergedError
from src.layers import mixed_precision
from src.layers.ascend_batch_norm import AscendBatchNorm
from src.layers.batch_norm import GlobalBatchNorm
from src.layers.encoder_layers import mindspore_layers
from src.nt_xent import NTXent
from src.optimizer import build_optimizer
from src.resnet import build_encoder
from src.run import checkpoint
from src.run.layout import Series
from src.settings.network import Network
from src.simclr_model import SimCLR, build_head
from src.training import callbacks
from src.training.callbacks import OverflowReport
from src.training.loop import learner_of
from src.training.step import ScaledTrainStep, Totals, TrainStep

BATCH = 8
NETWORK = Network("resnet18", 0.0625, projection_dimension=16, head_batch_norm=True)
ascend_norm = partial(AscendBatchNorm, epsilon=1e-5, momentum=0.9, world_size=2)


def views(seed=0):
    return Tensor(np.random.default_rng(seed).integers(0, 256, (2 * BATCH, 3, 32, 32), dtype=np.uint8))


def simclr(norm):
    encoder = build_encoder(NETWORK, mindspore_layers(norm))
    return SimCLR(encoder, build_head(encoder.features, NETWORK, norm))


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

@pytest.mark.parametrize("device, level, norm, norms_in", [
    ("CPU", "O2", nn.BatchNorm2d, "float32"), ("CPU", "O3", nn.BatchNorm2d, "float16"),
    ("CPU", "O3", GlobalBatchNorm, "float32"), ("Ascend", "O2", nn.BatchNorm2d, "no cast"),
    ("Ascend", "O3", ascend_norm, "no cast")])
def test_what_is_cast(monkeypatch, device, level, norm, norms_in):
    """Layers compute in float16, batch norms as given; parameters keep their names and types."""
    monkeypatch.setattr(mixed_precision, "get_context", lambda name: {"device_target": device}[name])
    plain, model = (simclr(norm) for _ in range(2))
    mixed_precision.in_float16(model, level)
    assert [(p.name, p.shape, p.dtype) for p in model.get_parameters()] == [
        (p.name, p.shape, p.dtype) for p in plain.get_parameters()]
    assert {p.dtype for p in model.get_parameters()} == {mstype.float32}
    cells = [cell for _, cell in model.cells_and_names()]
    norms = [cell for cell in cells if isinstance(cell, nn.BatchNorm2d)]
    weighted = [cell for cell in cells if isinstance(cell, (nn.Conv2d, nn.Dense))]
    assert len(norms) == 21 and len(weighted) == 22
    assert {(cell.fp16, cell.fp32) for cell in weighted} == {(True, False)}
    assert {(cell.fp16, cell.fp32) for cell in norms} == {(norms_in == "float16", norms_in == "float32")}


# --- steps ---

@pytest.mark.long
def test_steps_in_float16_follow_steps_in_float32():
    """From the same weights, the losses of 12 updates are nearly the same."""
    models = SmallNetwork(), SmallNetwork()
    copy_weights(*models)
    plain = TrainStep(models[0], NTXent(), optimizer_for(models[0]))
    mixed = ScaledTrainStep(mixed_precision.in_float16(models[1], "O3"), NTXent(), optimizer_for(models[1]),
                            mixed_precision.loss_scaler())
    losses = [], []
    for step, own in zip((plain, mixed), losses):
        step.set_train()
        while len(own) < 12:
            loss = float(step(views()).asnumpy())
            if int(step.optimizer.global_step.asnumpy()[0]) > len(own):  # else the gradients overflowed
                own.append(loss)
    assert losses[0][0] != losses[1][0]  # rounded to float16 on its way
    assert losses[1][0] == pytest.approx(losses[0][0], rel=2e-3)
    assert losses[1] == pytest.approx(losses[0], rel=5e-2)
    assert losses[1][-1] < losses[1][0] - 1


def test_float16_gradients_overflow_and_the_scale_recovers():
    """With a scale that is far too large, the weights do not change until it is small enough."""
    model, scaler = SmallNetwork(), amp.DynamicLossScaler(2.0**30, 2, 2000)
    step = ScaledTrainStep(mixed_precision.in_float16(model, "O2"), NTXent(), optimizer_for(model), scaler)
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


class Steep(nn.Cell):
    """Outputs z -> a loss with the gradient ``slope``, and an accuracy."""

    def __init__(self):
        super().__init__()
        self.slope = Parameter(Tensor(np.array(1, np.float32)), name="slope", requires_grad=False)

    def construct(self, z):
        return (z * self.slope).sum(), z.sum()


@pytest.mark.long
@pytest.mark.parametrize("name", ["Adam", "SGD", "LARS"])
def test_an_overflowed_step_takes_no_learning_rate(name):
    """Six steps, of which the first, third and fourth overflow, are three updates, with the first three rates."""
    rates, steep, flat = [0.5, 0.25, 0.125, 1e3, 1e3, 1e3], 1e38, 1.0  # 1e38 x 2^16 is infinite

    def weights_after(slopes):
        model, loss, scaler = nn.Dense(1, 1, "ones", "zeros"), Steep(), mixed_precision.loss_scaler()
        optimizer = build_optimizer(name, model.trainable_params(), np.array(rates, np.float32), 0.0)
        step, updates = ScaledTrainStep(model, loss, optimizer, scaler), []
        for slope in slopes:
            loss.slope.set_data(Tensor(np.array(slope, np.float32)))
            step(Tensor(np.ones((1, 1), np.float32)))
            count = int(optimizer.global_step.asnumpy()[0])
            assert optimizer.get_lr().asnumpy() == rates[count]  # what the next update takes
            updates.append((count, *(float(parameter.asnumpy().sum()) for parameter in model.trainable_params())))
        totals = Totals(*step.totals.asnumpy())
        assert totals.updates == 3 and totals.gradient_norm == pytest.approx(3 * 2**0.5)  # of weight and bias
        return updates

    plain, scaled = weights_after([flat] * 3), weights_after([steep, flat, steep, steep, flat, flat])
    assert [count for count, *_ in plain] == [1, 2, 3]
    assert len({weight for _, weight, _ in plain}) == 3
    assert scaled == [(0, 1.0, 0.0), plain[0], plain[0], plain[0], plain[1], plain[2]]


@pytest.mark.long
@pytest.mark.parametrize("name", ["SGD", "LARS"])
def test_the_scale_changes_nothing(name):
    """In float32 a scale of 2^16 is exact: weights, statistics and optimizer are the same to the bit without it."""
    models = SmallNetwork(), SmallNetwork()
    copy_weights(*models)
    plain = TrainStep(models[0], NTXent(), optimizer_for(models[0], name))
    scaled = ScaledTrainStep(models[1], NTXent(), optimizer_for(models[1], name), mixed_precision.loss_scaler())
    for step in (plain, scaled):
        step.set_train()
        for seed in range(4):
            loss = step(views(seed))
    expected, actual = state(plain), state(scaled)
    assert float(loss.asnumpy()) > 1
    assert expected.keys() == actual.keys()
    for key, value in expected.items():
        assert np.array_equal(actual[key], value), key
    assert np.array_equal(plain.totals.asnumpy(), scaled.totals.asnumpy())


def test_the_scale_is_doubled_after_many_steps(monkeypatch):
    monkeypatch.setattr(mixed_precision, "GROWTH_INTERVAL", 3)
    model, scaler = SmallNetwork(), mixed_precision.loss_scaler()
    step = ScaledTrainStep(model, NTXent(), optimizer_for(model), scaler)
    scales = []
    for _ in range(7):
        step(views())
        scales.append(float(scaler.scale_value.asnumpy()) / mixed_precision.FIRST_SCALE)
    assert scales == [1, 1, 2, 2, 2, 4, 4]


# --- a run ---

@pytest.mark.long
def test_a_resumed_run_has_the_same_weights_and_scale(tmp_path):
    def learner():
        model = SmallNetwork()
        return learner_of(model, NTXent(), optimizer_for(model, "LARS", 1.0), np.empty(0), "O2")

    whole, resumed, series = learner(), learner(), Series(tmp_path, "net")
    whole.scaler.scale_value.set_data(Tensor(2.0**24, mstype.float32))  # it overflows before and after the save
    whole.step.set_train()
    for seed in range(8):
        if seed == 4:
            saved_scale = float(whole.scaler.scale_value.asnumpy())
            checkpoint.save_epoch(series, 1, whole.state(), {"holds": "simclr", "network": Network("resnet18"),
                                                             "settings": {"dataset_name": "shapes"}}, 1)
        whole.step(views(seed))
    checkpoint.load_into(resumed.state(), checkpoint.load(str(tmp_path), "simclr", "resume").parameters, "x")
    resumed.step.set_train()
    for seed in range(4, 8):
        resumed.step(views(seed))
    assert float(whole.scaler.scale_value.asnumpy()) < saved_scale < 2**24
    pairs = list(zip(whole.state(), resumed.state()))
    assert {"loss_scale", "loss_scale_counter", "velocity.conv1.weight"} <= {p.name for p, _ in pairs}
    for mine, theirs in pairs:
        assert mine.name == theirs.name
        assert np.array_equal(mine.asnumpy(), theirs.asnumpy()), mine.name


# --- the report ---

def report(overflows, scale, steps=4):
    updates = Parameter(Tensor(np.array([10], np.int32)), name="global_step")
    context = SimpleNamespace(original_args=lambda: SimpleNamespace(batch_num=steps, cur_epoch_num=3))
    callback = OverflowReport(updates, Tensor(scale, mstype.float32))
    callback.on_train_epoch_begin(context)
    updates.set_data(Tensor(np.array([10 + steps - overflows], np.int32)))
    callback.on_train_epoch_end(context)


def test_overflows_are_reported(caplog, monkeypatch):
    monkeypatch.setattr(callbacks.logger, "propagate", True)
    caplog.set_level("INFO", "simclr")
    report(0, 8)
    assert not caplog.records
    report(3, 8)
    (record,) = caplog.records
    assert "3 of the 4 steps of epoch 3" in record.getMessage()


def test_a_run_that_only_overflows_stops():
    report(4, 2)
    with pytest.raises(DivergedError, match="epoch 3"):
        report(4, 1)
