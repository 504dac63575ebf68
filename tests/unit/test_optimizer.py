"""Updates of the optimizers against their formulas in NumPy float64."""
import mindspore
import numpy as np
import pytest
from mindspore import Parameter, Tensor

from src import optimizer as optimizers
from src.optimizer import build_optimizer

RATES = 0.1 * np.cos(np.linspace(0, 1.5, 10)).astype(np.float32)
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


def lars(weight, gradients, decay):
    """Of the original implementation: classic momentum, biases and batch norm without trust ratio and decay."""
    weight, velocity = weight.astype(np.float64), 0
    for rate, gradient in zip(RATES, gradients):
        gradient = gradient + decay * weight
        trust = 1
        if weight.ndim > 1 and np.linalg.norm(weight) > 0 and np.linalg.norm(gradient) > 0:
            trust = 0.001 * np.linalg.norm(weight) / np.linalg.norm(gradient)
        velocity = 0.9 * velocity + rate * trust * gradient
        weight = weight - velocity
    return weight


START = {"convolution": (4, 3, 2, 2), "dense": (3, 2), "zeros": (2, 2), "without_gradient": (2, 3), "bias": (3,)}


@pytest.mark.parametrize("decay", [0.0, DECAY])
@pytest.mark.parametrize("name, formula", [("Adam", adam), ("SGD", sgd), ("LARS", lars)])
def test_ten_updates_and_decay_groups(name, formula, decay):
    rng = np.random.default_rng(0)
    start = {key: rng.normal(size=shape).astype(np.float32) for key, shape in START.items()}
    start["zeros"][:] = 0
    parameters = [Parameter(Tensor(value), name=key) for key, value in start.items()]
    optimizer = build_optimizer(name, parameters, RATES, decay)
    gradients = {key: [rng.normal(size=value.shape).astype(np.float32) for _ in RATES] for key, value in start.items()}
    gradients["without_gradient"] = [0 * gradient for gradient in gradients["without_gradient"]]
    for step in range(len(RATES)):
        optimizer(tuple(Tensor(gradients[parameter.name][step]) for parameter in optimizer.parameters))
    assert int(optimizer.global_step.asnumpy()[0]) == len(RATES)
    for parameter in parameters:
        begun = start[parameter.name].astype(np.float64)
        moved = formula(begun, gradients[parameter.name], decay if begun.ndim > 1 else 0) - begun
        # Of the way from the start: LARS goes a short one.
        difference = np.linalg.norm(parameter.asnumpy() - begun - moved)
        assert difference <= 1e-4 * np.linalg.norm(moved), parameter.name


def state(optimizer):
    return {parameter.name: parameter.asnumpy().copy() for parameter in optimizer.get_parameters()}


@pytest.mark.long
@pytest.mark.parametrize("name, bad", [("Adam", np.nan), ("SGD", np.inf), ("LARS", 1e38), ("LARS", np.nan)])
def test_a_factor_of_0_leaves_everything_as_it_is(name, bad):
    """In the first update, where Adam has no moments yet, and later; in between a factor is one of the gradients."""
    optimizers = []
    for _ in range(2):
        rng = np.random.default_rng(0)
        parameters = [Parameter(Tensor(rng.normal(size=shape).astype(np.float32)), name=key)
                      for key, shape in START.items()]
        optimizers.append(build_optimizer(name, parameters, RATES, DECAY))
    plain, told = optimizers
    for _ in range(3):
        good = [rng.normal(size=parameter.shape).astype(np.float32) for parameter in told.parameters]
        spoiled = [np.where(np.arange(g.size).reshape(g.shape) % 2, np.float32(bad), g) for g in good]
        before = state(told)
        told(tuple(map(Tensor, spoiled)), Tensor(np.float32(0)))
        assert all(np.array_equal(before[key], value) for key, value in state(told).items())
        told(tuple(map(Tensor, good)), Tensor(np.float32(0.25)))
        plain(tuple(Tensor(np.float32(0.25) * g) for g in good))
        assert all(np.array_equal(value, state(plain)[key]) for key, value in state(told).items())
    assert int(told.global_step.asnumpy()[0]) == 3


@pytest.mark.skipif(mindspore.__version__.startswith("2.7"), reason="MindSpore 2.7 cannot split so on a CPU")
@pytest.mark.parametrize("name", ["Adam", "LARS"])
def test_vectors_are_multiplied_together_as_one_by_one(monkeypatch, name):
    """As it is done on Ascend."""
    found = []
    for device in ("CPU", "Ascend"):
        rng = np.random.default_rng(0)
        monkeypatch.setattr(optimizers, "get_context", lambda _, device=device: device)
        parameters = [Parameter(Tensor(rng.normal(size=shape).astype(np.float32)), name=key)
                      for key, shape in {**START, "gamma": (5,), "beta": (2,)}.items()]
        optimizer = build_optimizer(name, parameters, RATES, DECAY)
        for factor in (0.5, 0, 0.25):
            gradients = tuple(Tensor(rng.normal(size=p.shape).astype(np.float32)) for p in optimizer.parameters)
            optimizer(gradients, Tensor(np.float32(factor)))
        found.append(state(optimizer))
    assert all(np.array_equal(found[0][key], value) for key, value in found[1].items())
