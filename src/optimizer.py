"""Optimizers with their weight-decay groups."""
from typing import List

import numpy as np
from mindspore import Parameter, nn

from src.lars import LARS

SGD_MOMENTUM = 0.9

# A peak learning rate, the global batch that it is for, and how it follows other ones. Adam has the model zoo's,
# LARS the paper's: 0.3 x B / 256 is 4.8 x B / 4096, and its other rule, 0.075 x sqrt(B), is 4.8 x sqrt(B / 4096).
PEAKS = {"Adam": (9e-4, 1024, "sqrt"), "SGD": (0.06, 256, "linear"), "LARS": (4.8, 4096, "linear")}
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


def decays(parameter: Parameter) -> bool:
    """Weight decay is for the weights of convolutions and dense layers: what has two axes or more."""
    return parameter.ndim > 1


def build_optimizer(name: str, parameters: List[Parameter], learning_rates: np.ndarray,
                    weight_decay: float) -> nn.Optimizer:
    """Return Adam, SGD (with momentum 0.9) or LARS over ``parameters``.

    Args:
        name: a key of ``PEAKS``.
        parameters: all that train.
        learning_rates: one for every step of the whole run.
        weight_decay: L2 penalty, added to the gradients of what ``decays``.
    """
    groups = [{"params": [p for p in parameters if decays(p)], "weight_decay": weight_decay},
              {"params": [p for p in parameters if not decays(p)], "weight_decay": 0.0},
              {"order_params": parameters}]
    rates = learning_rates.tolist()
    if name == "Adam":
        return nn.Adam(groups, learning_rate=rates)
    if name == "LARS":
        return LARS(groups, rates, adapts=decays)
    return nn.Momentum(groups, learning_rate=rates, momentum=SGD_MOMENTUM)
