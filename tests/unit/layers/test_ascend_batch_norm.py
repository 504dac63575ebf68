"""Ascend's batch norm over two ranks against MindSpore's batch norm of the whole batch.

Its kernels exist on Ascend only. Here NumPy computes what CANN's documentation says of them; the dry runs of
tests/ascend check that the real kernels get arguments that they take.
"""
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import Tensor, nn, ops

from src.layers.ascend_batch_norm import NCHW, AscendBatchNorm, gradient_of_update
from src.layers.batch_norm import EPSILON, MOMENTUM

AXES = (0, 2, 3)


def channels(values):
    return values.asnumpy().astype(np.float64)[:, None, None]


def tensors(*arrays):
    return tuple(Tensor(array.astype(np.float32)) for array in arrays)


# --- BNTrainingReduce, BNTrainingUpdate, BNTrainingUpdateGrad, BNTrainingReduceGrad ---

def reduce(x, layout):
    assert layout == NCHW
    x = x.asnumpy().astype(np.float64)
    return tensors(x.sum(AXES), (x * x).sum(AXES))


def update(x, total, square_total, gamma, beta, moving_mean, moving_variance, layout):
    assert layout == NCHW
    x, count = x.asnumpy().astype(np.float64), x.size / x.shape[1]
    mean = total.asnumpy().astype(np.float64) / count
    variance = square_total.asnumpy() / count - mean**2
    moving_mean[:] = MOMENTUM * moving_mean + (1 - MOMENTUM) * mean
    moving_variance[:] = MOMENTUM * moving_variance + (1 - MOMENTUM) * variance * count / (count - 1)
    normal = (x - mean[:, None, None]) / np.sqrt(variance + EPSILON)[:, None, None]
    return tensors(channels(gamma) * normal + channels(beta), moving_mean, moving_variance, mean, variance)


def update_grad(gradient, x, mean, variance, layout):
    gradient, x = gradient.asnumpy().astype(np.float64), x.asnumpy()
    normal = (x - channels(mean)) / np.sqrt(channels(variance) + EPSILON)
    return tensors((gradient * normal).sum(AXES), gradient.sum(AXES))


def reduce_grad(gradient, x, d_gamma, d_beta, gamma, mean, variance, layout):
    count, scale = x.size / x.shape[1], 1 / np.sqrt(channels(variance) + EPSILON)
    normal = (x.asnumpy() - channels(mean)) * scale
    return tensors(channels(gamma) * scale * (
        gradient.asnumpy() - channels(d_beta) / count - normal * channels(d_gamma) / count))[0]


class Ranks:
    """Computes for one rank after the other, twice: the second time, the messages of all ranks are known."""

    def __init__(self):
        self.sent, self.means = [], None

    def mean_of_pair(self, first, second):
        self.sent.append((first.asnumpy(), second.asnumpy()))
        return (first, second) if self.means is None else tensors(*self.means)

    def each(self, compute):
        self.sent, self.means = [], None
        for rank in range(2):
            compute(rank)
        self.means = np.mean(self.sent, axis=0)
        results = [compute(rank) for rank in range(2)]
        assert len(self.sent) == 4  # one message of every rank, both times
        return results


@pytest.mark.long
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 5), st.sampled_from([(2, 1, 1), (2, 3, 2), (4, 1, 5)]))
def test_two_ranks_are_one_with_the_whole_batch(seed, width, shape):
    rng = np.random.default_rng(seed)
    batch, height, side = shape
    x, gradient = rng.normal(1, 2, (2, 2 * batch, width, height, side)).astype(np.float32)
    gamma, beta, mean, variance = rng.uniform(0.5, 2, (4, width)).astype(np.float32)

    whole = nn.BatchNorm2d(width, eps=EPSILON, momentum=MOMENTUM).set_train()
    for parameter, value in zip((whole.gamma, whole.beta, whole.moving_mean, whole.moving_variance),
                                (gamma, beta, mean, variance)):
        parameter.set_data(Tensor(value))
    y, vjp = ops.vjp(whole, Tensor(x), weights=whole.trainable_params())
    (d_x,), (d_gamma, d_beta) = vjp(Tensor(gradient))

    ranks, halves = Ranks(), [np.split(array, 2) for array in (x, gradient)]

    def forward(rank):
        outputs, statistics = [], (mean.copy(), variance.copy())

        def kept(*arguments):
            outputs.extend(update(*arguments))
            return outputs

        cell = SimpleNamespace(training=True, sums=reduce, mean_of_pair=ranks.mean_of_pair, update=kept,
                               gamma=Tensor(gamma), beta=Tensor(beta), moving_mean=statistics[0],
                               moving_variance=statistics[1])
        assert AscendBatchNorm.construct(cell, Tensor(halves[0][rank])) is outputs[0]
        return outputs, statistics

    results = ranks.each(forward)

    def backward(rank):
        bprop = gradient_of_update(SimpleNamespace(gradient_sums=update_grad, mean_of_pair=ranks.mean_of_pair,
                                                   gradient=reduce_grad))
        zeros = Tensor(np.zeros(width, np.float32))
        return bprop(Tensor(halves[0][rank]), zeros, zeros, Tensor(gamma), Tensor(beta), zeros, zeros, NCHW,
                     results[rank][0], [Tensor(halves[1][rank])])

    gradients = ranks.each(backward)

    def close(values, expected):
        return np.allclose(values, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max() + 1e-5)

    assert close(np.concatenate([outputs[0].asnumpy() for outputs, _ in results]), y.asnumpy())
    assert close(np.concatenate([parts[0].asnumpy() for parts in gradients]), d_x.asnumpy())
    assert close(sum(parts[3].asnumpy() for parts in gradients), d_gamma.asnumpy())
    assert close(sum(parts[4].asnumpy() for parts in gradients), d_beta.asnumpy())
    count = x.size / width / 2  # of one rank, as in nn.SyncBatchNorm
    for _, (moved_mean, moved_variance) in results:
        assert close(moved_mean, MOMENTUM * mean + (1 - MOMENTUM) * x.mean(AXES))
        assert close(moved_variance, MOMENTUM * variance + (1 - MOMENTUM) * x.var(AXES) * count / (count - 1))
