"""A network with what mixed precision treats differently, small enough to compile in a moment."""
from mindspore import nn, ops

from src.layers.encoder_layers import mindspore_layers
from src.resnet import PixelsToFloat, conv
from src.simclr_model import ProjectionHead


class SmallNetwork(nn.Cell):
    """Views (2B, 3, side, side), uint8 -> embeddings (2B, 16)."""

    def __init__(self, norm=nn.BatchNorm2d):
        super().__init__()
        self.pixels_to_float = PixelsToFloat()
        layers = mindspore_layers()
        self.conv1, self.bn1 = conv(layers, 3, 8, 3, 2), norm(8)
        self.conv2, self.bn2 = conv(layers, 8, 8, 3), norm(8)
        self.head = ProjectionHead(8, 16, norm)

    def construct(self, views):
        x = ops.relu(self.bn1(self.conv1(self.pixels_to_float(views))))
        x = ops.relu(self.bn2(self.conv2(x)))
        return self.head(x.mean((2, 3)))
