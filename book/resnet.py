"""Residual networks in PyTorch: the CIFAR family of He et al. (2016), section 4.2.

Here live the block, the network and the names of its depths.
Data, training and files live elsewhere: nothing here knows what an epoch is.
"""

import torch.nn.functional as F
from torch import Tensor, nn


def build_model(name: str, shortcut: str = "A", classes: int = 10) -> "ResNet":
    """Build the CIFAR ResNet called `name`: "resnet20" has 20 layers with weights.

    The paper's depths are 20, 32, 44, 56 and 110; any depth 6n + 2 from 8 on works.
    Raises ValueError if the name is not "resnet" and such a depth.
    """
    depth = name.removeprefix("resnet")
    known = name.startswith("resnet") and depth.isascii() and depth.isdigit()
    if not known or int(depth) < 8 or int(depth) % 6 != 2:
        raise ValueError(
            f"unknown model {name!r}: use resnet20, resnet32, resnet44, resnet56, "
            "resnet110, or another depth 6n + 2 from resnet8 on"
        )
    return ResNet(int(depth), shortcut, classes)


def count_parameters(model: nn.Module) -> int:
    """Count the numbers that training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


class ResNet(nn.Module):
    """A ResNet for 32x32 images: a 3x3 stem, three stages of n blocks, a linear head.

    depth = 6n + 2 counts the layers with weights: the stem, two convolutions in each
    of 3n blocks, the head. The stages have 16, 32 and 64 channels at 32x32, 16x16 and
    8x8 pixels.

    Input: float images (N, 3, 32, 32), normalised. Output: logits (N, classes).
    Source: He et al. (2016), section 4.2. Parameters bear torchvision's names.
    """

    def __init__(self, depth: int, shortcut: str = "A", classes: int = 10):
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth must be 6n + 2, at least 8; got {depth}")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = make_stage(16, 16, blocks, stride=1, shortcut=shortcut)
        self.layer2 = make_stage(16, 32, blocks, stride=2, shortcut=shortcut)
        self.layer3 = make_stage(32, 64, blocks, stride=2, shortcut=shortcut)
        self.fc = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, 32, 32)
        x = F.relu(self.bn1(self.conv1(x)))  # (N, 16, 32, 32)
        x = self.layer1(x)  # (N, 16, 32, 32)
        x = self.layer2(x)  # (N, 32, 16, 16)
        x = self.layer3(x)  # (N, 64, 8, 8)
        x = x.mean(dim=(2, 3))  # (N, 64)
        return self.fc(x)  # (N, classes)


def make_stage(
    in_channels: int, channels: int, blocks: int, stride: int, shortcut: str
) -> nn.Sequential:
    """Chain `blocks` blocks; the first one changes resolution and width."""
    first = BasicBlock(in_channels, channels, stride, shortcut)
    rest = [BasicBlock(channels, channels, 1, shortcut) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to the block's input.

    Input (N, in_channels, H, W), output (N, channels, H / stride, W / stride).
    Where the two shapes differ, shortcut "A" takes every stride-th pixel and appends
    channels of zeros (no parameters); shortcut "B" is a 1x1 convolution with batch
    normalisation. Raises ValueError for another shortcut.
    Source: He et al. (2016), equations 1 and 2, figure 2.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, shortcut: str = "A"
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(
            in_channels, channels, kernel_size=3, stride=stride, padding=1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        if shortcut not in ("A", "B"):
            raise ValueError(f"shortcut must be 'A' or 'B', got {shortcut!r}")
        if stride == 1 and in_channels == channels:
            self.downsample = nn.Identity()
        elif shortcut == "A":
            self.downsample = PaddedShortcut(channels - in_channels, stride)
        else:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.downsample(x))


class PaddedShortcut(nn.Module):
    """Shortcut A: every stride-th pixel, with `extra` channels of zeros appended."""

    def __init__(self, extra: int, stride: int):
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.extra))
