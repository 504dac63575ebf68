"""A ResNet with the layout and names of torchvision's, in PyTorch."""
import torch
from torch import nn
from torch_layouts import DEPTHS


class Block(nn.Module):
    def __init__(self, inputs, width, stride, bottleneck):
        super().__init__()
        outputs = 4 * width if bottleneck else width
        # channels in, channels out, kernel and stride of the convolutions in turn
        plan = ([(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)] if bottleneck else
                [(inputs, width, 3, stride), (width, width, 3, 1)])
        for index, (fan_in, fan_out, kernel, step) in enumerate(plan, 1):
            setattr(self, f"conv{index}", nn.Conv2d(fan_in, fan_out, kernel, step, kernel // 2, bias=False))
            setattr(self, f"bn{index}", nn.BatchNorm2d(fan_out))
        self.count = len(plan)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = x
        for index in range(1, self.count + 1):
            out = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(out))
            out = torch.relu(out) if index < self.count else out
        return torch.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Normalised images -> logits; ``features`` before ``fc``."""

    def __init__(self, name, width, cifar_stem=True, classes=10):
        super().__init__()
        bottleneck = name in ("resnet50", "resnet101")
        base = int(64 * width)
        self.conv1 = (nn.Conv2d(3, base, 3, 1, 1, bias=False) if cifar_stem else
                      nn.Conv2d(3, base, 7, 2, 3, bias=False))
        self.bn1 = nn.BatchNorm2d(base)
        self.relu = nn.ReLU()
        self.maxpool = nn.Identity() if cifar_stem else nn.MaxPool2d(3, 2, 1)
        inputs = base
        for stage, depth in enumerate(DEPTHS[name]):
            blocks, stage_width = [], base * 2**stage
            for index in range(depth):
                blocks.append(Block(inputs, stage_width, 2 if stage and not index else 1, bottleneck))
                inputs = 4 * stage_width if bottleneck else stage_width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)

    def features(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.avgpool(self.layer4(self.layer3(self.layer2(self.layer1(x))))).flatten(1)
