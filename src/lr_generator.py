"""The learning rate: the peak for an optimizer and a global batch, and the value for every step of a run."""
import numpy as np

STEP_DECAYS = {0.6: 0.1, 0.8: 0.01}  # share of the epochs after the warm-up -> factor from there on
POLYNOMIAL_POWER = 2

# Optimizer -> peak learning rate, the global batch B that it is for, and how it scales with B.
# - Adam: as in the model zoo.
# - SGD: half of what suits a mean over all views, because the loss here is twice that mean (src/nt_xent.py).
# - LARS: as in the paper (section 2.2 and appendix B.1). Its linear rule, 0.3 x B / 256, is 4.8 at B = 4096, and so is
#   its other rule, 0.075 x sqrt(B).
PEAKS = {"Adam": (9e-4, 1024, "sqrt"), "SGD": (0.03, 256, "linear"), "LARS": (4.8, 4096, "linear")}
EXPONENTS = {"linear": 1.0, "sqrt": 0.5}


def default_scaling(optimizer: str) -> str:
    """Return how the peak learning rate of an optimizer scales with the global batch by default."""
    return PEAKS[optimizer][2]


def default_learning_rate(optimizer: str, global_batch: int, scaling: str) -> float:
    """Return the peak learning rate of pretraining for ``global_batch`` images per step over all devices.

    ``optimizer`` is a key of ``PEAKS`` and ``scaling`` one of ``EXPONENTS``.
    """
    peak, batch, _ = PEAKS[optimizer]
    return peak * (global_batch / batch) ** EXPONENTS[scaling]


def fine_tuning_rate(global_batch: int) -> float:
    """Return the peak learning rate of fine-tuning with SGD: 0.05 x B / 256 for B images per step (paper, B.5)."""
    return 0.05 * global_batch / 256


def default_warmup(warmup_epochs: float, epochs: int) -> float:
    """Return the epochs of warm-up: ``warmup_epochs``, but at most 15 % of a short run."""
    return min(warmup_epochs, 0.15 * epochs)


def learning_rates(schedule: str, peak: float, epochs: int, steps_per_epoch: int,
                   warmup_epochs: float = 0.0) -> np.ndarray:
    """Return the learning rate of every step (epochs * steps_per_epoch,), float32.

    Warm-up step i of W has peak * (i + 1) / W, so the last one has the peak. Step i of the D steps after it has
    peak * f(t) with t = i / D, where f falls from 1 towards 0:

        linear 1 - t;  cosine (1 + cos(pi t)) / 2, without restarts;  polynomial (1 - t)^2;
        step 1, then 0.1 from t = 0.6 and 0.01 from t = 0.8
    """
    total = epochs * steps_per_epoch
    warmup = min(round(warmup_epochs * steps_per_epoch), total)
    rising = np.arange(1, warmup + 1) / max(warmup, 1)
    t = np.arange(total - warmup) / max(total - warmup, 1)
    starts = sorted(STEP_DECAYS, reverse=True)  # np.select takes the first condition that holds
    falling = {
        "linear": lambda: 1 - t,
        "cosine": lambda: 0.5 * (1 + np.cos(np.pi * t)),
        "polynomial": lambda: (1 - t) ** POLYNOMIAL_POWER,
        "step": lambda: np.select([t >= start for start in starts], [STEP_DECAYS[start] for start in starts], 1.0),
    }[schedule]()
    return (peak * np.concatenate([rising, falling])).astype(np.float32)
