"""The layers that an encoder is made of: MindSpore's, or on a CPU the layers of cpu/cells.py."""
from functools import partial
from typing import Callable, NamedTuple

from mindspore import dtype as mstype
from mindspore import get_context, nn, ops

from src.common.logs import logger
from src.distributed.process_group import Process
from src.layers.batch_norm import batch_norm
from src.layers.cpu import cells

Norm = Callable[..., nn.Cell]


class Layers(NamedTuple):
    """Functions that make what depends on the device. From ``enter`` to ``mean``, images are as ``enter`` gives them.

    ``norm`` takes channels, ``gamma_init`` and ``relu``: whether a ReLU follows. A norm with ``relu`` also takes a
    shortcut, which it adds before the ReLU.
    """

    enter: Callable[[], nn.Cell]     # images (N, 3, H, W), float32 -> as the other layers take them
    conv: Callable[..., nn.Cell]     # takes channels in and out, kernel, stride and options of nn.Conv2d
    norm: Norm
    fork: Callable[[], nn.Cell]      # x -> (x, x)
    max_pool: Callable[[], nn.Cell]  # 3 x 3, stride 2, of the output of a ReLU
    mean: Callable[[], nn.Cell]      # the mean of all pixels -> (N, C), float32
    head_norm: Norm                  # for the vectors of a projection head, as images (N, C, 1, 1)
    gradient_norm: Callable[[], nn.Cell]  # a tuple of gradients -> their length as one vector
    precision: str = "float32"       # what the layers compute in, for logs and records
    float16_level: str = "O0"        # what ``in_float16`` has to apply: O0 for layers that compute in bfloat16


def with_relu(norm: Norm) -> Norm:
    """Return a function that makes batch norms like ``norm``, a class or ``partial`` of one, followed by a ReLU."""
    made = partial(norm)  # of a class or of a partial of one: .func is the class, .keywords are the options so far
    kind = made.func

    # A subclass and not a cell around the batch norm, which would change the names of its parameters.
    class NormReLU(kind):
        """Images, and perhaps a shortcut that is added to the normalised images -> the ReLU of them."""

        def construct(self, x, shortcut=None):
            x = kind.construct(self, x)
            return ops.relu(x if shortcut is None else x + shortcut)

    return partial(NormReLU, **made.keywords)


class Fork(nn.Cell):
    """x -> (x, x)."""

    def construct(self, x):
        return x, x


class MeanOfPixels(nn.Cell):
    """Images (N, C, H, W) -> the means of their pixels (N, C)."""

    def construct(self, x):
        return x.mean((2, 3))


class GradientNorm(nn.Cell):
    """A tuple of gradients -> their length as one vector, a scalar."""

    def __init__(self):
        super().__init__()
        self.half_square_sum = ops.L2Loss()
        # One tensor needs few kernels on Ascend. Elsewhere, sums of so many squares would lose digits.
        self.joins = get_context("device_target") == "Ascend"

    def construct(self, gradients):
        parts = [ops.concat([gradient.reshape(-1) for gradient in gradients])] if self.joins else gradients
        return ops.sqrt(2 * ops.stack([self.half_square_sum(part) for part in parts]).sum())


def _conv(inputs: int, outputs: int, kernel: int, stride: int, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, pad_mode="pad", padding=kernel // 2, **options)


def _max_pool() -> nn.Cell:
    return nn.SequentialCell(nn.Pad(((0, 0), (0, 0), (1, 1), (1, 1))),  # no output of a ReLU is below these zeros
                             nn.MaxPool2d(3, 2))


def mindspore_layers(norm: Norm = nn.BatchNorm2d, amp_level: str = "O0") -> Layers:
    """Return MindSpore's layers. ``norm`` makes a batch norm from its channels and ``gamma_init``."""
    norm_relu = with_relu(norm)

    def norm_of(channels: int, gamma_init: str = "ones", relu: bool = True) -> nn.Cell:
        return (norm_relu if relu else norm)(channels, gamma_init=gamma_init)

    precision = "float32" if amp_level == "O0" else f"mixed precision {amp_level}"
    return Layers(nn.Identity, _conv, norm_of, Fork, _max_pool, MeanOfPixels, norm, GradientNorm, precision, amp_level)


def encoder_layers(process: Process, synchronised: bool = True, amp_level: str = "O0") -> Layers:
    """Return the layers for the device of ``process``; ``synchronised`` batch norms take statistics over all ranks.

    For the levels O2 and O3 of mixed precision, the CPU's own layers compute in bfloat16 where the CPU has it.
    """
    norm = batch_norm(synchronised, process)
    if process.cpu_library is None:
        return mindspore_layers(norm, amp_level)
    in_bfloat16 = amp_level != "O0" and process.cpu_library.has_bfloat16
    dtype = mstype.bfloat16 if in_bfloat16 else mstype.float32
    if amp_level != "O0":
        logger.info("--amp_level %s: %s", amp_level, "the encoder computes in bfloat16" if in_bfloat16 else
                    "oneDNN has no bfloat16 on this CPU (avx512_bf16 or amx_bf16); float32 is taken")
    kernels = cells.Kernels(process.cpu_library.path, dtype, process.world_size if synchronised else 1)
    return Layers(
        enter=kernels.channels_last, conv=partial(cells.Conv, kernels), norm=partial(cells.BatchNorm, kernels),
        # A cell with a ``bprop`` makes MindSpore copy every weight of the network twice per step.
        fork=partial(cells.Fork, kernels) if in_bfloat16 else Fork,
        max_pool=partial(cells.MaxPool, kernels), mean=kernels.mean_of_pixels, head_norm=norm,
        gradient_norm=partial(cells.GradientNorm, kernels), precision="bfloat16" if in_bfloat16 else "float32")
