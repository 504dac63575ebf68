"""This project against the PyTorch reference: same weights and views, same features, loss, gradients and training.

A difference is the norm of the difference of two tensors relative to the norm of the reference's. Rounding
alone can take an input of a ReLU across zero, which changes a gradient by a whole term, in both frameworks
alike; so of each tensor the median over three seeds of weights and views has to keep within the bound.
Scales and shifts are drawn at random, for a fresh network's last batch norms are zero and hide whole branches,
and Adam, which divides a gradient by its own size, would turn the rounding of what is exactly or nearly zero
into whole steps.
"""
import sys

import numpy as np
import pytest
from conftest import ROOT
from mindspore import Tensor, nn

from src import optimizer
from src.nt_xent import NTXent
from src.optimizer import build_optimizer
from src.resnet import ENCODERS, build_encoder
from src.simclr_model import ProjectionHead, SimCLR
from src.train_step import TrainStep

torch = pytest.importorskip("torch")
sys.path.insert(0, str(ROOT / "benchmarks"))
import torch_reference  # noqa: E402

BATCH, DIMENSION, TEMPERATURE, WEIGHT_DECAY, STEPS = 16, 24, 0.5, 1e-3, 10
SEEDS = (0, 1, 2)
BOUND = 1e-4
RATES = {"Adam": 1e-3, "SGD": 0.03, "LARS": 2.0}  # each moves a weight by a percent or more in ten steps
TORCH_NAMES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def torch_name(name):
    """MindSpore's name of a parameter -> PyTorch's. (Their momenta of 0.9 and 0.1 mean the same.)"""
    owner, _, own = name.rpartition(".")
    return f"{owner}.{TORCH_NAMES.get(own, own)}"


def values(model):
    """Every parameter of a MindSpore network under PyTorch's name."""
    return {torch_name(parameter.name): parameter.asnumpy().copy() for parameter in model.get_parameters()}


def torch_values(reference):
    return {name: value.detach().numpy().copy() for name, value in reference.state_dict().items()
            if not name.endswith("num_batches_tracked")}


def carry_over(weights, reference):
    """Load ``weights``, which must be all that the reference has, and no more."""
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in torch_values(reference).items()}
    reference.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()}, strict=False)


def randomise(model, seed):
    """Draw other weights, of the size of the initial ones, and scales, shifts and statistics away from 0 and 1."""
    rng = np.random.default_rng(seed)
    for parameter in model.get_parameters():
        if parameter.ndim == 1:
            low, high = (-0.2, 0.2) if parameter.name.endswith(("beta", "bias", "moving_mean")) else (0.5, 1.5)
            drawn = rng.uniform(low, high, parameter.shape)
        else:
            drawn = rng.normal(0, np.sqrt(2 / np.prod(parameter.shape[1:])), parameter.shape)
        parameter.set_data(Tensor(drawn.astype(np.float32)))


def views_of(seed, step, side=32):
    """Views (2B, 3, side, side), uint8: smooth pictures and noise, so that there is something to tell apart."""
    rng = np.random.default_rng((seed, step))
    coarse = rng.integers(0, 200, (2 * BATCH, 3, 4, 4)).repeat(side // 4, 2).repeat(side // 4, 3)
    return (coarse + rng.integers(0, 56, coarse.shape)).astype(np.uint8)


def difference(ours, theirs):
    """The relative difference; ``theirs`` of zeros alone want zeros."""
    return np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-30)


def worst(differences):
    """Of dicts of differences, one per seed: the tensor whose median over the seeds is the largest."""
    medians = {name: np.median([found[name] for found in differences]) for name in differences[0]}
    return max(medians.items(), key=lambda item: item[1])


def differences_of(ours, theirs):
    assert ours.keys() == theirs.keys()
    return {name: difference(ours[name], theirs[name]) for name in ours}


class Pair:
    """The same network in both frameworks."""

    def __init__(self, encoder, width_multiplier, head_batch_norm):
        self.network = encoder, width_multiplier
        self.head_batch_norm = head_batch_norm
        ours = build_encoder(encoder, width_multiplier)
        self.model = SimCLR(ours, ProjectionHead(ours.features, DIMENSION, nn.BatchNorm2d if head_batch_norm else None))
        self.start(0)

    def start(self, seed):
        """Draw weights and give them to a fresh reference."""
        randomise(self.model, seed)
        self.reference = torch_reference.SimCLR(*self.network, DIMENSION, self.head_batch_norm)
        carry_over(values(self.model), self.reference)

    def train_step(self, name, weight_decay):
        rates = np.full(STEPS * len(SEEDS), RATES[name], np.float32)
        ours = build_optimizer(name, self.model.trainable_params(), rates, weight_decay)
        step = TrainStep(self.model, NTXent(BATCH, TEMPERATURE), ours)
        step.set_train()
        return step

    def train_reference(self, optimizer, views):
        optimizer.zero_grad()
        loss, accuracy = torch_reference.nt_xent(self.reference(torch.from_numpy(views)), TEMPERATURE)
        loss.backward()
        optimizer.step()
        return loss.item(), accuracy.item()


@pytest.fixture(scope="module", params=[("resnet18", 0.125, False), ("resnet50", 0.0625, True)],
                ids=["resnet18", "resnet50-head_batch_norm"])
def pair(request):
    return Pair(*request.param)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("side", [32, 64])
def test_names_and_shapes_correspond(encoder, side):
    ours = build_encoder(encoder, 0.25, side)
    model = SimCLR(ours, ProjectionHead(ours.features, DIMENSION, nn.BatchNorm2d))
    carry_over(values(model), torch_reference.SimCLR(encoder, 0.25, DIMENSION, True, side))


@pytest.mark.parametrize("encoder, width_multiplier, side", [("resnet34", 0.125, 32), ("resnet18", 0.125, 64)])
def test_features_in_inference(encoder, width_multiplier, side):
    """With the running statistics, normalised pixels and both stems."""
    from src.resnet import Pixels
    colours = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    model = build_encoder(encoder, width_multiplier, side, Pixels(*colours))
    randomise(model, 0)
    reference = torch_reference.ResNet(encoder, width_multiplier, side, *colours)
    carry_over({name.lstrip("."): value for name, value in values(model).items()}, reference)
    model.set_train(False)
    reference.eval()
    views = views_of(0, 0, side)
    assert difference(model(Tensor(views)).asnumpy(), reference(torch.from_numpy(views)).detach().numpy()) < BOUND


def test_features_loss_gradients_and_statistics(pair):
    step = pair.train_step("SGD", 0.0)
    found = {"features": [], "loss": [], "gradients": [], "statistics": []}
    for seed in SEEDS:
        pair.start(seed)
        views = views_of(seed, 0)
        (loss, accuracy), gradients = step.value_and_grad(Tensor(views))  # also moves the statistics
        statistics = values(pair.model)
        still = torch.optim.SGD(pair.reference.parameters(), 0.0)
        expected_loss, expected_accuracy = pair.train_reference(still, views)
        expected = torch_values(pair.reference)
        found["loss"].append({"loss": difference(loss.asnumpy(), expected_loss)})
        assert accuracy.asnumpy() == pytest.approx(expected_accuracy, abs=1.01 / (2 * BATCH))  # one tie at most
        found["gradients"].append(differences_of(
            {torch_name(p.name): g.asnumpy() for p, g in zip(step.optimizer.parameters, gradients)},
            {name: p.grad.numpy() for name, p in pair.reference.named_parameters()}))
        found["statistics"].append(differences_of(*({name: value for name, value in side.items() if "running" in name}
                                                    for side in (statistics, expected))))
        carry_over(statistics, pair.reference)
        pair.model.set_train(False)
        pair.reference.eval()
        with torch.no_grad():
            features = pair.reference.encoder(torch.from_numpy(views)).numpy()
        found["features"].append({"h": difference(pair.model.encoder(Tensor(views)).asnumpy(), features)})
        step.set_train()
    for kind, of_seeds in found.items():
        name, median = worst(of_seeds)
        print(f"{kind}: {median:.1e} at most, for {name}")
        assert median < BOUND, (kind, name)


@pytest.mark.parametrize("name", ["Adam", "SGD", "LARS"])
def test_ten_steps(pair, name):
    if name == "LARS" and not hasattr(optimizer, "LARS"):
        pytest.skip("src/optimizer.py has no LARS yet")
    step = pair.train_step(name, WEIGHT_DECAY)
    state = list(step.optimizer.get_parameters())
    begin = [parameter.asnumpy().copy() for parameter in state]
    losses, weights, moved = [], [], []
    for seed in SEEDS:
        for parameter, value in zip(state, begin):  # no moments of the seed before
            parameter.set_data(Tensor(value))
        pair.start(seed)
        first = values(pair.model)
        theirs = torch_reference.build_optimizer(name, pair.reference.parameters(), RATES[name], WEIGHT_DECAY)
        of_steps = {}
        for number in range(STEPS):
            views = views_of(seed, number)
            expected, _ = pair.train_reference(theirs, views)
            of_steps[f"loss of step {number}"] = difference(step(Tensor(views)).asnumpy(), expected)
        losses.append(of_steps)
        last = torch_values(pair.reference)
        weights.append(differences_of(values(pair.model), last))
        moved.append(differences_of(first, last))
    assert all(distance > 1e-2 for of_seed in moved for distance in of_seed.values())  # else the bound says little
    for kind, of_seeds in (("losses", losses), ("weights and statistics", weights)):
        tensor, median = worst(of_seeds)
        print(f"{kind}: {median:.1e} at most, for {tensor}")
        assert median < BOUND, (kind, tensor)
