"""ResNet encoders (He et al. 2016, "Deep residual learning"), the paper's f(x) (section 2.1; B.9 for CIFAR-10).

Padding is symmetric, and a bottleneck has its stride in the 3x3 convolution, both as in torchvision. So every parameter
here corresponds to one there.
"""
from typing import List, Optional, Sequence, Type

from mindspore import Tensor, nn
from mindspore import dtype as mstype
from mindspore.common.initializer import HeNormal

from src.layers.encoder_layers import Layers, mindspore_layers
from src.settings.network import STEMS, Colour, Network


def conv(layers: Layers, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Cell:
    return layers.conv(inputs, outputs, kernel, stride, has_bias=False,
                       weight_init=HeNormal(mode="fan_out", nonlinearity="relu"))


class BasicBlock(nn.Cell):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, layers: Layers):
        super().__init__()
        self.fork = layers.fork()  # a layer, because its gradient is a sum, which needs a kernel of ours in bfloat16
        self.conv1 = conv(layers, inputs, width, 3, stride)
        self.bn1 = layers.norm(width)
        self.conv2 = conv(layers, width, width, 3)
        self.bn2 = layers.norm(width, gamma_init="zeros")  # so that a block begins as the identity, which trains better
        self.downsample = _shortcut(layers, inputs, width, stride)

    def construct(self, x):
        x, shortcut = self.fork(x)
        x = self.bn1(self.conv1(x))
        return self.bn2(self.conv2(x), self.downsample(shortcut))  # with the sum and the ReLU


class Bottleneck(nn.Cell):
    """A 3x3 convolution between two 1x1 convolutions, and a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, layers: Layers):
        super().__init__()
        outputs = width * self.expansion
        self.fork = layers.fork()
        self.conv1 = conv(layers, inputs, width, 1)
        self.bn1 = layers.norm(width)
        self.conv2 = conv(layers, width, width, 3, stride)
        self.bn2 = layers.norm(width)
        self.conv3 = conv(layers, width, outputs, 1)
        self.bn3 = layers.norm(outputs, gamma_init="zeros")
        self.downsample = _shortcut(layers, inputs, outputs, stride)

    def construct(self, x):
        x, shortcut = self.fork(x)
        x = self.bn1(self.conv1(x))
        x = self.bn2(self.conv2(x))
        return self.bn3(self.conv3(x), self.downsample(shortcut))


def _shortcut(layers: Layers, inputs: int, outputs: int, stride: int) -> nn.Cell:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.SequentialCell(conv(layers, inputs, outputs, 1, stride), layers.norm(outputs, relu=False))


class PixelsToFloat(nn.Cell):
    """Images uint8 -> floats in [0, 1], normalised per channel if ``mean`` and ``std`` are given.

    This is part of the encoder and the only place where pixels become floats, so that training, evaluation and exported
    models cannot disagree.
    """

    def __init__(self, mean: Optional[Colour] = None, std: Optional[Colour] = None):
        super().__init__()
        mean, std = mean or (0.0, 0.0, 0.0), std or (1.0, 1.0, 1.0)
        # (x / 255 - mean) / std as one multiplication and one addition
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
        layers: make convolutions and norms. A batch norm includes the ReLU after it, and the sum with the shortcut.
    """

    def __init__(self, block: Type[nn.Cell], depths: Sequence[int], network: Network, layers: Layers):
        super().__init__()
        widths = widths_of(network)
        stem = STEMS[network.stem]
        self.features = widths[-1] * block.expansion
        self.pixels_to_float = PixelsToFloat(network.mean, network.std)
        self.enter = layers.enter()  # to the layout and type that the other layers take
        self.conv1 = conv(layers, 3, widths[0], stem.kernel, stem.stride)
        self.bn1 = layers.norm(widths[0])
        self.pool = layers.max_pool() if stem.pooling else nn.Identity()
        stages, inputs = [], widths[0]
        for stage, (width, depth) in enumerate(zip(widths, depths)):
            blocks = []
            for index in range(depth):
                stride = 2 if stage and not index else 1  # every stage but the first halves the map
                blocks.append(block(inputs, width, stride, layers))
                inputs = width * block.expansion
            stages.append(nn.SequentialCell(blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.mean = layers.mean()

    def construct(self, images):
        x = self.enter(self.pixels_to_float(images))
        x = self.pool(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.mean(x)


ENCODERS = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
}


def widths_of(network: Network) -> List[int]:
    """Return the widths of the four stages; their outputs have ``expansion`` times as many channels."""
    return [max(1, int(network.width_multiplier * base)) for base in (64, 128, 256, 512)]


def build_encoder(network: Network, layers: Optional[Layers] = None) -> ResNet:
    """Return the encoder of ``network``, made of ``layers``, by default MindSpore's own."""
    block, depths = ENCODERS[network.encoder]
    return ResNet(block, depths, network, layers or mindspore_layers())
