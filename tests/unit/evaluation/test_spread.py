"""Alignment, uniformity, spread and effective rank against closed forms and plain transcriptions."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from src.evaluation.knn import unit_rows
from src.evaluation.spread import alignment, effective_rank, embedding_std, uniformity


def sphere(count, dimension, seed=0):
    return unit_rows(np.random.default_rng(seed).normal(size=(count, dimension)))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(2, 10), st.integers(0, 2**32 - 1))
def test_alignment_and_uniformity_are_the_papers(count, dimension, seed):
    x, y = (sphere(count, dimension, [seed, view]).astype(np.float32) for view in (0, 1))
    assert alignment(x, y) == pytest.approx((np.linalg.norm(x.astype(np.float64) - y, axis=1) ** 2).mean(), rel=1e-6)
    expected = np.log(np.exp(-2 * pdist(x.astype(np.float64)) ** 2).mean())
    assert uniformity(x) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_known_positions():
    x = sphere(10, 4)
    assert alignment(x, x) == 0
    assert alignment(x, -x) == pytest.approx(4)
    assert uniformity(np.tile(x[:1], (5, 1))) == pytest.approx(0)
    assert uniformity(np.array([[1.0, 0], [-1, 0]])) == pytest.approx(-8)  # distance 2: exp(-2 * 4)
    assert uniformity(np.eye(6)) == pytest.approx(-4)  # all distances are sqrt(2)


def test_random_directions_are_spread_out_and_uniform():
    z = sphere(2000, 128).astype(np.float32)
    assert embedding_std(z) == pytest.approx(128**-0.5, rel=0.01)
    assert alignment(z, np.roll(z, 1, 0)) == pytest.approx(2, rel=0.02)
    assert uniformity(z) == pytest.approx(-4, abs=0.1)


def test_a_collapse_shows():
    z = np.tile(sphere(1, 128), (500, 1)) + 1e-5 * sphere(500, 128, 1)
    assert embedding_std(unit_rows(z)) < 1e-5
    assert effective_rank(z) == pytest.approx(1, abs=0.01)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_effective_rank_is_the_papers(count, dimension, seed):
    rows = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    shares = np.linalg.svd(rows.astype(np.float64), compute_uv=False)
    shares = shares / shares.sum()
    assert effective_rank(rows) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-4)


def test_effective_rank_counts_equal_directions():
    rng, shape = np.random.default_rng(0), (50, 20)
    u = np.linalg.qr(rng.normal(size=(shape[0], 7)))[0]
    v = np.linalg.qr(rng.normal(size=(shape[1], 7)))[0]
    assert effective_rank(u @ v.T) == pytest.approx(7, rel=1e-4)
    assert effective_rank(np.zeros(shape)) == 0
