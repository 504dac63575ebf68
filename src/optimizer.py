"""The optimizer of a training: which parameters have weight decay, and which method moves them."""
from typing import List

import numpy as np
from mindspore import Parameter

from src.layers.optimizers import LARS, Adam, Momentum, Optimizer


def decays(parameter: Parameter) -> bool:
    """Weight decay is for the weights of convolutions and dense layers: what has two axes or more."""
    return parameter.ndim > 1


def build_optimizer(name: str, parameters: List[Parameter], learning_rates: np.ndarray,
                    weight_decay: float) -> Optimizer:
    """Return Adam, SGD (with momentum 0.9) or LARS over ``parameters``.

    Args:
        name: Adam, SGD or LARS.
        parameters: all that train.
        learning_rates: one for every step of the whole run.
        weight_decay: L2 penalty, added to the gradients of what ``decays``.
    """
    layers = [parameter for parameter in parameters if decays(parameter)]
    vectors = [parameter for parameter in parameters if not decays(parameter)]
    method = {"Adam": Adam, "SGD": Momentum, "LARS": LARS}[name]
    return method(layers, vectors, learning_rates.tolist(), weight_decay)
