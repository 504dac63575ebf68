"""The layers of an encoder on a CPU: convolutions by oneDNN on channels-last images, and what stands between them in as
few passes over memory as there can be. MindSpore's own convolve plain (N, C, H, W) images, at half the speed.

Images in between are (N, H, W, C), float32 or bfloat16; parameters, statistics and sums are float32. The kernels are
in kernels.cc.
"""
from pathlib import Path
from typing import Any, Callable, Optional, Tuple

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.distributed.collectives import Mean as MeanOfRanks
from src.layers.batch_norm import EPSILON, KEPT

Shape = Tuple[int, ...]


class Kernels:
    """The operators of a built library.

    Args:
        library: the file that library.py has built and started.
        dtype: of images, float32 or bfloat16.
    """

    def __init__(self, library: Path, dtype: mstype = mstype.float32):
        self.library = library
        self.dtype = dtype

    def __call__(self, name: str, shape: Callable[..., Any], dtype: Any,
                 bprop: Optional[Callable[..., Any]] = None) -> ops.Custom:
        """Return the operator ``name``, with the shape of its outputs as a function of those of its inputs."""
        return ops.Custom(f"{self.library}:{name}", shape, dtype, "aot", bprop)


def _first(*shapes: Shape) -> Shape:
    return shapes[0]


def _last(*shapes: Shape) -> Shape:
    return shapes[-1]


class Conv(nn.Conv2d):
    """``nn.Conv2d`` on channels-last images, without bias, with a padding of half the kernel. Its weights are its own.

    Args:
        kernels: the operators.
        inputs, outputs: channels.
        kernel: 1, 3 or 7; stride: 1 or 2.
        options: of ``nn.Conv2d``.
    """

    def __init__(self, kernels: Kernels, inputs: int, outputs: int, kernel: int, stride: int, **options: Any):
        super().__init__(inputs, outputs, kernel, stride, pad_mode="pad", padding=kernel // 2, **options)
        to_input = kernels("convolution_to_input", _last, kernels.dtype)
        to_weights = kernels("convolution_to_weights", _last, mstype.float32)

        def shape(x: Shape, w: Shape) -> Shape:
            return x[0], -(-x[1] // stride), -(-x[2] // stride), w[0]

        def bprop(x, w, out, gradient):
            return to_input(gradient, w, x), to_weights(x, gradient, w)

        self.convolve = kernels("convolution", shape, kernels.dtype, bprop)

    def construct(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.weight)


class BatchNorm(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` on channels-last images, with the statistics of all ranks' batches, and with the ReLU and
    the sum with a shortcut that come after it. Its parameters are its own.

    The gradient is that of src/layers/batch_norm.py.

    Args:
        kernels: the operators.
        channels: C of the inputs (N, H, W, C), where N, H and W are the same on every rank.
        gamma_init: initial scale.
        relu: whether a ReLU follows.
        world_size: number of ranks.

    Inputs:
        x: images.
        shortcut: images that are added before the ReLU, or None.
    """

    def __init__(self, kernels: Kernels, channels: int, gamma_init: str = "ones", relu: bool = True,
                 world_size: int = 1):
        super().__init__(channels, eps=EPSILON, momentum=KEPT, gamma_init=gamma_init)
        self.ranks = Tensor([world_size], mstype.float32)
        self.mean = MeanOfRanks(world_size) if world_size > 1 else nn.Identity()
        self.moments = kernels("batch_moments", lambda x: (2, x[-1]), mstype.float32)
        self.statistics = kernels("batch_statistics", lambda moments, gamma, *_: (gamma,) * 4, (mstype.float32,) * 4)
        end = "relu" if relu else "plain"
        self.normalise, self.normalise_sum = _normalise(kernels, end, self.mean), _normalise_sum(kernels, self.mean)
        # With running statistics the images have no part in what they are normalised by.
        self.infer, self.infer_sum = _normalise(kernels, end, ops.zeros_like), _normalise_sum(kernels, ops.zeros_like)

    def construct(self, x, shortcut=None):
        if self.training:
            images = ops.stop_gradient(x)
            moments = ops.stop_gradient(self.mean(self.moments(images)))
            scale, shift, mean, variance = self.statistics(
                moments, ops.stop_gradient(self.gamma), ops.stop_gradient(self.beta), self.moving_mean,
                self.moving_variance, images, self.ranks)
            scale, shift = ops.stop_gradient(scale), ops.stop_gradient(shift)
            x = ops.depend(x, ops.assign(self.moving_mean, mean))
            x = ops.depend(x, ops.assign(self.moving_variance, variance))
            normalise, normalise_sum = self.normalise, self.normalise_sum
        else:
            moments = ops.stack((self.moving_mean, self.moving_variance + ops.square(self.moving_mean)))
            scale = ops.stop_gradient(self.gamma) * ops.rsqrt(self.moving_variance + EPSILON)
            shift = ops.stop_gradient(self.beta) - self.moving_mean * scale
            normalise, normalise_sum = self.infer, self.infer_sum
        if shortcut is None:
            return normalise(x, self.gamma, self.beta, scale, shift, moments)
        return normalise_sum(x, self.gamma, self.beta, scale, shift, moments, shortcut)


def _normalise(kernels: Kernels, end: str, mean: Callable[[Tensor], Tensor]) -> ops.Custom:
    """Return x, gamma, beta, scale, shift, moments -> y; the gradient of x is batch norm's whole one.

    ``mean`` takes the sums (2, C) of which the gradient is made, and returns their means over the ranks.
    """
    sums = kernels(f"gradient_sums_{end}", lambda x, gradient, scale, shift, moments: (scale, scale, moments),
                   (mstype.float32,) * 3)
    to_input = kernels(f"gradient_{end}", _first, kernels.dtype)

    def bprop(x, gamma, beta, scale, shift, moments, out, gradient):
        d_gamma, d_beta, both = sums(x, gradient, scale, shift, moments)
        d_x = to_input(x, gradient, scale, shift, moments, mean(both))
        return d_x, d_gamma, d_beta, ops.zeros_like(scale), ops.zeros_like(shift), ops.zeros_like(moments)

    return kernels(f"normalise_{end}", _first, kernels.dtype, bprop)


def _normalise_sum(kernels: Kernels, mean: Callable[[Tensor], Tensor]) -> ops.Custom:
    """Return x, gamma, beta, scale, shift, moments, shortcut -> y, which ends in a ReLU."""
    sums = kernels("gradient_sums_add_relu", lambda x, gradient, scale, shift, moments, y: (scale, scale, moments, x),
                   (*(mstype.float32,) * 3, kernels.dtype))
    to_input = kernels("gradient_plain", _first, kernels.dtype)

    def bprop(x, gamma, beta, scale, shift, moments, shortcut, out, gradient):
        d_gamma, d_beta, both, passed = sums(x, gradient, scale, shift, moments, out)
        d_x = to_input(x, passed, scale, shift, moments, mean(both))
        return d_x, d_gamma, d_beta, ops.zeros_like(scale), ops.zeros_like(shift), ops.zeros_like(moments), passed

    return kernels("normalise_add_relu", _first, kernels.dtype, bprop)


class Fork(nn.Cell):
    """x -> (x, x). Its gradient is the sum of two, for which MindSpore has no kernel in bfloat16 on a CPU."""

    def __init__(self, kernels: Kernels):
        super().__init__()
        self.add = kernels("add", _first, kernels.dtype)

    def construct(self, x):
        return x, x

    def bprop(self, x, out, gradients):
        return (self.add(gradients[0], gradients[1]),)


class MaxPool(nn.Cell):
    """The greatest of 3 x 3 pixels, of every second of them: images (N, H, W, C) -> (N, H / 2, W / 2, C)."""

    def __init__(self, kernels: Kernels):
        super().__init__()
        to_input = kernels("max_pool_gradient", _last, kernels.dtype)

        def shape(x: Shape) -> Tuple[Shape, Shape]:
            y = (x[0], -(-x[1] // 2), -(-x[2] // 2), x[3])
            return y, y

        def bprop(x, out, gradients):
            return (to_input(gradients[0], out[1], x),)

        self.pool = kernels("max_pool", shape, (kernels.dtype, mstype.uint8), bprop)

    def construct(self, x):
        return self.pool(x)[0]


class Mean(nn.Cell):
    """Images (N, H, W, C) -> the means of their pixels (N, C), float32."""

    def __init__(self, kernels: Kernels):
        super().__init__()
        to_input = kernels("mean_of_pixels_gradient", _last, kernels.dtype)

        def bprop(x, out, gradient):
            return (to_input(gradient, x),)

        self.mean = kernels("mean_of_pixels", lambda x: (x[0], x[3]), mstype.float32, bprop)

    def construct(self, x):
        return self.mean(x)


class ChannelsLast(nn.Cell):
    """Images (N, C, H, W), float32 -> (N, H, W, C). There is no gradient."""

    def __init__(self, kernels: Kernels):
        super().__init__()
        self.move = kernels("channels_last", lambda x: (x[0], x[2], x[3], x[1]), kernels.dtype)

    def construct(self, x):
        return self.move(ops.stop_gradient(x))
