"""Updates of the optimizers against their formulas in NumPy float64."""
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from src.optimizer import build_optimizer, decays, default_learning_rate
from src.resnet import build_encoder

RATES = np.array([0.1, 0.05, 0.02, 0.01], np.float32)
DECAY = 0.3


def adam(weight, gradients, decay):
    weight, m, v = weight.astype(np.float64), 0, 0
    for t, (rate, gradient) in enumerate(zip(RATES, gradients), 1):
        gradient = gradient + decay * weight
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        weight = weight - rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-8)
    return weight


def sgd(weight, gradients, decay):
    weight, velocity = weight.astype(np.float64), 0
    for rate, gradient in zip(RATES, gradients):
        velocity = 0.9 * velocity + gradient + decay * weight
        weight = weight - rate * velocity
    return weight


@pytest.mark.parametrize("name, formula", [("Adam", adam), ("SGD", sgd)])
def test_updates_and_decay_groups(name, formula):
    rng = np.random.default_rng(0)
    start = {"weight": rng.normal(size=(3, 2)).astype(np.float32), "bias": rng.normal(size=3).astype(np.float32)}
    parameters = [Parameter(Tensor(value), name=key) for key, value in start.items()]
    optimizer = build_optimizer(name, parameters, RATES, DECAY)
    gradients = {key: [rng.normal(size=value.shape).astype(np.float32) for _ in RATES] for key, value in start.items()}
    for step in range(len(RATES)):
        optimizer(tuple(Tensor(gradients[parameter.name][step]) for parameter in optimizer.parameters))
    for parameter in parameters:
        decay = DECAY if parameter.name == "weight" else 0
        expected = formula(start[parameter.name], gradients[parameter.name], decay)
        assert np.allclose(parameter.asnumpy(), expected, rtol=2e-5, atol=1e-6), parameter.name


def test_decay_is_for_weights_only():
    encoder = build_encoder("resnet18", 0.0625)
    for _, cell in encoder.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d):
            assert not decays(cell.gamma) and not decays(cell.beta)
        if isinstance(cell, nn.Conv2d):
            assert decays(cell.weight)
    assert not decays(nn.Dense(3, 2).bias)


def test_default_rates_scale_with_the_global_batch():
    assert default_learning_rate("Adam", 1024) == 9e-4
    assert default_learning_rate("Adam", 256) == 4.5e-4
    assert default_learning_rate("SGD", 512) == 0.12
