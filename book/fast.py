"""A fast residual network, which learns CIFAR-10 in minutes, and its recorded runs.

    python book/fast.py --seed 0 --threads 2 --name fast-0

Here live the network, its optimizer, its pictures and its loop, which chapter 10
teaches. The ideas are those of Jordan (2024) and Jordan et al. (2024b), with settings
from the first author's published programs; the shortcuts are ours.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

import cifar10
import helpers
import resnet
import train as command_line


@dataclass(frozen=True)
class Recipe:
    """How the network is trained; the rates fall to zero in a straight line.

    The loss is the sum over the batch, to which the rates of biases and head belong.
    Raises ValueError for no epochs, empty batches, rates that are not positive, or a
    seed outside [0, 2**32).
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
    bf16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        rates = self.filter_rate, self.bias_rate, self.head_rate
        if self.epochs < 1 or self.batch_size < 1 or min(rates) <= 0:
            raise ValueError(
                "a recipe needs epochs and batch_size of at least 1, and rates above "
                f"0: {self}"
            )
        helpers.check_seed(self)


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


def make_optimizer(model: FastResNet, recipe: Recipe) -> Muon:
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


def view(images: Tensor, top: Tensor, left: Tensor, mirror: Tensor) -> Tensor:
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
            seen = view(images, places, places, flags)
            total += share / 2 * helpers.predict(model, seen)
    return total


# ---------------------------------------------------------------- training


def train_epoch(model, images, labels, optimizer, epoch, recipe) -> tuple[float, float]:
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
        seen = view(images[batch], top, left, coins[batch] ^ bool(epoch % 2))
        with torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.bf16):
            logits = model(helpers.normalise(seen))
        loss = F.cross_entropy(
            logits.float(),
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


def fit(
    model: FastResNet,
    train: tuple[Tensor, Tensor],
    recipe: Recipe,
    validation: tuple[Tensor, Tensor] | None = None,
    checkpoint: Path | None = None,
    report: Callable[[str], None] = tqdm.write,
    about: dict | None = None,
) -> list[dict]:
    """Train `model`; return one dictionary an epoch, as helpers.fit does.

    `train` and `validation` are images uint8 (N, 32, 32, 3) and labels int64 (N,), on
    the model's device. The stem's filters are computed from the first 5,000 images.
    Where `checkpoint` exists, training goes on from it; it is written after each epoch.
    `rate` in a row is that of the filters at the end of the epoch. `about` is what else
    the run is known again by when it goes on, as JSON.
    Raises ValueError for fewer images than a batch, TrainingError if a loss or a weight
    is no longer finite, or for a checkpoint of another run, and OSError if a checkpoint
    cannot be written.
    """
    images, labels = train
    if len(images) < recipe.batch_size:
        raise ValueError(
            f"{len(images)} images fill no batch of {recipe.batch_size}: train on more "
            "images, or with a smaller batch_size"
        )
    some = helpers.normalise(images[:5000])
    model.stem.weight.data.copy_(whitening_filters(some))
    model.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, recipe)
    run = asdict(recipe) | {"images": len(images)} | (about or {})
    history = []
    if checkpoint and checkpoint.exists():
        history = helpers.load_checkpoint(checkpoint, model, optimizer, run)
    done = len(history)
    left = range(done, recipe.epochs)
    for epoch in tqdm(left, initial=done, total=recipe.epochs, unit="epoch"):
        start = time.perf_counter()
        shown = train_epoch(model, images, labels, optimizer, epoch, recipe)
        row = helpers.describe_epoch(epoch, optimizer, *shown, start)
        if validation:
            own = helpers.evaluate(model, *validation)
            row |= {f"validation_{name}": own[name] for name in ("loss", "accuracy")}
        helpers.check_finite(row, model, recipe.filter_rate)
        history.append(row)
        if checkpoint:
            helpers.save_checkpoint(checkpoint, model, optimizer, run, history)
        report(helpers.epoch_line(row, recipe.epochs))
    return history


# ---------------------------------------------------------------- recorded runs


def main(arguments: list[str] | None = None) -> None:
    """Train once on all training images, judge once, and write the record."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        description="Train the fast network on all images and record the run.",
        allow_abbrev=False,
    )
    usual = "%(default)s unless given"
    parser.add_argument("--epochs", type=int, default=Recipe.epochs, help=usual)
    parser.add_argument("--seed", type=int, default=Recipe.seed, help=usual)
    command_line.add_common_options(parser)
    options = parser.parse_args(arguments)
    files = command_line.Files(options.results, options.name or "fast")
    with command_line.faults_in_a_sentence("fast.py", files.how_to_go_on):
        run(options, files, command_line.command(arguments, "fast.py"))


def run(options: argparse.Namespace, files: command_line.Files, typed: str) -> None:
    """Train, judge once on the test set, and write the record with its files."""
    if torch.distributed.is_torchelastic_launched():
        raise ValueError("it trains in one process: start it by python, not torchrun")
    helpers.keep_freed_memory()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = helpers.choose_device(options.device)
    bf16 = command_line.in_bf16(options, device)
    recipe = Recipe(epochs=options.epochs, bf16=bf16, seed=options.seed)
    files.refuse_to_lose_work(options)
    torch.manual_seed(recipe.seed)
    model = FastResNet().to(device)
    data = cifar10.load_full()
    kept, held_out = command_line.set_aside(data.train, options.validation)
    parts = kept, held_out, data.test
    train, validation, test = (helpers.to_tensors(part, device) for part in parts)
    machine = command_line.describe_machine(device, bf16)
    history = fit(
        model,
        train,
        recipe,
        validation if options.validation else None,
        files.checkpoint,
        about=command_line.repeats_on(machine),
    )
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())  # as they will be kept
    start = time.perf_counter()
    views = predict_views(model, test[0])
    right = int((views.argmax(dim=1) == test[1]).sum())  # waits for an accelerator
    seconds_views = time.perf_counter() - start
    record = {
        "name": files.name,
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": typed,
        "model": "fast",
        "parameters": resnet.count_parameters(model),
        "recipe": asdict(recipe),
        "data": command_line.describe_data(data, train, validation, test),
        "protocol": "test set used once, with the weights of the last epoch in half "
        "precision, without and with test-time augmentation",
        "machine": machine,
        "seconds": sum(row["seconds"] for row in history),
        "seconds_six_views": seconds_views,
        "weights_precision": "float16",
        "test": helpers.evaluate(model, *test),
        "six_views": {
            "accuracy": right / len(views),
            "correct": right,
            "images": len(views),
        },
        "history": history,
    }
    others = {"six_views_logits": views}
    command_line.write_results(files, record, model, test, validation, others)
    print(
        f"test accuracy {record['test']['accuracy']:.2%}, of six views "
        f"{record['six_views']['accuracy']:.2%}, after "
        f"{record['seconds'] / 60:.1f} minutes; record in {files.record}"
    )


if __name__ == "__main__":
    main()
