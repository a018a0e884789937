"""Residual networks in PyTorch: the families of He et al. (2016) and two variations.

Here live the blocks, the networks and their names.
How they are trained stands in training.py, where the weights are kept in support/.
"""

import re

import torch.nn.functional as F
from torch import Tensor, nn

# ---------------------------------------------------------------- networks


def build_model(
    name: str, shortcut: str | None = None, classes: int = 10, stem: str = "cifar"
) -> "ResNet":
    """Build a network by its name, for images of 32x32 or, by another stem, 224x224.

    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152" and "resnext50_32x4d"
    have the four stages of the ImageNet family. Any other "resnetD" is the CIFAR
    network of depth D = 6n + 2, from 8 on; "preresnetD" is the same with
    pre-activation blocks. `shortcut` is "A", "B" or "none"; the families' own are "A"
    for CIFAR and "B" for ImageNet. `stem` is "cifar" or "imagenet".
    Raises ValueError for anything else. Taught in chapter 6.
    """
    if name in IMAGENET_FAMILY:
        block, blocks = IMAGENET_FAMILY[name]
        return ResNet(
            block, blocks, (64, 128, 256, 512), shortcut or "B", stem, classes
        )
    found = re.fullmatch("(pre)?resnet([0-9]+)", name, re.ASCII)
    depth = int(found[2]) if found else 0
    if depth < 8 or depth % 6 != 2:
        raise ValueError(
            f"unknown model {name!r}: use resnet20, resnet32, resnet44, resnet56, "
            "resnet110, or another depth 6n + 2 from resnet8 on; preresnet20 and so "
            f"on; or {', '.join(IMAGENET_FAMILY)}"
        )
    network = PreActivationResNet if found[1] else ResNet
    block = PreActivationBlock if found[1] else BasicBlock
    blocks = [(depth - 2) // 6] * 3
    return network(block, blocks, (16, 32, 64), shortcut or "A", stem, classes)


def count_parameters(model: nn.Module) -> int:
    """Count the numbers that training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def without_normalisation(model: nn.Module) -> nn.Module:
    """Remove each batch normalisation and give each convolution a bias; same model."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Conv2d):
            layer.bias = nn.Parameter(layer.weight.new_zeros(layer.out_channels))
        elif isinstance(layer, nn.BatchNorm2d):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, nn.Identity())
    return model


class ResNet(nn.Module):
    """A stem, stages of blocks that halve the resolution, a linear head.

    `blocks` and `widths` give the number of blocks of each stage and their channels.
    The stem "cifar" is a 3x3 convolution; "imagenet" is one of 7x7 with stride 2,
    then max-pooling with stride 2.
    Input: float images (N, 3, H, W), normalised. Output: logits (N, classes).
    Source: He et al. (2016), table 1 and section 4.2. Parameters bear torchvision's
    names. Taught in chapter 6.
    """

    def __init__(self, block, blocks, widths, shortcut="A", stem="cifar", classes=10):
        super().__init__()
        if stem not in ("cifar", "imagenet"):
            raise ValueError(f"stem must be 'cifar' or 'imagenet', got {stem!r}")
        size, stride = (3, 1) if stem == "cifar" else (7, 2)
        self.conv1 = nn.Conv2d(3, widths[0], size, stride, size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.pool = nn.Identity() if stem == "cifar" else nn.MaxPool2d(3, 2, 1)
        self.stages = [f"layer{i + 1}" for i in range(len(blocks))]
        channels, stride = widths[0], 1
        for name, width, count in zip(self.stages, widths, blocks):
            stage = make_stage(block, channels, width, count, stride, shortcut)
            self.add_module(name, stage)
            channels, stride = width * block.expansion, 2
        self.fc = nn.Linear(channels, classes)
        self.shortcut = shortcut
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, 32, 32)
        x = self.pool(F.relu(self.bn1(self.conv1(x))))  # (N, 16, 32, 32)
        for name in self.stages:
            x = self.get_submodule(name)(x)  # … (N, 32, 16, 16), (N, 64, 8, 8)
        x = x.mean(dim=(2, 3))  # (N, 64)
        return self.fc(x)  # (N, classes)


def make_stage(
    block: type, in_channels: int, width: int, count: int, stride: int, shortcut: str
) -> nn.Sequential:
    """Chain `count` blocks; the first one changes resolution and channels.

    Taught in chapter 6.
    """
    channels = width * block.expansion
    first = block(in_channels, width, stride, shortcut)
    rest = [block(channels, width, 1, shortcut) for _ in range(count - 1)]
    return nn.Sequential(first, *rest)


class PreActivationResNet(ResNet):
    """A ResNet whose normalisation and ReLU come last, once, and not in the stem.

    `bn1` is here the one before the head. In the paper the first block's shortcut
    starts after that block's first ReLU; here it starts at the stem's output.
    Source: He et al. (2016b), figure 1b and appendix. Taught in chapter 6.
    """

    def __init__(self, block, blocks, widths, shortcut="A", stem="cifar", classes=10):
        super().__init__(block, blocks, widths, shortcut, stem, classes)
        self.bn1 = nn.BatchNorm2d(widths[-1] * block.expansion)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv1(x))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        x = F.relu(self.bn1(x)).mean(dim=(2, 3))
        return self.fc(x)


# ---------------------------------------------------------------- blocks


class BasicBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to the block's input.

    Input (N, in_channels, H, W), output (N, channels, H / stride, W / stride).
    Source: He et al. (2016), equations 1 and 2, figure 2. Taught in chapter 5.
    """

    expansion = 1  # output channels over `channels`

    def __init__(self, in_channels, channels, stride=1, shortcut="A"):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = make_shortcut(in_channels, channels, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.downsample(x))


def make_shortcut(in_channels: int, channels: int, stride: int, kind: str) -> nn.Module:
    """Build what carries a block's input around its convolutions.

    That is the identity, but where the shapes differ: there "A" takes every stride-th
    pixel and appends channels of zeros (no parameters), and "B" is a 1x1 convolution
    with batch normalisation. "none" carries nothing: a plain network, for comparison.
    Raises ValueError for another kind.
    Source: He et al. (2016), section 4.1. Taught in chapter 5.
    """
    if kind not in ("A", "B", "none"):
        raise ValueError(f"shortcut must be 'A', 'B' or 'none', got {kind!r}")
    if kind == "none":
        return NoShortcut()
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    if kind == "A":
        return PaddedShortcut(channels - in_channels, stride)
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 1, stride, bias=False),
        nn.BatchNorm2d(channels),
    )


class PaddedShortcut(nn.Module):
    """Shortcut A: every stride-th pixel, with `extra` channels of zeros appended.

    Taught in chapter 5.
    """

    def __init__(self, extra: int, stride: int):
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.extra))


class NoShortcut(nn.Module):
    """Adds nothing: the block becomes two plain layers. Taught in chapter 5."""

    def forward(self, x: Tensor) -> int:
        return 0


class Bottleneck(nn.Module):
    """1x1 to fewer channels, 3x3, 1x1 to four times as many; added to the input.

    `channels` are those of the 3x3 convolution over `widening`; the block puts out
    4 * channels. The stride is in the 3x3 convolution, as in torchvision; the paper
    has it in the first. Source: He et al. (2016), figure 5. Taught in chapter 6.
    """

    expansion, groups, widening = 4, 1, 1

    def __init__(self, in_channels, channels, stride=1, shortcut="B"):
        super().__init__()
        out, width = channels * self.expansion, channels * self.widening
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(
            width, width, 3, stride, padding=1, groups=self.groups, bias=False
        )
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = make_shortcut(in_channels, out, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.downsample(x))


class ResNeXtBlock(Bottleneck):
    """A bottleneck twice as wide whose 3x3 convolution works in 32 separate groups.

    Source: Xie et al. (2017), table 1. Taught in chapter 6.
    """

    groups, widening = 32, 2


class PreActivationBlock(nn.Module):
    """Normalisation and ReLU before each convolution, and nothing after the sum.

    Source: He et al. (2016b), figure 1b. Taught in chapter 6.
    """

    expansion = 1

    def __init__(self, in_channels, channels, stride=1, shortcut="A"):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.downsample = make_shortcut(in_channels, channels, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.bn1(x)))
        y = self.conv2(F.relu(self.bn2(y)))
        return y + self.downsample(x)


IMAGENET_FAMILY = {  # name: block, blocks in each of the four stages
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
    "resnext50_32x4d": (ResNeXtBlock, (3, 4, 6, 3)),
}
