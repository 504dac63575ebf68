"""The peak learning rate of an optimizer, and the learning rate of every step, as one array."""
import numpy as np

STEP_DECAYS = {0.6: 0.1, 0.8: 0.01}  # share of the epochs after the warm-up -> factor from there on
POLYNOMIAL_POWER = 2

# A peak learning rate, the global batch that it is for, and how it follows other ones. Adam has the model zoo's, SGD
# half of what suits a loss that is the mean over all views, for the one here (src/nt_xent.py) is twice that mean,
# LARS the paper's: 0.3 x B / 256 is 4.8 x B / 4096, and its other rule, 0.075 x sqrt(B), is 4.8 x sqrt(B / 4096).
PEAKS = {"Adam": (9e-4, 1024, "sqrt"), "SGD": (0.03, 256, "linear"), "LARS": (4.8, 4096, "linear")}
EXPONENTS = {"linear": 1.0, "sqrt": 0.5}


def default_scaling(name: str) -> str:
    """Return how the learning rate of an optimizer follows the global batch, where the user does not say it."""
    return PEAKS[name][2]


def default_learning_rate(name: str, global_batch: int, scaling: str) -> float:
    """Return the peak learning rate for ``global_batch`` images per step over all devices.

    Args:
        name: a key of ``PEAKS``.
        global_batch: B.
        scaling: a key of ``EXPONENTS``.
    """
    peak, batch, _ = PEAKS[name]
    return peak * (global_batch / batch) ** EXPONENTS[scaling]


def fine_tuning_rate(global_batch: int) -> float:
    """Return the peak learning rate of fine-tuning with SGD, 0.05 x B / 256 for B images per step (paper, B.5)."""
    return 0.05 * global_batch / 256


def default_warmup(warmup_epochs: float, epochs: int) -> float:
    """Return the warm-up of a run that was given none: ``warmup_epochs``, or 15 % of a short run."""
    return min(warmup_epochs, 0.15 * epochs)


def learning_rates(schedule: str, peak: float, epochs: int, steps_per_epoch: int,
                   warmup_epochs: float = 0.0) -> np.ndarray:
    """Return the learning rates (epochs * steps_per_epoch,), float32.

    Step i of W warm-up steps has peak * (i + 1) / W, so the last of them has the peak itself. Step
    W + i of the D that follow has peak * f(i / D), with f falling from 1 towards 0: ``linear``
    1 - t, ``cosine`` (1 + cos(pi t)) / 2 (no restarts), ``polynomial`` (1 - t)^2, and ``step`` 1, 0.1
    from t = 0.6, 0.01 from t = 0.8.
    """
    total = epochs * steps_per_epoch
    warmup = min(round(warmup_epochs * steps_per_epoch), total)
    rising = np.arange(1, warmup + 1) / max(warmup, 1)
    t = np.arange(total - warmup) / max(total - warmup, 1)
    falling = {
        "linear": lambda: 1 - t,
        "cosine": lambda: 0.5 * (1 + np.cos(np.pi * t)),
        "polynomial": lambda: (1 - t) ** POLYNOMIAL_POWER,
        "step": lambda: np.select([t >= start for start in sorted(STEP_DECAYS, reverse=True)],
                                  [STEP_DECAYS[start] for start in sorted(STEP_DECAYS, reverse=True)], 1.0),
    }[schedule]()
    return (peak * np.concatenate([rising, falling])).astype(np.float32)
