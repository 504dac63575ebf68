"""The optimizers: which parameters have weight decay, and the methods that move them, Adam, SGD and LARS.

An update can be called off, and takes few kernels: the host of an Ascend starts each of them.
"""
from typing import Any, List

import numpy as np
from mindspore import Parameter, Tensor, get_context, mint, nn, ops
from mindspore import dtype as mstype
from mindspore.ops.auto_generate import SplitWithSize

MOMENTUM = 0.9             # of SGD and LARS
BETAS = (0.9, 0.999)       # of Adam
EPSILON = 1e-8             # of Adam
TRUST_COEFFICIENT = 0.001  # of LARS, the paper's eta


def _decayed(decay, weight, gradient):
    return mint.add(gradient, weight, alpha=decay)


def _times(multiply, factor, gradient):
    return multiply(gradient, factor)


def _adam(adam, powers, betas, rate, weight, moment1, moment2, gradient):
    return adam(weight, moment1, moment2, powers[0], powers[1], rate, betas[0], betas[1], EPSILON, gradient)


def _momentum(momentum, share, rate, weight, velocity, gradient):
    return momentum(weight, velocity, rate, gradient, share)


class Optimizer(nn.Optimizer):
    """What the optimizers share: a learning rate for every update, weight decay, and the count of updates.

    Args:
        layers: the parameters with weight decay.
        vectors: those without, which have one axis.
        rates: the learning rate of every update.
        decay: so much of a layer's weights is added to their gradient.

    Inputs:
        gradients: a tuple in the order of ``parameters``, the layers' before the vectors'.
        factor: a scalar that the gradients are multiplied by. With 0 everything stays as it is, the count of updates
            too, whatever is in the gradients, NaN and infinity not excepted. None is 1.
    """

    def __init__(self, layers: List[Parameter], vectors: List[Parameter], rates: List[float], decay: float):
        super().__init__(rates, [*layers, *vectors])
        self.layers = self.parameters[:len(layers)]
        self.sizes = tuple(vector.size for vector in vectors)
        self.decay = decay
        self.multiply = ops.MulNoNan()  # 0 whatever is multiplied by 0
        self.split = SplitWithSize()    # mint.split gives views, which are no inputs for the kernels of updates
        self.joins = get_context("device_target") == "Ascend"
        self.one, self.zero = Tensor(1.0, mstype.float32), Tensor(0.0, mstype.float32)

    def construct(self, gradients, factor=None):
        layers, vectors = gradients[:len(self.layers)], gradients[len(self.layers):]
        rate, counted, happens = self.get_lr(), self.global_step_increase_tensor, None
        if factor is not None:
            happens = ops.not_equal(factor, 0)
            rate, counted = rate * happens.astype(mstype.float32), happens.astype(mstype.int32).reshape(1)
            layers, vectors = self.times(factor, layers), self.all_times(factor, vectors)
        if self.decay:
            layers = self.hyper_map(ops.partial(_decayed, self.decay), self.layers, layers)
        ops.assign_add(self.global_step, counted)
        return self.update(layers, vectors, rate, happens)

    def times(self, factor, tensors):
        """Multiply each of ``tensors`` by a factor."""
        return self.hyper_map(ops.partial(_times, self.multiply, factor), tensors)

    def all_times(self, factor, vectors):
        """Do the same; on Ascend, where a kernel costs more than short vectors do, in one for all of them."""
        if not self.joins or not vectors:
            return self.times(factor, vectors)
        return self.split(self.multiply(ops.concat(vectors), factor), self.sizes, 0)

    def unless(self, happens, changed, unchanged):
        """Return what is ``changed`` by an update, or ``unchanged`` where none happens."""
        return changed if happens is None else ops.select(happens, changed, unchanged)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015), with the weight decay as a part of the gradient."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.moment1 = self.parameters.clone(prefix="moment1", init="zeros")
        self.moment2 = self.parameters.clone(prefix="moment2", init="zeros")
        self.beta1_power = Parameter(Tensor(1.0, mstype.float32), name="beta1_power")
        self.beta2_power = Parameter(Tensor(1.0, mstype.float32), name="beta2_power")
        self.beta1, self.beta2 = (Tensor(beta, mstype.float32) for beta in BETAS)
        self.adam = ops.Adam()

    def update(self, layers, vectors, rate, happens):
        betas = (self.unless(happens, self.beta1, self.one), self.unless(happens, self.beta2, self.one))
        powers = (self.beta1_power * self.beta1, self.beta2_power * self.beta2)
        ops.assign(self.beta1_power, self.unless(happens, powers[0], self.beta1_power))
        ops.assign(self.beta2_power, self.unless(happens, powers[1], self.beta2_power))
        return self.hyper_map(ops.partial(_adam, self.adam, powers, betas, rate), self.parameters, self.moment1,
                              self.moment2, layers + vectors)


class Momentum(Optimizer):
    """SGD with momentum: v = 0.9 v + g, w = w - rate v."""

    prefix = "moments"  # of the names of v in a checkpoint

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.velocities = self.parameters.clone(prefix=self.prefix, init="zeros")
        self.share = Tensor(MOMENTUM, mstype.float32)
        self.momentum = ops.ApplyMomentum()

    def update(self, layers, vectors, rate, happens):
        if happens is not None:  # the decay was added after they were multiplied by 0
            layers = self.times(happens.astype(mstype.float32), layers)
        return self.move(layers + vectors, rate, happens)

    def move(self, gradients, rate, happens):
        """Update velocities and parameters."""
        share = self.unless(happens, self.share, self.one)
        return self.hyper_map(ops.partial(_momentum, self.momentum, share, rate), self.parameters, self.velocities,
                              gradients)


class LARS(Momentum):
    """Momentum with a learning rate of its own for every layer (You et al. 2017, "Large batch training of
    convolutional networks"), as SimCLR's original implementation has it
    (github.com/google-research/simclr, tf2/lars_optimizer.py):

        g = gradient + decay * w;  trust = 0.001 |w| / |g|;  v = 0.9 v + rate * trust * g;  w = w - v

    Vectors have trust 1, and so have a layer and a gradient of zeros. The rate is part of the velocity, so that a
    schedule acts on new gradients only.
    """

    # MindSpore's own nn.LARS is another method: its trust is |w| / (|g| + decay |w| + 1e-5), and the rate stays outside
    # of the velocity. It is also deprecated since 2.9, and its kernel is missing on the CPU.

    prefix = "velocity"

    def update(self, layers, vectors, rate, happens):
        if layers:  # what is alike is computed for all at once
            trusts = _trust(ops.stack(self.hyper_map(_square_sum, self.layers)),
                            ops.stack(self.hyper_map(_square_sum, layers)))
            layers = self.hyper_map(ops.mul, layers, ops.unstack(rate * trusts))
        return self.move(layers + self.all_times(rate, vectors), self.unless(happens, self.one, self.zero), happens)


def _square_sum(values):
    return ops.square(values).sum()


def _trust(weight_squares, gradient_squares):
    """Sums of squares (layers,) -> trust of every layer."""
    trust = TRUST_COEFFICIENT * ops.sqrt(weight_squares) / ops.sqrt(gradient_squares)
    return ops.select(ops.logical_and(weight_squares > 0, gradient_squares > 0), trust, ops.ones_like(trust))


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
