"""LARS, the optimizer of the SimCLR paper (You et al. 2017, "Large batch training of convolutional networks")."""
from typing import Any, Callable, Dict, List

from mindspore import Parameter, nn, ops

MOMENTUM = 0.9
TRUST_COEFFICIENT = 0.001  # the paper's eta


def _update(momentum, rate, weight, velocity, gradient, adapts):
    """Update one parameter, whose ``gradient`` has the weight decay in it already."""
    if adapts:
        weight_norm, gradient_norm = ops.sqrt(ops.square(weight).sum()), ops.sqrt(ops.square(gradient).sum())
        trust = TRUST_COEFFICIENT * weight_norm / gradient_norm
        rate = rate * ops.select(ops.logical_and(weight_norm > 0, gradient_norm > 0), trust, ops.ones_like(trust))
    return momentum(weight, velocity, 1.0, rate * gradient, MOMENTUM)


class LARS(nn.Optimizer):
    """Momentum with a learning rate of its own for every layer, as SimCLR's original implementation has it
    (github.com/google-research/simclr, tf2/lars_optimizer.py):

        g = gradient + decay * w;  trust = 0.001 |w| / |g|;  v = 0.9 v + rate * trust * g;  w = w - v

    What does not ``adapt`` has trust 1, and so have a layer and a gradient of zeros. The rate is part of the
    velocity, so that a schedule acts on new gradients only.

    Args:
        groups: parameters with their weight decay, as every optimizer of MindSpore takes them.
        learning_rate: one for every step.
        adapts: says of a parameter whether its rate follows the ratio of the norms.

    Inputs:
        gradients, a tuple in the order of ``parameters``.
    """

    # MindSpore's own nn.LARS is another method: its trust is |w| / (|g| + decay |w| + 1e-5), and the rate stays outside
    # of the velocity. It is also deprecated since 2.9, and its kernel is missing on the CPU.

    def __init__(self, groups: List[Dict[str, Any]], learning_rate: List[float], adapts: Callable[[Parameter], bool]):
        super().__init__(learning_rate, groups)
        self.velocities = self.parameters.clone(prefix="velocity", init="zeros")
        self.adapts = tuple(adapts(parameter) for parameter in self.parameters)
        self.momentum = ops.ApplyMomentum()

    def construct(self, gradients):
        gradients = self.decay_weight(gradients)
        rate = self.get_lr()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        update = ops.partial(_update, self.momentum, rate)
        return self.hyper_map(update, self.parameters, self.velocities, gradients, self.adapts)
