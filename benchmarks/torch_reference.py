"""The network, loss and optimizers of ``src/`` in PyTorch: what the tests compare with. They share no code with it, but
for the table of the stems.

Written as a PyTorch user writes it, in NCHW. Parameters have torchvision's names under ``encoder.``, and
``projection_head.dense1``, ``bn1`` and ``dense2``. benchmarks/train_reference.py trains it,
benchmarks/training_step.py times a step of it.
"""
from typing import Any, Callable, Dict, Iterable, Sequence, Tuple, Type

import torch
from torch import Tensor, nn
from torch.nn import functional

import common  # noqa: F401 - first: it lets `src` be found from any folder
from src.settings.network import STEMS

MASKED = -1e9
MOMENTUM = 0.9
TRUST = 0.001


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def last_norm(features: int) -> nn.BatchNorm2d:
    """The batch norm that ends a residual branch: it starts at zero."""
    norm = nn.BatchNorm2d(features)
    nn.init.zeros_(norm.weight)
    return norm


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), last_norm(width)
        self.downsample = shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.downsample(x))


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 convolutions, and a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1), last_norm(4 * width)
        self.downsample = shortcut(inputs, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = functional.relu(self.bn2(self.conv2(out)))
        return functional.relu(self.bn3(self.conv3(out)) + self.downsample(x))


# encoder -> block, blocks per stage
ENCODERS: Dict[str, Tuple[Type[nn.Module], Tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)), "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)), "resnet101": (Bottleneck, (3, 4, 23, 3))}


class ResNet(nn.Module):
    """Images (N, 3, side, side), uint8 -> representations h (N, features).

    ``stem`` is a key of ``STEMS``. ``mean`` and ``std`` are of pixels in [0, 1].
    """

    def __init__(self, name: str, width_multiplier: float, stem: str, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        block, depths = ENCODERS[name]
        widths = [max(1, int(width_multiplier * base)) for base in (64, 128, 256, 512)]
        first = STEMS[stem]
        # not persistent: a torchvision state dict has no such entries
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.conv1 = conv(3, widths[0], first.kernel, first.stride)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1) if first.pooling else nn.Identity()
        inputs = widths[0]
        for stage, (width, depth) in enumerate(zip(widths, depths), 1):
            blocks = []
            for index in range(depth):
                blocks.append(block(inputs, width, 2 if stage > 1 and not index else 1))
                inputs = width * block.expansion
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.features = inputs

    def forward(self, images: Tensor) -> Tensor:
        x = (images.float() / 255 - self.mean) / self.std
        x = self.maxpool(functional.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))


class ProjectionHead(nn.Module):
    """Representations h (N, features) -> embeddings z (N, dimension)."""

    def __init__(self, features: int, dimension: int, batch_norm: bool):
        super().__init__()
        self.dense1 = nn.Linear(features, features, bias=not batch_norm)
        self.bn1 = nn.BatchNorm1d(features) if batch_norm else nn.Identity()
        self.dense2 = nn.Linear(features, dimension)

    def forward(self, h: Tensor) -> Tensor:
        return self.dense2(functional.relu(self.bn1(self.dense1(h))))


class SimCLR(nn.Module):
    """Views (2B, 3, side, side), uint8 -> embeddings z (2B, dimension)."""

    def __init__(self, encoder: str, width_multiplier: float, dimension: int, head_batch_norm: bool = False,
                 stem: str = "cifar", mean: Sequence[float] = (0.0, 0.0, 0.0), std: Sequence[float] = (1.0, 1.0, 1.0)):
        super().__init__()
        self.encoder = ResNet(encoder, width_multiplier, stem, mean, std)
        self.projection_head = ProjectionHead(self.encoder.features, dimension, head_batch_norm)

    def forward(self, views: Tensor) -> Tensor:
        return self.projection_head(self.encoder(views))


def nt_xent(z: Tensor, temperature: float, views: int = 2) -> Tuple[Tensor, Tensor]:
    """Embeddings (V * B, dimension), first views before second views and so on -> loss, contrastive accuracy.

    The loss is twice the mean over all pairs of an image's views, each against the views of other images, in float32.
    """
    rows = torch.arange(len(z), device=z.device)
    batch_size = len(z) // views
    z = functional.normalize(z.float())
    similarity = z @ z.T / temperature
    negatives = similarity.masked_fill(rows % batch_size == rows[:, None] % batch_size, MASKED)
    losses, hits = [], []
    for further in range(1, views):
        positives = (rows + further * batch_size) % len(z)
        logits = negatives.scatter(1, positives[:, None], similarity.gather(1, positives[:, None]))
        losses.append(functional.cross_entropy(logits, positives))
        hits.append((logits.detach().argmax(1) == positives).float().mean())
    return 2 * torch.stack(losses).mean(), torch.stack(hits).mean()


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose steps are scaled layer by layer (You et al. 2017; SimCLR's lars_optimizer.py).

    v = m v + lr * trust * (g + wd w) and w = w - v, where trust is ``TRUST`` * |w| / |g + wd w| in groups
    with ``adapt`` and 1 elsewhere; it is 1 too where one of the norms is 0.
    """

    def __init__(self, groups: Iterable[Dict[str, Any]], lr: float):
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, "adapt": False})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                update = weight.grad + group["weight_decay"] * weight
                if group["adapt"]:
                    length, of_update = weight.norm(), update.norm()
                    update *= torch.where((length > 0) & (of_update > 0), TRUST * length / of_update, 1.0)
                if not self.state[weight]:
                    self.state[weight]["velocity"] = torch.zeros_like(weight)
                weight -= self.state[weight]["velocity"].mul_(MOMENTUM).add_(update, alpha=group["lr"])


def build_optimizer(name: str, parameters: Iterable[Tensor], learning_rate: float,
                    weight_decay: float) -> torch.optim.Optimizer:
    """Return Adam, SGD or LARS. Decay, and LARS's scaling, are for the weights of convolutions and dense layers."""
    parameters = list(parameters)
    groups = [{"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
              {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}]
    if name == "LARS":
        groups[0]["adapt"] = True
    build: Dict[str, Callable[..., torch.optim.Optimizer]] = {
        "Adam": torch.optim.Adam, "LARS": LARS,
        "SGD": lambda groups, lr: torch.optim.SGD(groups, lr=lr, momentum=MOMENTUM)}
    return build[name](groups, lr=learning_rate)
