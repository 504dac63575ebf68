"""Optimizers with their weight-decay groups."""
from typing import List

import numpy as np
from mindspore import Parameter, nn

SGD_MOMENTUM = 0.9


def default_learning_rate(name: str, global_batch: int) -> float:
    """Return the peak learning rate for ``global_batch`` images per step over all devices.

    Adam: the model zoo's 9e-4 at 1,024 images, scaled with the square root. SGD: 0.06 at 256,
    scaled linearly.
    """
    if name == "Adam":
        return 9e-4 * (global_batch / 1024) ** 0.5
    return 0.06 * global_batch / 256


def decays(parameter: Parameter) -> bool:
    """Weight decay is for the weights of convolutions and dense layers: what has two axes or more."""
    return parameter.ndim > 1


def build_optimizer(name: str, parameters: List[Parameter], learning_rates: np.ndarray,
                    weight_decay: float) -> nn.Optimizer:
    """Return Adam or SGD (with momentum 0.9) over ``parameters``.

    Args:
        name: Adam or SGD.
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
    return nn.Momentum(groups, learning_rate=rates, momentum=SGD_MOMENTUM)
