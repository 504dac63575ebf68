"""This project against the PyTorch reference: same weights and views, same features, loss, gradients and training.

A difference is the norm of the difference of two tensors relative to the norm of the reference's. Some care makes
it mean something:

- Rounding alone can take an input of a ReLU across zero, which changes a gradient by a whole term, 1 % and more of a
  small tensor. So gradients are compared where such inputs are rare, with shifts of batch norm around 1, and of
  each tensor the median over three seeds of weights and views has to keep within the bound.
- A fresh network's last batch norms have a scale of zero and hide whole branches, so scales are random, around 1.
  In training that makes chaos, which multiplies a rounding error a thousandfold in ten steps; there they are
  around 0.2.
- Adam divides a gradient by its own size, so the rounding of a gradient that is zero but for rounding becomes
  a whole step. That is so for shifts that a later batch norm takes away, as in a bottleneck network with mostly
  positive features: the ten steps are those of a ResNet-18. Also PyTorch adds epsilon after the correction
  of the second moment and MindSpore before it, which is 3e-7 instead of 1e-8 in the first step.
"""
import sys
from collections import OrderedDict

import numpy as np
import pytest
from helpers import ROOT
from mindspore import Tensor, nn, ops

from src.nt_xent import NTXent
from src.optimizer import build_optimizer
from src.resnet import ENCODERS, build_encoder
from src.settings.network import STEMS, Network
from src.simclr_model import CrossEntropy, ImageClassifier, LinearClassifier, SimCLR, build_head
from src.training.step import TrainStep

torch = pytest.importorskip("torch")
sys.path.insert(0, str(ROOT / "benchmarks"))
import torch_reference  # noqa: E402

pytestmark = pytest.mark.long

torch.set_num_threads(1)  # several spin while they wait, and crawl where another process has the cores
# With ONEDNN_MAX_CPU_ISA=AVX2, which MindSpore needs, PyTorch 2.13's oneDNN dies of a segmentation fault in the
# backward pass of thin convolutions; PyTorch's own kernels are also the more independent reference.
torch.backends.mkldnn.enabled = False
BATCH, DIMENSION, TEMPERATURE, WEIGHT_DECAY, STEPS = 16, 24, 0.2, 1e-3, 10
SEEDS = (0, 1, 2)
BOUND = 1e-4
BOUND_OF_UPDATE = 0.05  # of what ten steps change, which is little next to the weights themselves
RATES = {"Adam": 1e-4, "SGD": 3e-3, "LARS": 0.02}
STEM_SHAPES = {"cifar": (3, 32), "strided": (3, 16), "imagenet": (7, 8)}  # kernel; side of what it makes of 32 pixels
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


def randomise(model, seed, shift=1.0, last_scale=1.0):
    """Draw weights of the size of the initial ones, and scales, shifts and statistics as said at the top."""
    rng = np.random.default_rng(seed)
    for parameter in model.get_parameters():
        owner, own = parameter.name.rsplit(".", 1)
        if parameter.ndim > 1:
            drawn = rng.normal(0, np.sqrt(2 / np.prod(parameter.shape[1:])), parameter.shape)
        elif own in ("gamma", "moving_variance"):
            drawn = rng.uniform(0.5, 1.5, parameter.shape)
            if parameter.name.endswith("bn2.gamma"):  # the last one of a ResNet-18's branch
                drawn *= last_scale
        else:
            centre = shift if own == "beta" and "projection_head" not in owner else 0.0
            drawn = rng.uniform(centre - 0.3, centre + 0.3, parameter.shape)
        parameter.set_data(Tensor(drawn.astype(np.float32)))


def views_of(seed, step, side=32):
    """Views (2B, 3, side, side), uint8: checks of random contrast around a random colour, easy to tell apart."""
    rng = np.random.default_rng((seed, step))
    colour = rng.integers(0, 256, (2 * BATCH, 3, 1, 1))
    checks = rng.integers(0, 256, (2 * BATCH, 3, 8, 8)).repeat(side // 8, 2).repeat(side // 8, 3)
    contrast = rng.uniform(0.1, 0.9, (2 * BATCH, 1, 1, 1))
    return (contrast * checks + (1 - contrast) * colour).astype(np.uint8)


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


class Gradients(nn.Cell):
    """Views -> (_, loss, accuracy), gradients. (value_and_grad alone keeps the first weights it saw.)"""

    def __init__(self, step):
        super().__init__(auto_prefix=False)
        self.step = step

    def construct(self, views):
        return self.step.value_and_grad(views)


def build(network):
    encoder = build_encoder(network)
    return SimCLR(encoder, build_head(encoder.features, network))


def build_reference(network):
    return torch_reference.SimCLR(network.encoder, network.width_multiplier, network.projection_dimension,
                                  network.head_batch_norm, network.stem)


class Pair:
    """The same network in both frameworks."""

    def __init__(self, network):
        self.network = network
        self.model = build(network)

    def start(self, seed, **scales):
        """Draw weights and give them to a fresh reference."""
        randomise(self.model, seed, **scales)
        self.reference = build_reference(self.network)
        carry_over(values(self.model), self.reference)

    def train_step(self, name, weight_decay):
        rates = np.full(STEPS * len(SEEDS), RATES[name], np.float32)
        ours = build_optimizer(name, self.model.trainable_params(), rates, weight_decay)
        step = TrainStep(self.model, NTXent(TEMPERATURE), ours)
        step.set_train()
        return step

    def train_reference(self, optimizer, views):
        optimizer.zero_grad()
        loss, accuracy = torch_reference.nt_xent(self.reference(torch.from_numpy(views)), TEMPERATURE)
        loss.backward()
        optimizer.step()
        return loss.item(), accuracy.item()


@pytest.fixture(scope="module")
def resnet18():
    return Pair(Network("resnet18", 0.125, projection_dimension=DIMENSION))


@pytest.fixture(scope="module")
def resnet50():
    return Pair(Network("resnet50", 0.0625, "imagenet", 64, projection_dimension=DIMENSION, head_batch_norm=True))


@pytest.mark.parametrize("encoder, stem", [*zip(ENCODERS, (*STEMS, "cifar"))])
def test_names_and_shapes_correspond(encoder, stem):
    network = Network(encoder, 0.25, stem, projection_dimension=DIMENSION, head_batch_norm=True)
    carry_over(values(build(network)), build_reference(network))


@pytest.mark.parametrize("stem", STEMS)
def test_stems(stem):
    """The one thing that the reference takes from ``src/``."""
    encoder = torch_reference.ResNet("resnet18", 0.125, stem, (0.0,) * 3, (1.0,) * 3)
    kernel, side = STEM_SHAPES[stem]
    assert encoder.conv1.weight.shape == (8, 3, kernel, kernel)
    assert encoder.maxpool(encoder.conv1(torch.zeros(1, 3, 32, 32))).shape == (1, 8, side, side)


@pytest.mark.parametrize("encoder, stem, side", [
    ("resnet34", "cifar", 32), ("resnet18", "strided", 32), ("resnet18", "imagenet", 64)])
def test_features_in_inference(encoder, stem, side):
    """With the running statistics, normalised pixels and every stem."""
    colours = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    model = build_encoder(Network(encoder, 0.125, stem, side, *colours))
    randomise(model, 0)
    reference = torch_reference.ResNet(encoder, 0.125, stem, *colours)
    carry_over({name.lstrip("."): value for name, value in values(model).items()}, reference)
    model.set_train(False)
    reference.eval()
    views = views_of(0, 0, side)
    assert difference(model(Tensor(views)).asnumpy(), reference(torch.from_numpy(views)).detach().numpy()) < BOUND


@pytest.mark.parametrize("network", ["resnet18", "resnet50"])
def test_features_loss_gradients_and_statistics(network, request):
    pair = request.getfixturevalue(network)
    step = pair.train_step("SGD", 0.0)
    gradients_of = Gradients(step)
    gradients_of.set_train()
    found = {"features": [], "loss": [], "gradients": [], "statistics": []}
    for seed in SEEDS:
        pair.start(seed)
        views = views_of(seed, 0, pair.network.image_size)
        (_, loss, accuracy), gradients = gradients_of(Tensor(views))  # also moves the statistics
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
        gradients_of.set_train()
    for kind, of_seeds in found.items():
        name, median = worst(of_seeds)
        print(f"{kind}: {median:.1e} at most, for {name}")
        assert median < BOUND, (kind, name)


def test_the_loss_of_several_views():
    views = 3
    z = np.random.default_rng(views).normal(size=(views * 6, DIMENSION)).astype(np.float32)
    theirs = torch.from_numpy(z).requires_grad_()
    expected, expected_accuracy = torch_reference.nt_xent(theirs, TEMPERATURE, views)
    expected.backward()
    (loss, accuracy), gradient = ops.value_and_grad(
        NTXent(TEMPERATURE, views_per_image=views), 0, None, has_aux=True)(Tensor(z))
    assert difference(loss.asnumpy(), expected.item()) < 1e-6
    assert accuracy.asnumpy() == pytest.approx(expected_accuracy.item(), abs=1e-6)
    assert difference(gradient.asnumpy(), theirs.grad.numpy()) < 1e-5


@pytest.mark.parametrize("name", ["Adam", "LARS"])  # SGD: test_training_with_labels
def test_ten_steps(resnet18, name):
    pair = resnet18
    step = pair.train_step(name, WEIGHT_DECAY)
    state = list(step.optimizer.get_parameters())
    begin = [parameter.asnumpy().copy() for parameter in state]
    found = {"losses": [], "weights and statistics": [], "updates": []}
    for seed in SEEDS:
        for parameter, value in zip(state, begin):  # no moments of the seed before
            parameter.set_data(Tensor(value))
        pair.start(seed, shift=0.5, last_scale=0.2)
        first = values(pair.model)
        theirs = torch_reference.build_optimizer(name, pair.reference.parameters(), RATES[name], WEIGHT_DECAY)
        losses = {}
        for number in range(STEPS):
            views = views_of(seed, number)
            expected, _ = pair.train_reference(theirs, views)
            losses[f"loss of step {number}"] = difference(step(Tensor(views)).asnumpy(), expected)
        ours, last = values(pair.model), torch_values(pair.reference)
        found["losses"].append(losses)
        found["weights and statistics"].append(differences_of(ours, last))
        found["updates"].append(differences_of(*({key: side[key] - first[key] for key in first}
                                                 for side in (ours, last))))
    for kind, of_seeds in found.items():
        tensor, median = worst(of_seeds)
        print(f"{name}, {kind}: {median:.1e} at most, for {tensor}")
        assert median < (BOUND_OF_UPDATE if kind == "updates" else BOUND), (kind, tensor)


def test_training_with_labels():
    """Three steps of encoder and classifier: losses and all weights."""
    network = ImageClassifier(build_encoder(Network("resnet18", 0.125)), LinearClassifier(64, 10))
    rng = np.random.default_rng(0)
    for parameter in network.trainable_params():
        if parameter.ndim < 4:  # zeros would hide whole branches
            parameter.set_data(Tensor(rng.normal(0.5, 0.2, parameter.shape).astype(np.float32)))
    rates = np.array([0.01, 0.007, 0.002], np.float32)
    step = TrainStep(network, CrossEntropy(), build_optimizer("SGD", network.trainable_params(), rates, 1e-3))
    step.set_train()
    reference = torch.nn.Sequential(OrderedDict(
        encoder=torch_reference.ResNet("resnet18", 0.125, "cifar", (0.0,) * 3, (1.0,) * 3),
        classifier=torch.nn.Sequential(OrderedDict(linear=torch.nn.Linear(64, 10)))))
    there = values(network)
    del there["classifier.mean"], there["classifier.scale"]
    fit = reference.load_state_dict({name: torch.from_numpy(value) for name, value in there.items()}, strict=False)
    assert not fit.unexpected_keys and all(name.endswith("num_batches_tracked") for name in fit.missing_keys)
    optimizer = torch_reference.build_optimizer("SGD", reference.parameters(), 0.01, 1e-3)
    for rate in rates:
        images = rng.integers(0, 256, (16, 3, 32, 32), np.uint8)
        labels = rng.integers(0, 10, 16).astype(np.int32)
        loss = float(step(Tensor(images), Tensor(labels)).asnumpy())
        optimizer.zero_grad()
        logits = reference(torch.from_numpy(images))
        expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels).long())
        expected.backward()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        assert loss == pytest.approx(expected.item(), rel=1e-4)
    ended = reference.state_dict()
    for name, value in values(network).items():
        if name in there:
            expected = ended[name].numpy()
            assert np.linalg.norm(value - expected) <= 1e-4 * np.linalg.norm(expected), name
