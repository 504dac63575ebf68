"""Learning rates at their corner points."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.lr_generator import default_warmup, learning_rates

NAMES = ["linear", "cosine", "step", "polynomial"]


@pytest.mark.parametrize("schedule, after_warmup, quarter, half, last", [
    ("linear", 1, 0.75, 0.5, 0.01),
    ("cosine", 1, (1 + np.sqrt(0.5)) / 2, 0.5, (1 + np.cos(np.pi * 0.99)) / 2),
    ("polynomial", 1, 0.5625, 0.25, 0.0001),
    ("step", 1, 1, 1, 0.01),
])
def test_corner_points(schedule, after_warmup, quarter, half, last):
    rates = learning_rates(schedule, peak=2.0, epochs=11, steps_per_epoch=10, warmup_epochs=1)
    assert rates.dtype == np.float32
    assert len(rates) == 110
    assert np.allclose(rates[:10], 2.0 * np.arange(1, 11) / 10)
    assert np.allclose(rates[[10, 35, 60, 109]], 2.0 * np.array([after_warmup, quarter, half, last]), rtol=1e-6)


def test_step_decays_at_60_and_80_percent():
    rates = learning_rates("step", 1.0, 10, 10)
    assert np.allclose(rates[[0, 59, 60, 79, 80, 99]], [1, 1, 0.1, 0.1, 0.01, 0.01])


@given(st.sampled_from(NAMES), st.integers(1, 50), st.integers(1, 20), st.floats(0, 60), st.floats(1e-6, 10))
def test_every_schedule_rises_to_the_peak_and_falls(schedule, epochs, steps, warmup, peak):
    rates = learning_rates(schedule, peak, epochs, steps, warmup)
    top = min(round(warmup * steps), epochs * steps)
    assert len(rates) == epochs * steps
    assert (rates > 0).all()
    assert (rates <= peak * (1 + 1e-6)).all()
    assert (np.diff(rates[:top]) >= 0).all()
    assert (np.diff(rates[top:]) <= 0).all()


@pytest.mark.parametrize("epochs, warmup", [(1000, 15), (10, 1.5)])
def test_default_warmup(epochs, warmup):
    assert np.isclose(default_warmup(15, epochs), warmup)
