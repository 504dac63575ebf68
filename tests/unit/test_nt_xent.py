"""The loss against the paper's formula, written out in NumPy float64."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import Tensor, nn, ops

from src.nt_xent import NTXent

BATCH, DIMENSION = 5, 7


def reference(z, temperature, views=2):
    """Return twice the mean loss, the accuracy and the smallest margin of a positive, pair by pair."""
    z = z.astype(np.float64)
    count = len(z) // views
    losses, margins = [], []
    for i in range(len(z)):
        similarity = [z[i] @ z[k] / (np.linalg.norm(z[i]) * np.linalg.norm(z[k])) / temperature
                      for k in range(len(z))]
        negatives = [similarity[k] for k in range(len(z)) if k % count != i % count]
        for positive in range(i % count, len(z), count):
            if positive != i:
                compared = [similarity[positive], *negatives]
                losses.append(-similarity[positive] + np.log(sum(np.exp(s) for s in compared)))
                margins.append(similarity[positive] - max(negatives))
    return 2 * np.mean(losses), np.mean(np.array(margins) > 0), np.abs(margins).min()


def value_and_grad(loss, z):
    (value, _), gradient = ops.value_and_grad(loss, 0, None, has_aux=True)(Tensor(z))
    return value.asnumpy(), gradient.asnumpy()


def random_embeddings(seed, views):
    return np.random.default_rng(seed).normal(size=(views * BATCH, DIMENSION)).astype(np.float32)


@pytest.fixture(scope="module")
def losses():
    """By temperature and number of views."""
    return {key: NTXent(key[0], views_per_image=key[1])
            for key in ((0.1, 2), (0.5, 2), (2.0, 2), (0.2, 3), (0.2, 4))}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(0.1, 2), (0.5, 2), (2.0, 2), (0.2, 3), (0.2, 4)]),
       st.floats(1e-2, 1e3))
def test_value_and_accuracy(losses, seed, key, scale):
    temperature, views = key
    z = np.random.default_rng(seed).normal(size=(views * BATCH, DIMENSION)).astype(np.float32)
    loss, accuracy = losses[key](Tensor((z * scale).astype(np.float32)))
    expected_loss, expected_accuracy, margin = reference(z, temperature, views)
    assert np.isclose(loss.asnumpy(), expected_loss, rtol=2e-6)
    if margin > 1e-5:  # else rounding decides
        assert np.isclose(accuracy.asnumpy(), expected_accuracy)


@pytest.mark.parametrize("views", [2, 4])
def test_gradient_by_central_differences(views):
    z = np.random.default_rng(1).normal(size=(views * BATCH, DIMENSION))
    _, gradient = value_and_grad(NTXent(0.5, views_per_image=views), z.astype(np.float32))
    numeric = np.empty_like(z)
    for index in np.ndindex(z.shape):
        step = np.zeros_like(z)
        step[index] = 1e-5
        numeric[index] = (reference(z + step, 0.5, views)[0] - reference(z - step, 0.5, views)[0]) / 2e-5
    assert np.abs(gradient - numeric).max() / np.abs(numeric).max() < 1e-5


@pytest.mark.parametrize("scale", [1e-4, 6e4])
def test_float16_is_safe(losses, scale):
    z = np.sign(np.random.default_rng(3).normal(size=(2 * BATCH, DIMENSION))) * scale
    z = (z * np.random.default_rng(4).uniform(0.5, 1, z.shape)).astype(np.float16)
    value, gradient = value_and_grad(losses[0.1, 2], z)
    assert np.isclose(value, reference(z, 0.1)[0], rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_zero_embeddings_are_finite(losses):
    value, gradient = value_and_grad(losses[0.5, 2], np.zeros((2 * BATCH, DIMENSION), np.float32))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_wrong_arguments(losses):
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        NTXent(0)
    with pytest.raises(ValueError, match="views_per_image must be at least 2, got 1"):
        NTXent(views_per_image=1)
    with pytest.raises(ValueError, match="takes 2 views of every image, got 9 rows"):
        losses[0.5, 2](Tensor(np.ones((9, DIMENSION), np.float32)))


class Given(nn.Cell):
    """In place of the gather: what all ranks have sent, as seen by one of them."""

    def __init__(self, rank, everything):
        super().__init__()
        self.rank = rank
        self.everything = everything

    def construct(self, z):
        rows = z.shape[0]
        before, after = self.everything[:self.rank * rows], self.everything[(self.rank + 1) * rows:]
        return ops.concat([before, z, after])


@pytest.mark.long
@pytest.mark.parametrize("world_size, count", [(4, 2), (2, 3)])
def test_the_ranks_have_the_loss_of_the_global_batch(world_size, count):
    """The rows of every rank's own anchors: the mean over the ranks is the loss over all."""
    views = np.random.default_rng(5).normal(size=(count, world_size * BATCH, DIMENSION)).astype(np.float32)
    expected, expected_accuracy, _ = reference(views.reshape(-1, DIMENSION), 0.5, count)
    local = [views[:, rank::world_size].reshape(-1, DIMENSION) for rank in range(world_size)]
    unit = np.concatenate([z / np.linalg.norm(z, axis=1, keepdims=True) for z in local])
    found = []
    for rank, z in enumerate(local):
        loss = NTXent(0.5, rank, world_size, count)
        loss.gather = Given(rank, Tensor(unit))
        found.append([float(value.asnumpy()) for value in loss(Tensor(z))])
    assert np.allclose(np.mean(found, 0), [expected, expected_accuracy], rtol=1e-6)
