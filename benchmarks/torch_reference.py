"""The network, loss and optimizer of ``src/`` in PyTorch: the other side of training_step.py.

Eager mode and NCHW, as a PyTorch user writes it: ResNet with the CIFAR stem, two-layer projection head,
NT-Xent whose value is the mean over the first views plus the mean over the second ones.
"""
import torch
from torch import Tensor, nn
from torch.nn import functional

MASKED = -1e9


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def last_norm(features: int) -> nn.BatchNorm2d:
    """The batch norm that ends a residual branch: it starts at zero."""
    norm = nn.BatchNorm2d(features)
    nn.init.zeros_(norm.weight)
    return norm


class Block(nn.Module):
    """A residual ``branch`` and a shortcut."""

    def __init__(self, branch: nn.Module, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.branch = branch
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(conv(inputs, outputs, 1, stride),
                                                                 nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.branch(x) + self.shortcut(x))


def basic(inputs: int, width: int, stride: int) -> Block:
    """Two 3x3 convolutions."""
    branch = nn.Sequential(conv(inputs, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU(),
                           conv(width, width, 3), last_norm(width))
    return Block(branch, inputs, width, stride)


def bottleneck(inputs: int, width: int, stride: int) -> Block:
    """A 3x3 convolution between two 1x1 convolutions."""
    branch = nn.Sequential(conv(inputs, width, 1), nn.BatchNorm2d(width), nn.ReLU(),
                           conv(width, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU(),
                           conv(width, 4 * width, 1), last_norm(4 * width))
    return Block(branch, inputs, 4 * width, stride)


# encoder -> block, its outputs per width, blocks per stage
ENCODERS = {"resnet18": (basic, 1, (2, 2, 2, 2)), "resnet50": (bottleneck, 4, (3, 4, 6, 3))}


class SimCLR(nn.Module):
    """Views (2B, 3, 32, 32), uint8 -> embeddings z (2B, dimension)."""

    def __init__(self, encoder: str, width_multiplier: float, dimension: int):
        super().__init__()
        block, expansion, depths = ENCODERS[encoder]
        widths = [max(1, int(width_multiplier * base)) for base in (64, 128, 256, 512)]
        layers = [conv(3, widths[0], 3), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        inputs = widths[0]
        for stage, (width, depth) in enumerate(zip(widths, depths)):
            for index in range(depth):
                layers.append(block(inputs, width, 2 if stage and not index else 1))
                inputs = expansion * width
        self.encoder = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, dimension))

    def forward(self, views: Tensor) -> Tensor:
        return self.head(self.encoder(views.float() / 255).mean((2, 3)))


def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """Embeddings (2B, dimension), first views before second views -> loss."""
    anchors = len(z)
    z = functional.normalize(z)
    similarity = (z @ z.T / temperature).masked_fill(torch.eye(anchors, dtype=torch.bool), MASKED)
    return 2 * functional.cross_entropy(similarity, (torch.arange(anchors) + anchors // 2) % anchors)


def adam(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Adam:
    """Adam whose L2 penalty is for the weights of convolutions and dense layers alone."""
    parameters = list(model.parameters())
    return torch.optim.Adam([{"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
                             {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}],
                            lr=learning_rate)
