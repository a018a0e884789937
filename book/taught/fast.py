"""Chapter 10: a fast residual network, which learns CIFAR-10 in minutes.

Here live the network, its optimizer, its pictures and its loop. The ideas are those of
Jordan (2024) and Jordan et al. (2024b), with settings from the first author's published
programs; the shortcuts are ours. Its recorded runs are made by runs/fast.py.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taught.training import normalise, predict


@dataclass(frozen=True)
class FastRecipe:
    """How the network is trained; the rates fall to zero in a straight line.

    The loss is the sum over the batch, to which the rates of biases and head belong.
    Source: Jordan (2024), section 3, and Jordan et al. (2024b).
    """

    epochs: int = 12
    batch_size: int = 2000
    filter_rate: float = 0.24
    filter_momentum: float = 0.6
    bias_rate: float = 0.053
    head_rate: float = 0.67
    momentum: float = 0.85
    decay: float = 0.004  # of biases and head, a step at the full rate
    label_smoothing: float = 0.2
    stem_epochs: int = 3  # in which the stem's bias learns
    seed: int = 0


# ---------------------------------------------------------------- the network


class FastResNet(nn.Module):
    """A stem that whitens patches, three stages, a head. Taught in chapter 10.

    Input: float images (N, 3, 32, 32), normalised. Output: logits (N, classes).
    Source: Jordan (2024), section 3, with a shortcut in each stage.
    """

    def __init__(self, widths=(64, 256, 256), classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 2)
        self.stem.weight.requires_grad_(False)  # see whitening_filters
        channels = (24, *widths)
        self.stages = nn.Sequential(*map(FastStage, channels, widths))
        self.head = nn.Linear(widths[-1], classes, bias=False)
        nn.init.normal_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.stem(x))  # (N, 24, 31, 31)
        x = self.stages(x)  # (N, 256, 3, 3)
        x = x.amax(dim=(2, 3))  # (N, 256)
        return self.head(x) / (2 * x.shape[1])  # the shortcut doubles x


class FastStage(nn.Module):
    """A convolution and a pooling that halve the resolution; a residual convolution.

    Input (N, in_channels, H, W), output (N, channels, H // 2, W // 2). Both
    convolutions start as the identity, as far as channels go. Taught in chapter 10.
    """

    def __init__(self, in_channels, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels, momentum=0.4)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels, momentum=0.4)
        nn.init.dirac_(self.conv1.weight.data[:in_channels])
        nn.init.dirac_(self.conv2.weight)
        for norm in (self.bn1, self.bn2):
            norm.weight.requires_grad_(False)  # stays 1

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.bn1(F.max_pool2d(self.conv1(x), 2)))
        return x + F.gelu(self.bn2(self.conv2(x)))


def whitening_filters(x: Tensor) -> Tensor:
    """Return twelve filters that whiten patches of `x`, and their negatives.

    `x` holds normalised images (N, 3, H, W); the filters have the shape (24, 3, 2, 2).
    The first twelve are the eigenvectors of the patches' mean products, scaled to
    answers of mean square 1. Source: Jordan (2024), section 3.2. Taught in chapter 10.
    """
    patches = F.unfold(x, 2).transpose(1, 2).reshape(-1, 12)  # (N * places, 12)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = vectors.T / torch.sqrt(values + 5e-4)[:, None]  # one a row
    return torch.cat([filters, -filters]).view(24, 3, 2, 2)


# ---------------------------------------------------------------- the optimizer


def orthogonalise(G: Tensor, steps: int = 3) -> Tensor:
    """Return a matrix (m, n) near the orthogonal one that is closest to `G`.

    Its singular vectors are those of `G`; an iteration of products brings its singular
    values, but for the smallest, to about 0.7 to 1.2. Source: Jordan et al. (2024b).
    Taught in chapter 10.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    if len(G) > G.shape[1]:
        return orthogonalise(G.T, steps).T
    X = G / (G.norm() + 1e-7)  # no singular value above 1
    for _ in range(steps):
        A = X @ X.T
        X = a * X + (b * A + c * A @ A) @ X
    return X


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov momentum, whose steps are orthogonal where it moves filters.

    Parameters (K, C, height, width) are filters: they are scaled to root mean square
    row norm 1 before each step. Everything else takes plain steps.
    Source: Jordan et al. (2024b). Taught in chapter 10.
    """

    def __init__(self, groups):
        super().__init__(groups, {"momentum": 0.85, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                gradient = p.grad + group["weight_decay"] * p
                state["momentum"].mul_(group["momentum"]).add_(gradient)
                move = gradient + group["momentum"] * state["momentum"]
                if p.ndim == 4:
                    p.mul_(len(p) ** 0.5 / p.norm())
                    move = orthogonalise(move.flatten(1)).view_as(p)
                p.sub_(group["lr"] * move)


def make_optimizer(model: FastResNet, recipe: FastRecipe) -> Muon:
    """Give each kind of parameter its rate, momentum and decay.

    Filters, biases and the head make the groups, in this order; `peak` is the rate
    before it falls. Source: Jordan (2024), section 3.
    """
    learned = [p for p in model.parameters() if p.requires_grad]
    kinds = [
        ([p for p in learned if p.ndim == 4], recipe.filter_rate, 0.0),
        ([p for p in learned if p.ndim == 1], recipe.bias_rate, recipe.decay),
        ([model.head.weight], recipe.head_rate, recipe.decay),
    ]
    groups = [
        {"params": p, "lr": rate, "peak": rate, "weight_decay": decay / rate}
        | {"momentum": recipe.momentum}
        for p, rate, decay in kinds
    ]
    groups[0]["momentum"] = recipe.filter_momentum
    return Muon(groups)


# ---------------------------------------------------------------- pictures


def shift_and_mirror(
    images: Tensor, top: Tensor, left: Tensor, mirror: Tensor
) -> Tensor:
    """Move each image down by -top and right by -left pixels, and mirror some.

    `images` is uint8 (N, 32, 32, 3); `top`, `left` (int64) and `mirror` (bool) have
    the shape (N,), on the CPU. The border shows what lies inside it, reflected.
    Taught in chapter 10.
    """

    def reflect(places):
        return 31 - (31 - places.abs()).abs()

    rows = reflect(top[:, None] + torch.arange(32))  # (N, 32)
    columns = reflect(left[:, None] + torch.arange(32))
    columns = torch.where(mirror[:, None], columns.flip(1), columns)
    n = torch.arange(len(images))[:, None, None]
    return images[n, rows[:, :, None], columns[:, None]]


def predict_views(model: nn.Module, images: Tensor) -> Tensor:
    """Return logits (N, classes), averaged over six views of each image.

    The image as it is counts one half, moved by a pixel up and left or down and right
    a quarter each; half of each share is mirrored. Source: Jordan (2024), section
    3.5. Taught in chapter 10.
    """
    total = 0
    for move, share in ((0, 0.5), (1, 0.25), (-1, 0.25)):
        places = torch.full((len(images),), move)
        for mirrored in (False, True):
            flags = torch.full((len(images),), mirrored)
            seen = shift_and_mirror(images, places, places, flags)
            total += share / 2 * predict(model, seen)
    return total


# ---------------------------------------------------------------- the loop


def train_fast_epoch(
    model: FastResNet,
    images: Tensor,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    recipe: FastRecipe,
    epoch: int,
) -> tuple[float, float]:
    """Show the images once; return mean loss and accuracy of what was shown.

    `images` is uint8 (N, 32, 32, 3) and `labels` int64 (N,). In even epochs half of
    the images are mirrored, in odd ones the other half. Images that fill no batch are
    left out. Source: Jordan (2024), section 3.6.
    Taught in chapter 10.
    """
    model.train()
    model.stem.bias.requires_grad_(epoch < recipe.stem_epochs)
    n, size = len(images), recipe.batch_size
    coins = torch.rand(n, generator=torch.Generator().manual_seed(recipe.seed)) < 0.5
    generator = torch.Generator().manual_seed(1000 * recipe.seed + epoch)
    batches = torch.randperm(n, generator=generator)[: n - n % size].split(size)
    loss_sum = correct = 0
    for step, batch in enumerate(batches, epoch * len(batches)):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * (1 - step / (recipe.epochs * len(batches)))
        top, left = torch.randint(-2, 3, (2, size), generator=generator)
        mirror = coins[batch] ^ bool(epoch % 2)
        logits = model(normalise(shift_and_mirror(images[batch], top, left, mirror)))
        loss = F.cross_entropy(
            logits,
            labels[batch],
            label_smoothing=recipe.label_smoothing,
            reduction="sum",
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.detach()
        correct += (logits.argmax(dim=1) == labels[batch]).sum()
    shown = len(batches) * size
    return float(loss_sum / shown), float(correct / shown)
