"""The CPU's own layers against PyTorch in float64: outputs, all gradients and running statistics."""
import cpu_cells
import numpy as np
import pytest
from cpu_layers import process_with
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.long

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

# Every example compiles a graph, so failures are not shrunk.
EXAMPLES = settings(max_examples=8, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
SIDES = st.integers(1, 9)
CHANNELS = st.one_of(st.integers(1, 20), st.sampled_from([16, 32, 48, 67]))
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def own():
    with process_with("own") as submit:
        yield lambda *arguments: submit(cpu_cells.run_layer, *arguments).result(300)


def drawn(rng, *shape, mean=0.0):
    return rng.normal(mean, 1, shape).astype(np.float32)


def standardised(x):
    deviation = x.std((0, 1, 2))
    return (x - x.mean((0, 1, 2))) / np.where(deviation > 1e-3, deviation, 1)


def to_torch(images):
    """Images (N, H, W, C) -> (N, C, H, W)."""
    return torch.from_numpy(images.astype(np.float64).transpose(0, 3, 1, 2)).requires_grad_()


def from_torch(images):
    return images.detach().numpy().transpose(0, 2, 3, 1)


def close(actual, expected, tolerance=2e-5, scale=1e-3):
    """Whether arrays agree as well as float32 allows, relative to the largest value or to ``scale``."""
    expected = np.asarray(expected)
    assert actual.shape == expected.shape and actual.dtype == np.float32
    return np.abs(actual - expected).max() <= tolerance * max(np.abs(expected).max(), scale)


@pytest.fixture(scope="module")
def on_avx2():
    """``own`` with oneDNN's kernels for a processor without AVX-512."""
    with process_with("own", ONEDNN_MAX_CPU_ISA="AVX2") as submit:
        yield lambda *arguments: submit(cpu_cells.run_layer, *arguments).result(300)


@EXAMPLES
@given(SEEDS, st.integers(1, 3), SIDES, SIDES, CHANNELS, CHANNELS, st.sampled_from([1, 3, 7]), st.sampled_from([1, 2]),
       st.booleans())
@example(0, 2, 8, 8, 4, 8, 1, 2, True)  # which oneDNN 3.10 alone computes wrongly
def test_convolution(own, on_avx2, seed, count, height, width, inputs, outputs, kernel, stride, avx2):
    rng = np.random.default_rng(seed)
    x, w = drawn(rng, count, height, width, inputs), drawn(rng, outputs, inputs, kernel, kernel)
    dy = drawn(rng, count, -(-height // stride), -(-width // stride), outputs)
    images, weight = to_torch(x), torch.from_numpy(w.astype(np.float64)).requires_grad_()
    y = torch.nn.functional.conv2d(images, weight, stride=stride, padding=kernel // 2)
    y.backward(to_torch(dy).detach())

    compute = on_avx2 if avx2 else own
    actual = compute("conv", ((inputs, outputs, kernel, stride), {"has_bias": False}), {"weight": w}, [x], [dy])
    assert close(actual.outputs[0], from_torch(y))
    assert close(actual.inputs[0], from_torch(images.grad))
    assert close(actual.gradients["weight"], weight.grad.numpy())


@EXAMPLES
@given(SEEDS, st.integers(1, 5), SIDES, SIDES, CHANNELS, st.sampled_from(["plain", "relu", "shortcut"]), st.booleans())
def test_batch_norm(own, seed, count, height, width, channels, end, training):
    """There are at least two pixels, for PyTorch has no statistics of one. They are standardised first: the variance of
    nearly equal pixels loses its digits, for it is the mean of squares less the square of the mean."""
    rng = np.random.default_rng(seed)
    count = max(count, 2) if height * width == 1 else count
    images = [standardised(drawn(rng, count, height, width, channels)) + mean
              for mean in ([2, 0] if end == "shortcut" else [2])]
    dy = drawn(rng, count, height, width, channels)
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    values = dict(zip(names, rng.uniform(0.5, 2, (4, channels)).astype(np.float32)))
    norm = torch.nn.BatchNorm2d(channels, momentum=0.1).double().train(training)
    parameters = dict(zip(names, (norm.weight, norm.bias, norm.running_mean, norm.running_var)))
    for name, parameter in parameters.items():
        parameter.data.copy_(torch.from_numpy(values[name]))
    inputs = [to_torch(x) for x in images]
    y = norm(inputs[0])
    y = y + inputs[1] if end == "shortcut" else y
    y = y if end == "plain" else torch.relu(y)
    # Rounding decides whether a ReLU is open near 0, so the gradient there is 0.
    dy *= np.abs(from_torch(y)) > 1e-4 if end != "plain" else 1
    y.backward(to_torch(dy).detach())

    actual = own("norm", ((channels,), {"relu": end != "plain"}), values, images, [dy], training)
    assert close(actual.outputs[0], from_torch(y))
    for gradient, expected in zip(actual.inputs, inputs):
        assert close(gradient, from_torch(expected.grad), scale=np.abs(dy).max())  # large parts may cancel out
    for name in ("gamma", "beta"):
        assert close(actual.gradients[name], parameters[name].grad.numpy(), scale=np.abs(dy).max())
    for name, parameter in parameters.items():
        assert close(actual.state[name], parameter.detach().numpy())


@EXAMPLES
@given(SEEDS, st.integers(1, 3), SIDES, SIDES, CHANNELS)
def test_max_pooling(own, seed, count, height, width, channels):
    """No two pixels are equal, for only then is the gradient unique."""
    rng = np.random.default_rng(seed)
    x = rng.permutation(count * height * width * channels).astype(np.float32).reshape(count, height, width, channels)
    x -= rng.integers(0, x.size)
    dy = drawn(rng, count, -(-height // 2), -(-width // 2), channels)
    images = to_torch(x)
    y = torch.nn.functional.max_pool2d(images, 3, 2, 1)
    y.backward(to_torch(dy).detach())

    actual = own("max_pool", ((), {}), {}, [x], [dy])
    assert np.array_equal(actual.outputs[0], from_torch(y))
    assert close(actual.inputs[0], from_torch(images.grad), 1e-6)


@settings(EXAMPLES, max_examples=4)
@given(SEEDS, st.integers(1, 5), SIDES, SIDES, CHANNELS)
def test_mean_fork_and_enter(own, seed, count, height, width, channels):
    rng = np.random.default_rng(seed)
    x, of_mean = drawn(rng, count, height, width, channels, mean=1), drawn(rng, count, channels)
    slopes = [drawn(rng, *x.shape) for _ in range(2)]

    actual = own("mean", ((), {}), {}, [x], [of_mean])
    assert close(actual.outputs[0], x.mean((1, 2), dtype=np.float64), 1e-6)
    assert close(actual.inputs[0], np.broadcast_to(of_mean[:, None, None] / (height * width), x.shape), 1e-6)

    actual = own("fork", ((), {}), {}, [x], slopes)
    assert all(np.array_equal(output, x) for output in actual.outputs) and len(actual.outputs) == 2
    assert np.array_equal(actual.inputs[0], slopes[0] + slopes[1])

    pixels = drawn(rng, count, 3, height, width)
    actual = own("enter", ((), {}), {}, [pixels], [drawn(rng, count, height, width, 3)])
    assert np.array_equal(actual.outputs[0], pixels.transpose(0, 2, 3, 1))
    assert not actual.inputs[0].any()
