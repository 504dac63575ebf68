"""Batch norm over the global batch, with Ascend's kernels for batch norm.

``nn.SyncBatchNorm`` uses the same kernels, but sends the two sums of a layer separately: four all-reduces per layer and
step, where two are enough, one forward and one backward.
"""
from typing import Any, Callable, List

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.ops import Primitive
from mindspore.ops import signature as sig
from mindspore.ops._grad_experimental.grad_base import bprop_getters

from src.distributed.collectives import MeanOverRanks

NCHW = 0  # the code of the format


class Kernel(Primitive):
    """A kernel by its name in CANN; MindSpore has no public operators for these."""

    def __init__(self, name: str, inputs: List[str], outputs: List[str], **attributes: Any):
        super().__init__(name)
        self.init_prim_io_names(inputs=inputs, outputs=outputs)
        for attribute, value in attributes.items():
            self.add_prim_attr(attribute, value)


class MeanOfPair(nn.Cell):
    """Two tensors (C,) of this rank -> the means of both over all ranks, in one message."""

    def __init__(self, world_size: int):
        super().__init__()
        self.mean = MeanOverRanks(world_size)

    def construct(self, first, second):
        return ops.split(self.mean(ops.concat((first, second))), first.shape[0])


class Update(Kernel):
    """x (N, C, H, W), its sum and sum of squares per channel, gamma, beta, running mean and variance (C,) -> y, the
    running statistics, which are updated in place, and the batch's mean and biased variance (C,).

    The sums are each rank's, averaged over the ranks: the kernel divides by the pixels of one rank. The gradient is
    ``gradient_of_update``.
    """

    __mindspore_signature__ = (
        *(sig.make_sig(name) for name in ("x", "sum", "square_sum", "scale", "b")),
        *(sig.make_sig(name, sig.sig_rw.RW_WRITE) for name in ("mean", "variance")), sig.make_sig("format"))

    def __init__(self, epsilon: float, factor: float, world_size: int):
        super().__init__("BNTrainingUpdate", ["x", "sum", "square_sum", "scale", "b", "mean", "variance", "format"],
                         ["y", "running_mean", "running_variance", "save_mean", "save_inv_variance"], isRef=True,
                         epsilon=epsilon, factor=factor, side_effect_mem=True)
        self.mean_of_pair = MeanOfPair(world_size)
        names = ["grads", "x", "batch_mean", "batch_variance"]
        self.gradient_sums = Kernel("BNTrainingUpdateGrad", names, ["diff_scale", "diff_offset"], epsilon=epsilon)
        self.gradient = Kernel("BNTrainingReduceGrad", [*names[:2], "diff_scale", "diff_offset", "scale", *names[2:]],
                               ["y"], epsilon=epsilon)


# Not a cell with a ``bprop``: with one, MindSpore copies every weight of the network twice per step.
@bprop_getters.register("BNTrainingUpdate")
def gradient_of_update(update: Update) -> Callable[..., Any]:
    """Return the gradient of ``Update``. Its first part is the whole gradient of batch norm, sums included."""
    sums_of_gradient, mean_of_pair, gradient_kernel = update.gradient_sums, update.mean_of_pair, update.gradient

    def bprop(x, total, square_total, gamma, beta, moving_mean, moving_variance, layout, out, gradients):
        gradient, mean, variance = gradients[0], out[3], out[4]
        d_gamma, d_beta = sums_of_gradient(gradient, x, mean, variance, layout)
        mean_d_gamma, mean_d_beta = mean_of_pair(d_gamma, d_beta)
        d_x = gradient_kernel(gradient, x, mean_d_gamma, mean_d_beta, gamma, mean, variance, layout)
        return (d_x, ops.zeros_like(total), ops.zeros_like(square_total), d_gamma, d_beta,
                ops.zeros_like(moving_mean), ops.zeros_like(moving_variance), layout)

    return bprop


class AscendBatchNorm(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` of images (N, C, H, W), of one shape on all ranks, with statistics over all ranks."""

    def __init__(self, channels: int, gamma_init: str = "ones", *, epsilon: float, momentum: float, world_size: int):
        super().__init__(channels, eps=epsilon, momentum=momentum, gamma_init=gamma_init)
        self.sums = Kernel("BNTrainingReduce", ["x", "format"], ["sum", "square_sum"])
        self.mean_of_pair = MeanOfPair(world_size)
        self.update = Update(epsilon, 1 - momentum, world_size)

    def construct(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.bn_infer(x, self.gamma, self.beta, self.moving_mean, self.moving_variance)[0]
        images = ops.stop_gradient(x).astype(mstype.float32)  # for float16 images the sums would be float16
        total, square_total = self.mean_of_pair(*self.sums(images, NCHW))
        return self.update(x, ops.stop_gradient(total), ops.stop_gradient(square_total), self.gamma, self.beta,
                           self.moving_mean, self.moving_variance, NCHW)[0]
