"""The layers of an encoder on a CPU: convolutions by oneDNN, and the rest in as few passes over memory as possible.

Images are channels-last (N, H, W, C) between the layers, float32 or bfloat16: MindSpore's layers take (N, C, H, W), at
half the speed. Parameters, statistics and sums are float32. The kernels are in kernels.cc.
"""
from pathlib import Path
from typing import Any, Callable, Optional, Tuple

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.distributed.collectives import MeanOverRanks
from src.layers.batch_norm import EPSILON, MOMENTUM

FLOAT = mstype.float32
Shape = Tuple[int, ...]


def _first(*shapes: Shape) -> Shape:
    return shapes[0]


def _last(*shapes: Shape) -> Shape:
    return shapes[-1]


class Kernels:
    """The operators of a built library, for images of ``dtype`` and batch norm over ``world_size`` ranks.

    All layers share one object, because MindSpore parses the gradient of every operator.
    """

    def __init__(self, path: Path, dtype: mstype, world_size: int):
        self.path, self.dtype, self.world_size = path, dtype, world_size
        self.convolve = {stride: self._convolution(stride) for stride in (1, 2)}
        self.mean_of_ranks = MeanOverRanks(world_size) if world_size > 1 else nn.Identity()
        self.statistics = self.kernel("batch_statistics", lambda x: (2, x[-1]), FLOAT)
        self.running = self.kernel("running_statistics", lambda statistics, mean, *_: (mean, mean), (FLOAT, FLOAT))
        ends = ("plain", "relu", "add_relu")
        self.normalise = {end: self._normalise(end, self.mean_of_ranks) for end in ends}
        # Running statistics do not depend on the images, so in inference the two means in the gradient are zero.
        self.infer = {end: self._normalise(end, ops.zeros_like) for end in ends}

    def kernel(self, name: str, shape: Callable[..., Any], dtype: Any,
               bprop: Optional[Callable[..., Any]] = None) -> ops.Custom:
        """Return an operator; ``shape`` takes the shapes of its inputs and returns the shapes of its outputs."""
        return ops.Custom(f"{self.path}:{name}", shape, dtype, "aot", bprop)

    def _convolution(self, stride: int) -> ops.Custom:
        to_input = self.kernel("convolution_to_input", _last, self.dtype)
        to_weights = self.kernel("convolution_to_weights", _last, FLOAT)

        def shape(x: Shape, w: Shape) -> Shape:
            return x[0], -(-x[1] // stride), -(-x[2] // stride), w[0]

        def bprop(x, w, out, gradient):
            return to_input(gradient, w, x), to_weights(x, gradient, w)

        return self.kernel("convolution", shape, self.dtype, bprop)

    def _normalise(self, end: str, mean: Callable[[Tensor], Tensor]) -> ops.Custom:
        """Return the operator x, gamma, beta, statistics[, shortcut] -> y. x gets the whole gradient of batch norm.

        So the statistics need no gradient, and any tensor of their shape stands in its place. ``end`` is what follows
        the normalisation; ``mean`` takes sums (2, C) of this rank and returns their means over the ranks.
        """
        if end == "add_relu":
            sums = self.kernel("gradient_sums_add_relu",
                                lambda x, gradient, gamma, beta, statistics, y: (gamma, gamma, statistics, x),
                                (FLOAT, FLOAT, FLOAT, self.dtype))
            to_input = self.kernel("gradient_plain", _first, self.dtype)

            def bprop(x, gamma, beta, statistics, shortcut, out, gradient):
                d_gamma, d_beta, both, passed = sums(x, gradient, gamma, beta, statistics, out)
                d_x = to_input(x, passed, gamma, beta, statistics, mean(both))
                return d_x, d_gamma, d_beta, statistics, passed
        else:
            sums = self.kernel(f"gradient_sums_{end}",
                                lambda x, gradient, gamma, beta, statistics: (gamma, gamma, statistics), (FLOAT,) * 3)
            to_input = self.kernel(f"gradient_{end}", _first, self.dtype)

            def bprop(x, gamma, beta, statistics, out, gradient):
                d_gamma, d_beta, both = sums(x, gradient, gamma, beta, statistics)
                d_x = to_input(x, gradient, gamma, beta, statistics, mean(both))
                return d_x, d_gamma, d_beta, statistics

        return self.kernel(f"normalise_{end}", _first, self.dtype, bprop)

    def mean_of_pixels(self) -> ops.Custom:
        """Images (N, H, W, C) -> the means of their pixels (N, C), float32."""
        to_input = self.kernel("mean_of_pixels_gradient", _last, self.dtype)

        def bprop(x, out, gradient):
            return (to_input(gradient, x),)

        return self.kernel("mean_of_pixels", lambda x: (x[0], x[3]), FLOAT, bprop)

    def channels_last(self) -> ops.Custom:
        """Images (N, 3, H, W), float32 -> (N, H, W, 3), without a gradient."""
        def bprop(x, out, gradient):
            return (ops.zeros_like(x),)

        return self.kernel("channels_last", lambda x: (x[0], x[2], x[3], x[1]), self.dtype, bprop)


class Conv(nn.Conv2d):
    """``nn.Conv2d`` on channels-last images, without bias: kernel 1, 3 or 7, half of it as padding, stride 1 or 2."""

    def __init__(self, kernels: Kernels, inputs: int, outputs: int, kernel: int, stride: int, **options: Any):
        super().__init__(inputs, outputs, kernel, stride, pad_mode="pad", padding=kernel // 2, **options)
        self.convolve = kernels.convolve[stride]

    def construct(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.weight)


class BatchNorm(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` on channels-last images, of one shape on all ranks, with statistics over all ranks.

    With ``relu`` it includes the ReLU that follows, and the sum with a shortcut before it. It has the parameters of
    ``nn.BatchNorm2d`` and the gradient of src/layers/batch_norm.py.
    """

    def __init__(self, kernels: Kernels, channels: int, gamma_init: str = "ones", relu: bool = True):
        super().__init__(channels, eps=EPSILON, momentum=MOMENTUM, gamma_init=gamma_init)
        end = "relu" if relu else "plain"
        self.world_size, self.ranks = kernels.world_size, Tensor([kernels.world_size], FLOAT)
        self.statistics, self.running, self.mean = kernels.statistics, kernels.running, kernels.mean_of_ranks
        self.normalise, self.normalise_sum = kernels.normalise[end], kernels.normalise["add_relu"]
        self.infer, self.infer_sum = kernels.infer[end], kernels.infer["add_relu"]

    def construct(self, x: Tensor, shortcut: Optional[Tensor] = None) -> Tensor:
        if self.training:
            images = ops.stop_gradient(x)
            statistics = self.statistics(images)  # mean and variance (2, C)
            if self.world_size > 1:
                moments = self.mean(ops.stack((statistics[0], statistics[1] + statistics[0] * statistics[0])))
                statistics = ops.stack((moments[0], ops.maximum(moments[1] - moments[0] * moments[0], 0.0)))
            statistics = ops.stop_gradient(statistics)
            mean, variance = self.running(statistics, self.moving_mean, self.moving_variance, images, self.ranks)
            x = ops.depend(x, (ops.assign(self.moving_mean, mean), ops.assign(self.moving_variance, variance)))
            normalise, normalise_sum = self.normalise, self.normalise_sum
        else:
            statistics = ops.stack((self.moving_mean, self.moving_variance))
            normalise, normalise_sum = self.infer, self.infer_sum
        if shortcut is None:
            return normalise(x, self.gamma, self.beta, statistics)
        return normalise_sum(x, self.gamma, self.beta, statistics, shortcut)


class Fork(nn.Cell):
    """x -> (x, x). Its gradient is a sum, for which MindSpore has no kernel in bfloat16 on a CPU."""

    def __init__(self, kernels: Kernels):
        super().__init__()
        self.add = kernels.kernel("add", _first, kernels.dtype)

    def construct(self, x):
        return x, x

    def bprop(self, x, out, gradients):
        return (self.add(gradients[0], gradients[1]),)


class MaxPool(nn.Cell):
    """Images (N, H, W, C) -> (N, H / 2, W / 2, C), rounded up: max-pooling of 3 x 3 pixels with stride 2."""

    def __init__(self, kernels: Kernels):
        super().__init__()
        to_input = kernels.kernel("max_pool_gradient", _last, kernels.dtype)

        def shape(x: Shape) -> Tuple[Shape, Shape]:
            return ((x[0], -(-x[1] // 2), -(-x[2] // 2), x[3]),) * 2

        def bprop(x, out, gradients):
            return (to_input(gradients[0], out[1], x),)

        self.pool = kernels.kernel("max_pool", shape, (kernels.dtype, mstype.uint8), bprop)

    def construct(self, x):
        return self.pool(x)[0]


class GradientNorm(nn.Cell):
    """A tuple of gradients -> their length as one vector, a scalar, by all cores in one pass."""

    def __init__(self, kernels: Kernels):
        super().__init__()
        self.norm = kernels.kernel("gradient_norm", lambda *_: (1,), FLOAT)

    def construct(self, gradients):
        return self.norm(*gradients).reshape(())
