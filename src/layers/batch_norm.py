"""Batch norm over the global batch, so that N devices normalise as one device with the whole batch would."""
from functools import partial
from typing import Callable

from mindspore import Tensor, nn, ops

from src.distributed.collectives import MeanOverRanks
from src.distributed.process_group import Process
from src.layers.ascend_batch_norm import AscendBatchNorm

EPSILON = 1e-5  # MindSpore's and torchvision's
MOMENTUM = 0.9  # share of the running statistics that a step keeps


def channel_sums(x: Tensor) -> Tensor:
    """x (N, C, H, W) -> (C,): a product with ones, which on the CPU is four times as fast as a reduction."""
    images, channels, height, width = x.shape
    rows = x.reshape(images * channels, height * width)
    return ops.matmul(rows, ops.ones((height * width, 1), x.dtype)).reshape(images, channels).sum(0)


class Normalise(nn.Cell):
    """x (N, C, H, W), gamma and beta (C,) -> normalised x, global mean and biased variance (C,).

    The gradient is written out (Ioffe and Szegedy 2015, section 3): it needs two sums over the global batch, and
    automatic differentiation would need more traffic and memory.
    """

    def __init__(self, world_size: int):
        super().__init__()
        self.mean = MeanOverRanks(world_size)
        self.batch_norm = ops.BatchNorm(is_training=False, epsilon=EPSILON)

    def scale_and_shift(self, x, scale, shift):
        """Return scale * x + shift per channel, by the kernel of batch norm: one pass over memory."""
        # Mean 0 and variance 1 - EPSILON: the kernel adds EPSILON, and so divides by 1.
        return self.batch_norm(x, scale, shift, ops.zeros_like(shift), ops.ones_like(scale) - EPSILON)[0]

    def construct(self, x, gamma, beta):
        count = x.shape[0] * x.shape[2] * x.shape[3]
        moments = self.mean(ops.stack([channel_sums(x), channel_sums(x * x)])) / count
        mean, variance = moments[0], ops.maximum(moments[1] - moments[0] * moments[0], 0.0)
        return self.batch_norm(x, gamma, beta, mean, variance)[0], mean, variance

    def bprop(self, x, gamma, beta, out, gradients):
        gradient, mean, scale = gradients[0], out[1], ops.rsqrt(out[2] + EPSILON)
        count = x.shape[0] * x.shape[2] * x.shape[3]
        d_beta = channel_sums(gradient)
        d_gamma = (channel_sums(gradient * x) - mean * d_beta) * scale
        means = self.mean(ops.stack([d_beta, d_gamma])) / count
        # dx = gamma scale (gradient - means[0] - means[1] (x - mean) scale)
        slope = -means[1] * scale * scale * gamma
        constant = -means[0] * scale * gamma - slope * mean
        d_x = self.scale_and_shift(gradient, gamma * scale, constant) + self.scale_and_shift(
            x, slope, ops.zeros_like(slope))
        return d_x, d_gamma, d_beta


class GlobalBatchNorm(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` of images (N, C, H, W), of one shape on all ranks, with statistics over all ranks.

    It is for CPU and GPU. Parameters and inference are inherited.
    """

    def __init__(self, channels: int, gamma_init: str = "ones", world_size: int = 1):
        super().__init__(channels, eps=EPSILON, momentum=MOMENTUM, gamma_init=gamma_init)
        self.world_size = world_size
        self.normalise = Normalise(world_size)

    def construct(self, x):
        if not self.training:
            return self.bn_infer(x, self.gamma, self.beta, self.moving_mean, self.moving_variance)[0]
        y, mean, variance = self.normalise(x, self.gamma, self.beta)
        count = self.world_size * x.shape[0] * x.shape[2] * x.shape[3]
        unbiased = variance * (count / max(count - 1, 1))
        y = ops.depend(y, ops.assign(self.moving_mean, MOMENTUM * self.moving_mean + (1 - MOMENTUM) * mean))
        return ops.depend(y, ops.assign(
            self.moving_variance, MOMENTUM * self.moving_variance + (1 - MOMENTUM) * unbiased))


def batch_norm(synchronised: bool, process: Process) -> Callable[..., nn.Cell]:
    """Return a function that makes a network's batch norms from channels and ``gamma_init``."""
    if not synchronised or process.world_size == 1:
        return nn.BatchNorm2d
    if process.device_target == "Ascend":
        return partial(AscendBatchNorm, epsilon=EPSILON, momentum=MOMENTUM, world_size=process.world_size)
    return partial(GlobalBatchNorm, world_size=process.world_size)
