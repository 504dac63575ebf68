"""ResNet encoders (He et al. 2016, "Deep residual learning"), as SimCLR uses them.

Strides, symmetric padding and the place of the stride (the 3x3 convolution of a bottleneck) are those
of torchvision's ResNets, so that parameters correspond one to one.
"""
from typing import Callable, Optional, Sequence, Type

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import HeNormal

from src.settings.network import STEMS, Colour, Network

Norm = Callable[..., nn.Cell]


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, pad_mode="pad", padding=kernel // 2, has_bias=False,
                     weight_init=HeNormal(mode="fan_out", nonlinearity="relu"))


class BasicBlock(nn.Cell):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, norm: Norm):
        super().__init__()
        self.conv1 = conv(inputs, width, 3, stride)
        self.bn1 = norm(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = norm(width, gamma_init="zeros")
        self.downsample = _shortcut(inputs, width, stride, norm)

    def construct(self, x):
        out = ops.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return ops.relu(out + self.downsample(x))


class Bottleneck(nn.Cell):
    """A 3x3 convolution between two 1x1 convolutions, and a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, norm: Norm):
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = norm(width)
        self.conv2 = conv(width, width, 3, stride)
        self.bn2 = norm(width)
        self.conv3 = conv(width, outputs, 1)
        self.bn3 = norm(outputs, gamma_init="zeros")
        self.downsample = _shortcut(inputs, outputs, stride, norm)

    def construct(self, x):
        out = ops.relu(self.bn1(self.conv1(x)))
        out = ops.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return ops.relu(out + self.downsample(x))


def _shortcut(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Cell:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.SequentialCell(conv(inputs, outputs, 1, stride), norm(outputs))


class PixelsToFloat(nn.Cell):
    """uint8 images -> floats in [0, 1], normalised per channel where ``mean`` and ``std`` are given.

    This is the one place where pixels become floats, and it is part of the encoder: training,
    evaluation and exported models cannot disagree about it.
    """

    def __init__(self, mean: Optional[Colour] = None, std: Optional[Colour] = None):
        super().__init__()
        mean, std = mean or (0.0, 0.0, 0.0), std or (1.0, 1.0, 1.0)
        self.scale = Tensor([1 / (255 * s) for s in std], mstype.float32).reshape(1, 3, 1, 1)
        self.shift = Tensor([-m / s for m, s in zip(mean, std)], mstype.float32).reshape(1, 3, 1, 1)

    def construct(self, images):
        return images.astype(mstype.float32) * self.scale + self.shift


class ResNet(nn.Cell):
    """Images (N, 3, side, side), uint8 -> representations h (N, features), float32.

    Args:
        block: BasicBlock or Bottleneck.
        depths: blocks per stage.
        network: width, stem and normalisation.
        norm: makes a batch norm from its channels and ``gamma_init``.
    """

    def __init__(self, block: Type[nn.Cell], depths: Sequence[int], network: Network, norm: Norm = nn.BatchNorm2d):
        super().__init__()
        widths = [max(1, int(network.width_multiplier * base)) for base in (64, 128, 256, 512)]
        stem = STEMS[network.stem]
        self.features = widths[-1] * block.expansion
        self.pixels_to_float = PixelsToFloat(network.mean, network.std)
        self.conv1 = conv(3, widths[0], stem.kernel, stem.stride)
        self.pool = nn.SequentialCell(
            nn.Pad(((0, 0), (0, 0), (1, 1), (1, 1))),  # zeros, below every input: the input comes out of a ReLU
            nn.MaxPool2d(3, 2)) if stem.pooling else nn.Identity()
        self.bn1 = norm(widths[0])
        stages, inputs = [], widths[0]
        for stage, (width, depth) in enumerate(zip(widths, depths)):
            blocks = []
            for index in range(depth):
                blocks.append(block(inputs, width, stride=2 if stage and not index else 1, norm=norm))
                inputs = width * block.expansion
            stages.append(nn.SequentialCell(blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def construct(self, images):
        x = self.pool(ops.relu(self.bn1(self.conv1(self.pixels_to_float(images)))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean((2, 3))


ENCODERS = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
}


def build_encoder(network: Network, norm: Norm = nn.BatchNorm2d) -> ResNet:
    """Return the encoder of ``network``, without its projection head; ``norm`` as for ``ResNet``."""
    block, depths = ENCODERS[network.encoder]
    return ResNet(block, depths, network, norm)
