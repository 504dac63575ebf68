"""Batch norm over the global batch, so that N devices normalise as one device with the whole batch would."""
from functools import partial
from typing import Callable

from mindspore import nn, ops

from src.collective import Mean
from src.process_group import Process

EPSILON = 1e-5  # MindSpore's and torchvision's
KEPT = 0.9      # share of the running statistics that a step keeps


class Normalise(nn.Cell):
    """x (N, C, H, W), gamma and beta (C,) -> normalised x, global mean and biased variance (C,).

    The gradient is written out (Ioffe and Szegedy 2015, section 3), for it needs the two sums over the
    global batch once, where differentiating the statistics would need more traffic and memory.
    """

    def __init__(self, world_size: int):
        super().__init__()
        self.mean = Mean(world_size)
        self.apply_statistics = ops.BatchNorm(is_training=False, epsilon=EPSILON)

    def construct(self, x, gamma, beta):
        mean = self.mean(x.mean((0, 2, 3)))
        centred = x - mean.reshape(1, -1, 1, 1)
        variance = self.mean((centred * centred).mean((0, 2, 3)))
        return self.apply_statistics(x, gamma, beta, mean, variance)[0], mean, variance

    def bprop(self, x, gamma, beta, out, gradients):
        gradient = gradients[0]
        scale = ops.rsqrt(out[2] + EPSILON)
        normalised = (x - out[1].reshape(1, -1, 1, 1)) * scale.reshape(1, -1, 1, 1)
        products = gradient * normalised
        count = x.shape[0] * x.shape[2] * x.shape[3]
        sums = ops.stack([gradient.sum((0, 2, 3)), products.sum((0, 2, 3))])
        means = self.mean(sums) / count
        inner = gradient - means[0].reshape(1, -1, 1, 1) - normalised * means[1].reshape(1, -1, 1, 1)
        return inner * (gamma * scale).reshape(1, -1, 1, 1), sums[1], sums[0]


class GlobalBatchNorm(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` with the statistics of all ranks' batches, for the back ends without
    ``nn.SyncBatchNorm``. Parameters and inference are its own.

    Args:
        channels: C of the inputs (N, C, H, W), where N, H and W are the same on every rank.
        gamma_init: initial scale.
        world_size: number of ranks.
    """

    def __init__(self, channels: int, gamma_init: str = "ones", world_size: int = 1):
        super().__init__(channels, eps=EPSILON, momentum=KEPT, gamma_init=gamma_init)
        self.world_size = world_size
        self.normalise = Normalise(world_size)

    def construct(self, x):
        if not self.training:
            return self.bn_infer(x, self.gamma, self.beta, self.moving_mean, self.moving_variance)[0]
        y, mean, variance = self.normalise(x, self.gamma, self.beta)
        count = self.world_size * x.shape[0] * x.shape[2] * x.shape[3]
        unbiased = variance * (count / max(count - 1, 1))
        y = ops.depend(y, ops.assign(self.moving_mean, KEPT * self.moving_mean + (1 - KEPT) * mean))
        return ops.depend(y, ops.assign(self.moving_variance, KEPT * self.moving_variance + (1 - KEPT) * unbiased))


def batch_norm(synchronised: bool, process: Process) -> Callable[..., nn.Cell]:
    """Return what makes the batch norm of a network from its channels and ``gamma_init``."""
    if not synchronised or process.world_size == 1:
        return nn.BatchNorm2d
    if process.device_target == "Ascend":
        return nn.SyncBatchNorm
    return partial(GlobalBatchNorm, world_size=process.world_size)
