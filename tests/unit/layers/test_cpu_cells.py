"""The CPU's own layers: bfloat16 against float32, and encoders of them against encoders of MindSpore's layers."""
import cpu_cells
import numpy as np
import pytest
from cpu_layers import need_bfloat16, process_with

from src.settings.network import Network


@pytest.fixture(scope="module")
def own():
    """A function that calls another in a process with the CPU's own layers."""
    with process_with("own") as submit:
        yield submit


@pytest.fixture(scope="module")
def mindspore():
    """A function that calls another in a process with MindSpore's layers."""
    with process_with("mindspore") as submit:
        yield submit


def rounded(values):
    """Return float32 values without the digits that bfloat16 lacks."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x8000) & 0xffff0000).astype(np.uint32).view(np.float32)


def distance(actual, expected):
    """Return the greatest difference, relative to the greatest expected value."""
    assert actual.shape == expected.shape and actual.dtype == expected.dtype == np.float32
    return np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-6)


# --- the norm of the gradients ---

@pytest.mark.parametrize("shapes", [
    [(1,)], [(31,), (32,), (33,), (8191,), (8192,), (8193,), (16383,), (4, 4096), (3, 5461, 1, 1), (64, 64, 3, 3)]])
def test_the_norm_of_gradients_is_numpys(own, shapes):
    norm, expected = own(cpu_cells.gradient_norm, shapes, len(shapes)).result(300)
    assert norm == pytest.approx(expected, rel=1e-6)


# --- bfloat16 ---

RNG = np.random.default_rng(0)
IMAGES = rounded(RNG.normal(0.5, 1, (2, 2, 7, 6, 19)))
OF_NORM = dict(zip(("gamma", "beta", "moving_mean", "moving_variance"),
                   RNG.uniform(0.5, 2, (4, 19)).astype(np.float32)))
# The layer, its arguments, values of its parameters, the number of its inputs, and the shapes of its outputs.
LAYERS = {
    **{f"conv {kernel}, stride {stride}": (
        "conv", ((19, 5, kernel, stride), {"has_bias": False}),
        {"weight": rounded(RNG.normal(0, 0.2, (5, 19, kernel, kernel)))}, 1, [(2, -(-7 // stride), -(-6 // stride), 5)])
       for kernel, stride in ((1, 1), (3, 2))},
    "norm": ("norm", ((19,), {"relu": False}), OF_NORM, 1, [IMAGES[0].shape]),
    "norm, shortcut, ReLU": ("norm", ((19,), {}), OF_NORM, 2, [IMAGES[0].shape]),
    "fork": ("fork", ((), {}), {}, 1, [IMAGES[0].shape] * 2),
    "max pool": ("max_pool", ((), {}), {}, 1, [(2, 4, 3, 19)]),
    "mean": ("mean", ((), {}), {}, 1, [(2, 19)]),
}


@pytest.mark.parametrize("layer, training", [
    *((layer, True) for layer in LAYERS), ("norm, shortcut, ReLU", False)])
def test_bfloat16_is_rounded_float32(own, layer, training):
    """For images and gradients that bfloat16 represents exactly, the sums are the same as in float32."""
    need_bfloat16()
    name, arguments, values, images, shapes = LAYERS[layer]
    slopes = [rounded(np.random.default_rng(1).normal(0, 1, shape)) for shape in shapes]
    expected, actual = (own(cpu_cells.run_layer, name, arguments, values, list(IMAGES[:images]), slopes, training,
                           bfloat16).result(300) for bfloat16 in (False, True))
    assert actual.types == {"outputs": {"Float32" if name == "mean" else "BFloat16"},
                           "gradients": {"Float32"} if values else set()}
    for one, other in zip(actual.outputs + actual.inputs, expected.outputs + expected.inputs):
        assert distance(one, other) < 2**-8
    for key in expected.gradients:
        assert distance(actual.gradients[key], expected.gradients[key]) < 1e-5
    for key in expected.state:
        assert distance(actual.state[key], expected.state[key]) < 1e-6


@pytest.mark.parametrize("images, side, kernel, stride", [
    (300, 4, 3, 1), (3, 3, 3, 2), (2, 5, 1, 1), (2, 5, 1, 2), (1, 1, 3, 1)])
def test_a_gradient_of_weights_by_a_product_of_matrices(own, images, side, kernel, stride):
    """Many channels on small maps; 300 images have more pixels than a piece of the product."""
    need_bfloat16()
    rng = np.random.default_rng(0)
    out = -(-side // stride)
    x, slopes = (rounded(rng.normal(0, 1, shape)) for shape in ((images, side, side, 64), (images, out, out, 5)))
    weights = {"weight": rounded(rng.normal(0, 0.1, (5, 64, kernel, kernel)))}
    expected, actual = (own(cpu_cells.run_layer, "conv", ((64, 5, kernel, stride), {"has_bias": False}), weights, [x],
                            [slopes], True, bfloat16).result(300) for bfloat16 in (False, True))
    assert distance(actual.gradients["weight"], expected.gradients["weight"]) < 1e-5


def test_bfloat16_rounds_to_the_nearest_and_keeps_nan_and_infinity(own):
    need_bfloat16()
    quiet = np.array([0x7f800001, 0xffc00000], np.uint32).view(np.float32)  # the first has no bits in its upper half
    given = [*quiet, np.inf, -np.inf, -0.0, 3.4e38, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1e-40]
    expected = [np.nan, np.nan, np.inf, -np.inf, -0.0, np.inf, 1, 1 + 2**-6, 1 + 2**-7]
    x = np.array([given] * 3, np.float32).reshape(1, 3, 1, -1)
    slopes = np.zeros((1, 1, len(given), 3), np.float32)
    actual = own(cpu_cells.run_layer, "enter", ((), {}), {}, [x], [slopes], True, True).result(300).outputs[0][..., 0]
    actual = actual.ravel()
    assert np.array_equal(actual[:-1], np.array(expected, np.float32), equal_nan=True)
    assert np.array_equal(np.signbit(actual[2:]), np.signbit(given[2:]))


def test_nan_and_infinity_pass(own):
    x = np.full((1, 5, 5, 3), 1, np.float32)
    x[0, 0, 0] = np.nan, np.inf, -np.inf
    values = {key: value[:3] for key, value in OF_NORM.items()}
    for name, arguments, of_layer, side, expected in (
            ("norm", ((3,), {}), values, 5, (np.nan, np.inf, 0)), ("max_pool", ((), {}), {}, 3, (np.nan, np.inf, 1))):
        slopes = [np.zeros((1, side, side, 3), np.float32)]
        actual = own(cpu_cells.run_layer, name, arguments, of_layer, [x], slopes, False).result(300)
        assert np.array_equal(actual.outputs[0][0, 0, 0], np.array(expected, np.float32), equal_nan=True)
        assert np.isfinite(actual.outputs[0][0, 1:]).all() and np.isfinite(actual.outputs[0][0, :, 1:]).all()


def test_results_are_the_same_to_the_bit_every_time(own):
    """The threads' sums are added in a fixed order."""
    rng = np.random.default_rng(0)
    x, dy = rng.normal(0, 1, (2, 4, 33, 31, 24)).astype(np.float32)
    weights = {"weight": rng.normal(0, 1, (24, 24, 3, 3)).astype(np.float32)}
    values = dict(zip(OF_NORM, rng.uniform(0.5, 2, (4, 24)).astype(np.float32)))
    for arguments in (("conv", ((24, 24, 3, 1), {"has_bias": False}), weights, [x], [dy]),
                      ("norm", ((24,), {}), values, [x, dy], [dy])):
        first, second = (own(cpu_cells.run_layer, *arguments).result(300) for _ in range(2))
        for one, other in zip((*first.outputs, *first.inputs, *first.gradients.values(), *first.state.values()),
                              (*second.outputs, *second.inputs, *second.gradients.values(), *second.state.values())):
            assert np.array_equal(one, other)


# --- encoders ---

def views(side, count=16):
    return np.random.default_rng(2).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def network(encoder, width, stem="cifar", side=32):
    return Network(encoder, width, stem, side, (0.5, 0.4, 0.3), (0.2, 0.3, 0.2), 16, True), views(side)


@pytest.mark.long
@pytest.mark.parametrize("encoder, stem, side", [("resnet18", "imagenet", 33), ("resnet50", "cifar", 12)])
def test_an_encoder_computes_the_same_as_with_mindspores_layers(own, mindspore, encoder, stem, side):
    """With few pixels, for rounding decides whether a ReLU is open whose input is near 0, one of a million."""
    arguments = network(encoder, 0.0625, stem, side)
    pending = own(cpu_cells.run_step, "own", *arguments), mindspore(cpu_cells.run_step, "mindspore", *arguments)
    actual, expected = (each.result(300) for each in pending)
    for part in ("initial", "gradients", "state"):
        assert list(actual[part]) == list(expected[part])
    for name, weight in expected["initial"].items():
        assert np.array_equal(actual["initial"][name], weight)
    assert actual["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert distance(actual["h"], expected["h"]) < 1e-4
    assert distance(actual["inferred"], expected["inferred"]) < 1e-4
    for part in ("gradients", "state"):
        distances = {name: distance(actual[part][name], value) for name, value in expected[part].items()}
        assert max(distances.values()) < 1e-4, max(distances.items(), key=lambda item: item[1])


@pytest.mark.long
def test_a_step_copies_no_weights(tmp_path):
    """MindSpore copies weights that are read in two places if a cell with a ``bprop`` lies between them."""
    with process_with("own", MS_DEV_SAVE_GRAPHS="2", MS_DEV_SAVE_GRAPHS_PATH=str(tmp_path)) as submit:
        loss = submit(cpu_cells.train_step, "own", *network("resnet18", 0.0625, side=8)).result(300)
    graph = next(tmp_path.rglob("graph_build_*.ir")).read_text()
    assert np.isfinite(loss) and "convolution_to_weights" in graph
    assert "TensorMove(" not in graph


def cosine(one, other):
    return one @ other / (np.linalg.norm(one) * np.linalg.norm(other))


@pytest.mark.long
def test_an_encoder_in_bfloat16_learns_nearly_the_same(own):
    need_bfloat16()
    arguments = network("resnet18", 0.125, side=16)
    expected, actual = (own(cpu_cells.run_step, "own", *arguments, bfloat16).result(300) for bfloat16 in (False, True))
    assert expected["loss"] != actual["loss"] == pytest.approx(expected["loss"], rel=1e-2)
    for part in ("initial", "gradients", "state"):
        assert {value.dtype for value in actual[part].values()} == {np.dtype(np.float32)}
    pairs = {name: (gradient.ravel(), actual["gradients"][name].ravel())
             for name, gradient in expected["gradients"].items()}
    cosines = {name: cosine(*pair) for name, pair in pairs.items()}
    assert min(cosines.values()) > 0.9, min(cosines.items(), key=lambda item: item[1])
    assert cosine(*(np.concatenate(vectors) for vectors in zip(*pairs.values()))) > 0.98
