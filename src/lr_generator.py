"""The learning rate of every step, as one array."""
import numpy as np

STEP_DECAYS = {0.6: 0.1, 0.8: 0.01}  # share of the epochs after the warm-up -> factor from there on
POLYNOMIAL_POWER = 2


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
