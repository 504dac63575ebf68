"""A train step, and what is shown and written beside it."""
import logging
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops

from src.common.errors import DivergedError
from src.nt_xent import NTXent
from src.optimizer import build_optimizer
from src.resnet import build_encoder
from src.settings.network import Network
from src.simclr_model import ProjectionHead, SimCLR
from src.training import callbacks
from src.training.callbacks import EpochReport, Progress, check_finite
from src.training.step import Totals, TrainStep

BATCH = 8


@pytest.fixture(scope="module")
def trained():
    """Losses and accuracies of a network without optimizer, then of 30 steps on one batch, and the step itself."""
    encoder = build_encoder(Network("resnet18", 0.0625))
    model = SimCLR(encoder, ProjectionHead(encoder.features, 16, nn.BatchNorm2d))
    loss = NTXent(0.5)
    views = Tensor(np.random.default_rng(0).integers(0, 256, (2 * BATCH, 3, 32, 32), dtype=np.uint8))
    model.set_train()
    before = loss(model(views))  # changes the batch-norm statistics only, which training does not look at
    optimizer = build_optimizer("Adam", model.trainable_params(), np.full(30, 3e-3, np.float32), 0.0)
    step = TrainStep(model, loss, optimizer)
    step.set_train()
    losses = [float(step(views).asnumpy()) for _ in range(30)]
    return [float(value.asnumpy()) for value in before], losses, step


def test_a_step_gives_the_loss_before_its_update(trained):
    (loss, _), losses, _ = trained
    assert losses[0] == pytest.approx(loss, rel=1e-5)


def test_steps_learn_a_batch_by_heart(trained):
    _, losses, _ = trained
    floor = 2 * np.log(1 + (2 * BATCH - 2) * np.exp(-4))  # positives at 1, negatives at -1: out of reach
    assert losses[0] > 2 * np.log(2 * BATCH - 1) - 1
    assert floor < losses[-1] < losses[0] - 1


def test_totals_sum_up_until_the_epoch_ends(trained):
    (_, first_accuracy), losses, step = trained
    totals = Totals(*step.totals.asnumpy())
    assert totals.loss == pytest.approx(sum(losses), rel=1e-5)
    assert first_accuracy <= totals.accuracy <= len(losses)
    assert totals.finite == totals.updates == len(losses)
    step.begin_epoch()
    assert not step.totals.asnumpy().any()


@pytest.mark.long
def test_the_norm_is_that_of_all_gradients():
    """Of two batches, in float64, with a projection head whose biases are vectors."""
    encoder = build_encoder(Network("resnet18", 0.0625))
    model = SimCLR(encoder, ProjectionHead(encoder.features, 16)).set_train()
    batches = [Tensor(np.random.default_rng(seed).integers(0, 256, (2 * BATCH, 3, 32, 32), dtype=np.uint8))
               for seed in (1, 2)]
    loss = NTXent(0.5)
    weights = list(model.trainable_params())

    def forward(views):
        return loss(model(views))[0]

    gradient = ops.grad(forward, None, weights)
    expected = [np.sqrt(sum((np.square(part.asnumpy(), dtype=np.float64)).sum() for part in gradient(batch)))
                for batch in batches]
    step = TrainStep(model, loss, build_optimizer("SGD", weights, np.zeros(2, np.float32), 1e-4)).set_train()
    for batch in batches:
        step(batch)
    totals = Totals(*step.totals.asnumpy())
    assert min(expected) > 0.1 and totals.updates == 2
    assert totals.gradient_norm == pytest.approx(sum(expected), rel=1e-4)


def test_totals_remember_the_first_bad_step():
    """The third of five steps has a loss that is not finite, and the others are fine."""
    bad = np.inf

    class Constant(nn.Cell):
        def construct(self, views):
            return views

    class Loss(nn.Cell):
        def construct(self, z):
            return z.mean(), z.max()

    weight = Parameter(Tensor(np.ones(1, np.float32)), name="weight")
    step = TrainStep(Constant(), Loss(), nn.SGD([weight], 0.0))
    for value in (1.0, 2.0, bad, 3.0, bad):
        step(Tensor(np.full((2, 2), value, np.float32)))
    assert Totals(*step.totals.asnumpy()).finite == 2
    with pytest.raises(DivergedError, match="the loss of epoch 7, step 3 is not finite"):
        check_finite(step.totals, 7, 5)
    check_finite(Tensor(np.array([9.0, 1.0, 5.0, 0.0, 0.0])), 7, 5)


# --- beside the steps ---

class Context:
    """The part of MindSpore's run context that the callbacks use."""

    def __init__(self, steps, loss=3.5, sinking=False, epoch=1):
        self.parameters = SimpleNamespace(
            cur_step_num=0, cur_epoch_num=epoch, batch_num=steps, dataset_sink_mode=sinking,
            net_outputs=Tensor(np.array([loss], np.float32)))

    def original_args(self):
        return self.parameters


@pytest.fixture
def lines(caplog, monkeypatch):
    monkeypatch.setattr(callbacks.logger, "propagate", True)
    caplog.set_level(logging.INFO, "simclr")
    return caplog


def finite_steps(count):
    return Tensor(np.array([1.0, 1.0, count, 1.0, count], np.float32))


def run_epoch(progress, context):
    progress.on_train_epoch_begin(context)
    for _ in range(context.parameters.batch_num):
        context.parameters.cur_step_num += 1
        progress.on_train_step_end(context)
    progress.on_train_epoch_end(context)


def clock(monkeypatch, seconds_per_look):
    time = iter(np.arange(0, 1e6, seconds_per_look))
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: next(time))


def test_progress_in_a_file(lines, monkeypatch):
    clock(monkeypatch, 20)
    run_epoch(Progress(finite_steps(99), epochs=4, images_per_step=100), Context(steps=6, epoch=3))
    assert [record.getMessage() for record in lines.records] == [
        "progress: epoch 3/4, step 2/6, loss 3.500, 5 images/s, 03:20 left",
        "progress: epoch 3/4, step 4/6, loss 3.500, 5 images/s, 02:40 left",
        "progress: epoch 3/4, step 6/6, loss 3.500, 5 images/s, 02:00 left"]


def test_its_speed_is_that_of_steps_alone(lines, monkeypatch):
    """A measurement and a checkpoint that take 1,000 s between two epochs do not count."""
    now = [0.0]

    def tick():
        now[0] += 20
        return now[0]

    monkeypatch.setattr(callbacks.time, "perf_counter", tick)
    progress, context = Progress(finite_steps(99), epochs=2, images_per_step=100), Context(steps=4)
    run_epoch(progress, context)
    now[0] += 1000
    context.parameters.cur_epoch_num = 2
    run_epoch(progress, context)
    speeds = [line.getMessage().split(", ")[3] for line in lines.records if "progress" in line.getMessage()]
    assert len(speeds) == 4 and set(speeds) == {"5 images/s"}


@pytest.mark.parametrize("sinking", [False, True])
def test_progress_on_a_terminal(lines, monkeypatch, capsys, sinking):
    clock(monkeypatch, 1)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    run_epoch(Progress(finite_steps(99), epochs=2, images_per_step=100), Context(steps=3, sinking=sinking))
    shown = capsys.readouterr().out
    assert lines.records == []
    if sinking:
        assert shown == ""
    else:
        assert "epoch 1/2 |" in shown and "3/3 , loss 3.500, 100 images/s, 00:03 left" in shown


def test_progress_notices_a_bad_loss_before_the_epoch_ends(lines, monkeypatch):
    clock(monkeypatch, 20)
    with pytest.raises(DivergedError, match="the loss of epoch 3, step 2 is not finite"):
        run_epoch(Progress(finite_steps(1), epochs=4, images_per_step=100), Context(steps=6, epoch=3))


def report(loss, totals, weight=1.0):
    records = []
    sums = Parameter(Tensor(np.zeros(5, np.float32)), name="totals")
    weights = [Parameter(Tensor(np.array([1.0, weight], np.float32)), name="encoder.weight")]
    epoch = EpochReport("pretrain", "contrastive_accuracy", sums, weights, np.linspace(1, 0, 20),
                        images_per_step=8, write=records.append)
    context = Context(steps=4, loss=loss, epoch=2)
    epoch.on_train_epoch_begin(context)
    sums.set_data(Tensor(np.array(totals, np.float32)))
    epoch.on_train_epoch_end(context)
    return records


def test_an_epoch_is_reported(lines):
    (record,) = report(2.5, (12.0, 1.0, 4.0, 9.0, 3.0))
    first, second, third = (line.getMessage() for line in lines.records)
    assert first == "epoch: 2 step: 4, loss is 2.5"
    assert second.startswith("epoch time: ")
    assert third.startswith("epoch 2: mean loss 3.0000, contrastive accuracy 25.00 %, gradient norm 3, learning rate ")
    assert record["gradient_norm"] == 3
    assert (record["epoch"], record["loss"], record["contrastive_accuracy"], record["last_loss"]) == (2, 3, 0.25, 2.5)
    assert record["learning_rate"] == pytest.approx(np.linspace(1, 0, 20)[7])


@pytest.mark.parametrize("norm, updates", [(np.inf, 4.0), (0.0, 0.0)])
def test_a_norm_that_is_no_number_is_none(lines, norm, updates):
    """JSON has neither infinity nor NaN; where every step overflowed there is none."""
    (record,) = report(2.5, (12.0, 1.0, 4.0, norm, updates))
    assert record["gradient_norm"] is None and "gradient norm not finite" in lines.records[2].getMessage()


def test_a_diverged_run_stops():
    with pytest.raises(DivergedError, match=r"the loss of epoch 2, step 3 is not finite \(sum of the losses: nan\): "):
        report(np.nan, (np.nan, 0.0, 2.0, np.nan, 4.0))


def test_weights_that_the_last_step_has_spoiled_are_not_saved():
    with pytest.raises(DivergedError, match="encoder.weight is not finite after epoch 2, step 4: training has "):
        report(2.5, (12.0, 1.0, 4.0, 1.0, 4.0), weight=np.inf)
