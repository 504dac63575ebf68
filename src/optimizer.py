"""Optimizers with their weight-decay groups."""
from typing import List

import numpy as np
from mindspore import Parameter, nn

from src.layers.lars import LARS

SGD_MOMENTUM = 0.9


def decays(parameter: Parameter) -> bool:
    """Weight decay is for the weights of convolutions and dense layers: what has two axes or more."""
    return parameter.ndim > 1


def build_optimizer(name: str, parameters: List[Parameter], learning_rates: np.ndarray,
                    weight_decay: float) -> nn.Optimizer:
    """Return Adam, SGD (with momentum 0.9) or LARS over ``parameters``.

    Args:
        name: Adam, SGD or LARS.
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
