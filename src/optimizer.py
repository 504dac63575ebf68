"""The optimizers Adam, SGD with momentum and LARS, and which parameters have weight decay.

They differ from MindSpore's own in two ways. An update can be skipped, which mixed precision needs after an overflow.
And an update takes few kernels, because on Ascend the host starts every one, which takes time.
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


def build_optimizer(name: str, parameters: List[Parameter], learning_rates: np.ndarray,
                    weight_decay: float) -> "Optimizer":
    """Return the optimizer ``name`` (Adam, SGD or LARS) for ``parameters``.

    Args:
        learning_rates: one for every update of this optimizer, from its first one on.
        weight_decay: factor of the weights that is added to their gradients, if the parameter ``decays``.
    """
    layers = [parameter for parameter in parameters if decays(parameter)]
    vectors = [parameter for parameter in parameters if not decays(parameter)]
    method = {"Adam": Adam, "SGD": Momentum, "LARS": LARS}[name]
    return method(layers, vectors, learning_rates.tolist(), weight_decay)


def decays(parameter: Parameter) -> bool:
    """Return whether a parameter has weight decay: weights of convolutions and dense layers, not biases and norms."""
    return parameter.ndim > 1


class Optimizer(nn.Optimizer):
    """The base of the optimizers: learning rate, weight decay, and the count of updates.

    Args:
        layers: the parameters with weight decay.
        vectors: the parameters without it, which have one axis.
        rates: the learning rate of every update.
        decay: the weight decay.

    Inputs:
        gradients: a tuple in the order of ``parameters``: the layers' gradients, then the vectors'.
        factor: a scalar that multiplies the gradients. 0 skips the update: parameters, moments and the count of updates
            stay as they are, even if gradients are NaN or infinite. None is 1.
    """

    def __init__(self, layers: List[Parameter], vectors: List[Parameter], rates: List[float], decay: float):
        super().__init__(rates, [*layers, *vectors])
        self.layers = self.parameters[:len(layers)]
        self.sizes = tuple(vector.size for vector in vectors)
        self.decay = decay
        self.multiply = ops.MulNoNan()  # gives 0 for 0 x NaN
        self.split = SplitWithSize()    # not mint.split: the kernels of updates do not take windows of one tensor
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
            layers = self.hyper_map(ops.partial(_add_decay, self.decay), self.layers, layers)
        ops.assign_add(self.global_step, counted)
        return self.update(layers, vectors, rate, happens)

    def times(self, factor, tensors):
        """Multiply each of ``tensors`` by ``factor``."""
        return self.hyper_map(ops.partial(_multiply, self.multiply, factor), tensors)

    def all_times(self, factor, vectors):
        """Multiply each of ``vectors`` by ``factor``, on Ascend with one kernel for all."""
        if not self.joins or not vectors:
            return self.times(factor, vectors)
        return self.split(self.multiply(ops.concat(vectors), factor), self.sizes, 0)

    def if_happens(self, happens, changed, unchanged):
        """Return ``changed`` if the update happens (None: it always does), or ``unchanged`` if it is skipped."""
        return changed if happens is None else ops.select(happens, changed, unchanged)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015). The weight decay is part of the gradient, unlike in AdamW."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.moment1 = self.parameters.clone(prefix="moment1", init="zeros")
        self.moment2 = self.parameters.clone(prefix="moment2", init="zeros")
        self.beta1_power = Parameter(Tensor(1.0, mstype.float32), name="beta1_power")
        self.beta2_power = Parameter(Tensor(1.0, mstype.float32), name="beta2_power")
        self.beta1, self.beta2 = (Tensor(beta, mstype.float32) for beta in BETAS)
        self.adam = ops.Adam()

    def update(self, layers, vectors, rate, happens):
        # A skipped update has rate 0 and betas of 1, which leave weights and moments as they are.
        betas = (self.if_happens(happens, self.beta1, self.one), self.if_happens(happens, self.beta2, self.one))
        powers = (self.beta1_power * self.beta1, self.beta2_power * self.beta2)
        ops.assign(self.beta1_power, self.if_happens(happens, powers[0], self.beta1_power))
        ops.assign(self.beta2_power, self.if_happens(happens, powers[1], self.beta2_power))
        return self.hyper_map(ops.partial(_adam, self.adam, powers, betas, rate), self.parameters, self.moment1,
                              self.moment2, layers + vectors)


class Momentum(Optimizer):
    """SGD with momentum: v = 0.9 v + g;  w = w - rate v."""

    prefix = "moments"  # of the names of v in a checkpoint

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.velocities = self.parameters.clone(prefix=self.prefix, init="zeros")
        self.factor = Tensor(MOMENTUM, mstype.float32)
        self.momentum = ops.ApplyMomentum()

    def update(self, layers, vectors, rate, happens):
        if happens is not None:  # a skipped update must not add the weight decay to v either
            layers = self.times(happens.astype(mstype.float32), layers)
        return self.move(layers + vectors, rate, happens)

    def move(self, gradients, rate, happens):
        """Update velocities and parameters. A skipped update keeps the whole velocity."""
        factor = self.if_happens(happens, self.factor, self.one)
        return self.hyper_map(ops.partial(_momentum, self.momentum, factor, rate), self.parameters, self.velocities,
                              gradients)


class LARS(Momentum):
    """Momentum with a learning rate per layer (You et al. 2017, "Large batch training of convolutional networks"):

        g = gradient + decay * w;  trust = 0.001 |w| / |g|;  v = 0.9 v + rate * trust * g;  w = w - v

    This is the version of SimCLR (paper, section 2.2; github.com/google-research/simclr, tf2/lars_optimizer.py).
    Vectors have trust 1, and so has a layer whose weights or gradients are all zero. The rate is inside the velocity,
    so that a schedule acts on new gradients only.
    """

    # MindSpore's nn.LARS is another method: its trust is |w| / (|g| + decay |w| + 1e-5), and its rate is outside of the
    # velocity. It is also deprecated since 2.9, and has no kernel for the CPU.

    prefix = "velocity"

    def update(self, layers, vectors, rate, happens):
        if layers:  # the trusts of all layers are computed together, in few kernels
            trusts = _trust(ops.stack(self.hyper_map(_square_sum, self.layers)),
                            ops.stack(self.hyper_map(_square_sum, layers)))
            layers = self.hyper_map(ops.mul, layers, ops.unstack(rate * trusts))
        # `+` joins tuples. The rate is in the gradients already, so `move` gets 1, or 0 for a skipped update.
        return self.move(layers + self.all_times(rate, vectors), self.if_happens(happens, self.one, self.zero), happens)


def _trust(weight_squares, gradient_squares):
    """Sums of squares (layers,) -> the trust of every layer (layers,)."""
    trust = TRUST_COEFFICIENT * ops.sqrt(weight_squares) / ops.sqrt(gradient_squares)
    return ops.select(ops.logical_and(weight_squares > 0, gradient_squares > 0), trust, ops.ones_like(trust))


# hyper_map calls each of these for every parameter. What is the same for all parameters comes first, for ops.partial.

def _add_decay(decay, weight, gradient):
    return mint.add(gradient, weight, alpha=decay)


def _multiply(multiply, factor, gradient):
    return multiply(gradient, factor)


def _adam(adam, powers, betas, rate, weight, moment1, moment2, gradient):
    return adam(weight, moment1, moment2, powers[0], powers[1], rate, betas[0], betas[1], EPSILON, gradient)


def _momentum(momentum, factor, rate, weight, velocity, gradient):
    return momentum(weight, velocity, rate, gradient, factor)


def _square_sum(values):
    return ops.square(values).sum()
