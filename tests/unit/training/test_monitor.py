"""The online monitor: its numbers by an independent route, its words, and that training does not notice it."""
import logging
import random
from types import SimpleNamespace

import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore import Tensor, nn
from sklearn.neighbors import KNeighborsClassifier

from src.data.images import Images
from src.data.views import Views
from src.distributed.process_group import Process
from src.nt_xent import NTXent
from src.optimizer import build_optimizer
from src.resnet import build_encoder
from src.settings.augmentation import PAPER_SMALL
from src.settings.network import Network
from src.simclr_model import ProjectionHead, SimCLR
from src.training import monitor
from src.training.monitor import Monitor, build_probe, signs_of_collapse, trivial_loss
from src.training.step import TrainStep

BATCH, DIMENSION = 8, 16
TRIVIAL = trivial_loss(BATCH, 2)


@pytest.fixture(scope="module")
def step():
    """A train step that is compiled once for all tests."""
    encoder = build_encoder(Network("resnet18", 0.0625))
    model = SimCLR(encoder, ProjectionHead(encoder.features, DIMENSION, nn.BatchNorm2d))
    optimizer = build_optimizer("Adam", model.trainable_params(), np.full(9, 1e-3, np.float32), 0.0)
    step = TrainStep(model, NTXent(), optimizer)
    step.set_train()
    return step


@pytest.fixture
def probe(random_images):
    train = random_images(50)
    views = Views(train.pixels, BATCH, PAPER_SMALL, seed=3, workers=1)
    return build_probe(views, train, random_images(30, 1))


@pytest.fixture
def lines(caplog, monkeypatch):
    monkeypatch.setattr(monitor.logger, "propagate", True)
    caplog.set_level(logging.INFO, "simclr")
    return lambda: [record.getMessage() for record in caplog.records]


def end_epochs(watching, *mean_losses):
    """Tell a monitor that epochs of five steps have ended, with these losses on average."""
    for epoch, loss in enumerate(mean_losses, 1):
        watching.totals.set_data(Tensor(np.array([5 * loss, 1, 5], np.float32)))
        context = SimpleNamespace(cur_epoch_num=epoch, batch_num=5)
        watching.on_train_epoch_end(SimpleNamespace(original_args=lambda context=context: context))


def monitored(step, probe, *mean_losses):
    records = []
    watching = Monitor(step.model, step.totals, probe, every=4, epochs=10, batch_size=BATCH, trivial_loss=TRIVIAL,
                       temperature=0.5, process=Process("CPU"), write=records.append)
    end_epochs(watching, *mean_losses)
    return records


def test_measured_every_k_epochs_and_at_the_end(step, probe, lines):
    records = monitored(step, probe, *np.linspace(4, 2, 10))
    assert [record["epoch"] for record in records] == [4, 8, 10]
    assert sum(line.startswith("monitor, epoch ") for line in lines()) == 3
    assert {record["kind"] for record in records} == {"monitor"}
    assert "weighted kNN (cosine, k=50, temperature 0.1) of 30 test images among 50" in records[0]["protocol"]


@pytest.mark.long
def test_the_numbers_by_an_independent_route(step, probe):
    (record,) = monitored(step, probe, 4, 4, 4, 4)
    step.model.set_train(False)

    def network(cell, images):
        return cell(Tensor(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))).asnumpy().astype(np.float64)

    bank, test = (network(step.model.encoder, images.pixels) for images in (probe.bank, probe.test))
    neighbours = KNeighborsClassifier(50, metric="cosine", weights=lambda distances: np.exp((1 - distances) / 0.1))
    predicted = neighbours.fit(bank, probe.bank.labels).predict(test)
    assert record["knn_accuracy"] == pytest.approx((predicted == probe.test.labels).mean(), abs=1.5 / 30)
    first, second = (network(step.model, views) for views in (probe.first, probe.second))
    first, second = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (first, second))
    assert record["alignment"] == pytest.approx(((first - second) ** 2).sum(1).mean(), rel=1e-3)
    pairs = [np.exp(-2 * ((x - y) ** 2).sum()) for i, x in enumerate(first) for y in first[:i]]
    assert record["uniformity"] == pytest.approx(np.log(np.mean(pairs)), rel=1e-3)
    assert record["embedding_std"] == pytest.approx(first.std(0).mean(), rel=1e-3)
    shares = np.linalg.svd(bank, compute_uv=False)
    shares = shares[shares > 0] / shares.sum()
    assert record["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-3)


def test_training_does_not_notice(step, probe):
    before = {p.name: p.asnumpy().copy() for p in step.get_parameters() if p.name != "totals"}
    drawn = np.random.get_state()[1].tolist(), random.getstate(), ds.config.get_seed()
    monitored(step, probe, 4, 4, 4, 4)
    assert all(np.array_equal(p.asnumpy(), before[p.name]) for p in step.get_parameters() if p.name != "totals")
    assert (np.random.get_state()[1].tolist(), random.getstate(), ds.config.get_seed()) == drawn
    assert step.training and all(cell.training for _, cell in step.model.cells_and_names())


def test_representations_that_are_no_numbers_are_not_measured(step, probe, lines, monkeypatch):
    """Though the loss is one, as where moving averages lag: the training goes on."""
    monkeypatch.setattr(monitor, "extract", lambda encoder, pixels, *_: np.full((len(pixels), 32), np.inf, np.float32))
    assert monitored(step, probe, 4, 4, 4, 4) == []
    assert any("not measured" in line for line in lines()) and step.training


def test_the_probe_is_always_the_same(random_images, monkeypatch):
    monkeypatch.setattr(monitor, "IMAGES", 20)
    monkeypatch.setattr(monitor, "VIEWED_IMAGES", 6)
    train = random_images(50)
    train = Images(train.pixels, np.arange(50, dtype=np.int32))
    views = Views(train.pixels, BATCH, PAPER_SMALL, 3, 1)
    one = build_probe(views, train, None)
    next(views.of_epoch(7))
    two = build_probe(views, train, None)
    assert one.bank.labels.tolist() == sorted(set(one.bank.labels.tolist()))
    assert len(one.bank.labels) == 20 and one.first.shape == one.second.shape == (6, 32, 32, 3)
    assert np.array_equal(one.bank.pixels, train.pixels[one.bank.labels])
    assert np.array_equal(one.first, two.first) and np.array_equal(one.second, two.second)
    assert not np.array_equal(one.first, one.second)


def test_images_without_labels_stay_out_of_the_bank(random_images):
    train = random_images(50)
    views = Views(train.pixels, BATCH, PAPER_SMALL, 3, 1)
    some = train._replace(labels=np.where(np.arange(50) < 30, -1, train.labels))
    assert np.array_equal(build_probe(views, some, train).bank.pixels, train.pixels[30:])
    probe = build_probe(views, train._replace(labels=np.full(50, -1)), train)
    assert probe.test is None and len(probe.bank.labels) == 50


def test_without_test_images(step, probe, lines):
    (record,) = monitored(step, probe._replace(test=None), 4, 4, 4, 4)
    assert record["knn_accuracy"] is None
    assert record["protocol"].startswith("no kNN;")
    assert "kNN not measured" in lines()[0]


# --- collapse ---

def test_equal_embeddings_are_reported_in_words(step, probe, lines):
    before = {parameter: parameter.asnumpy().copy() for parameter in step.model.projection_head.dense2.get_parameters()}
    for parameter in before:
        parameter.set_data(Tensor(np.full(parameter.shape, float(parameter.name.endswith("bias")), np.float32)))
    (record,) = monitored(step, probe, 5, 5, 5, 5)
    for parameter, value in before.items():
        parameter.set_data(Tensor(value))
    assert record["collapsed"] and record["embedding_std"] < 1e-6
    assert lines()[-1].startswith("warning: collapse after epoch 4: ") and "it would be 0.25" in lines()[-1]


@pytest.mark.parametrize("views", [2, 4])
def test_the_trivial_loss_is_that_of_equal_embeddings(views):
    loss, _ = NTXent(0.5, views_per_image=views)(Tensor(np.ones((views * BATCH, DIMENSION), np.float32)))
    assert trivial_loss(BATCH, views) == pytest.approx(float(loss.asnumpy()), rel=1e-6)


def test_a_loss_that_is_stuck_is_reported_once(step, lines):
    monitored(step, None, TRIVIAL + 1, TRIVIAL, TRIVIAL, TRIVIAL)
    (warning,) = lines()
    assert warning.startswith(f"warning: collapse after epoch 2: the loss is stuck at {TRIVIAL:.3f}")


@pytest.mark.parametrize("losses, std, found", [
    ([5.41], 0.25, 0),         # one epoch near the trivial loss, 5.416: the warm-up
    ([5.41, 5.3], 0.014, 0),
    ([5.41, 5.3], 0.011, 1),
    ([5.41, 5.41], 0.0, 2),
    ([5.41, 5.41], None, 1)])
def test_signs_of_collapse(losses, std, found):
    assert len(signs_of_collapse(losses, TRIVIAL, 0.5, std, DIMENSION)) == found
