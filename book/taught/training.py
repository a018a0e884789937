"""Chapter 7: how a ResNet is trained and judged, as plainly as the chapter shows it.

Here live the images as a network wants them, the recipe, the loop and the evaluation.
What only a long run needs (checkpoints, workers, bfloat16) is around it, in runs/.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Channel means and standard deviations of the 50,000 training images, scaled to [0, 1].
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


# ---------------------------------------------------------------- images


def normalise(images: Tensor) -> Tensor:
    """Scale uint8 images (N, H, W, 3) to mean 0, deviation 1: float32 (N, 3, H, W).

    The memory keeps its order, which PyTorch calls channels_last.
    Taught in chapter 7.
    """
    mean = torch.tensor(MEAN, device=images.device)
    std = torch.tensor(STD, device=images.device)
    x = (images / 255 - mean) / std  # (N, H, W, 3)
    return x.permute(0, 3, 1, 2)  # (N, 3, H, W)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by up to 4 pixels and mirror every other one, at random.

    Takes and returns uint8 (N, 32, 32, 3); the border is filled with the mean colour.
    Source: He et al. (2016), section 4.2. Taught in chapter 7.
    """
    n = len(images)
    canvas = images.new_empty(n, 40, 40, 3)
    canvas[:] = images.new_tensor([round(255 * m) for m in MEAN])
    canvas[:, 4:36, 4:36] = images
    top, left = torch.randint(0, 9, (2, n, 1), generator=generator)
    mirror = torch.rand(n, 1, generator=generator) < 0.5
    rows = top + torch.arange(32)  # (N, 32)
    columns = left + torch.where(mirror, torch.arange(31, -1, -1), torch.arange(32))
    return canvas[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None]]


def as_they_are(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images unchanged: stands in place of `augment`.

    Taught in chapter 7.
    """
    return images


# ---------------------------------------------------------------- the recipe


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    `warm_up` is the share of steps in which the learning rate rises to `peak_rate`.
    Taught in chapter 7.
    """

    epochs: int
    batch_size: int = 128
    peak_rate: float = 0.2
    warm_up: float = 0.15
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.05
    seed: int = 0


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Build SGD with Nesterov momentum that decays the weights of layers only.

    Biases and the scales and shifts of batch normalisation are not decayed.
    Taught in chapter 7.
    """
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    momentum = recipe.momentum
    return torch.optim.SGD(groups, recipe.peak_rate, momentum, nesterov=momentum > 0)


def learning_rate(step: int, steps: int, peak: float, warm_up: float) -> float:
    """Return the rate of step 0, 1, …, steps - 1: a rise to `peak`, then a fall to 0.

    The rise takes the share `warm_up` of all steps; both are straight lines. Where the
    rise ends between two steps, the rate of one may lie above the peak, by less than
    one step's rise. Taught in chapter 7.
    """
    rise = warm_up * steps
    return peak * min((step + 1) / rise, (steps - step) / (steps - rise))


def constant_rate(step: int, steps: int, peak: float, warm_up: float) -> float:
    """Return rates that rise as those of `learning_rate` do, and then stay.

    Taught in chapter 7.
    """
    return peak * min((step + 1) / (warm_up * steps), 1)


# ---------------------------------------------------------------- the loop


def shuffled_batches(
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    epoch: int,
    augment: Callable = augment,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every image once, in random order: x float32 (B, 3, 32, 32), y int64 (B,).

    `images` is uint8 (N, 32, 32, 3), `labels` int64 (N,). The order, and how `augment`
    changes the images, depend on the recipe's seed and the epoch alone.
    Taught in chapter 7.
    """
    generator = torch.Generator().manual_seed(1000 * recipe.seed + epoch)
    order = torch.randperm(len(images), generator=generator)
    for batch in order.split(recipe.batch_size):
        yield normalise(augment(images[batch], generator)), labels[batch]


def train_epoch(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    rates: Iterable[float],
    label_smoothing: float,
) -> tuple[float, float]:
    """Take one step for each batch; return mean loss and accuracy of what was shown.

    `rates` yields one learning rate a step. Taught in chapter 7.
    """
    model.train()
    loss_sum = correct = shown = 0
    for (x, y), rate in zip(batches, rates):
        for group in optimizer.param_groups:
            group["lr"] = rate
        logits = model(x)
        loss = F.cross_entropy(logits, y, label_smoothing=label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.detach() * len(y)
        correct += (logits.argmax(dim=1) == y).sum()
        shown += len(y)
    return float(loss_sum / shown), float(correct / shown)


def fit(
    model: nn.Module,
    train: tuple[Tensor, Tensor],
    recipe: Recipe,
    validation: tuple[Tensor, Tensor] | None = None,
    report: Callable[[str], None] = print,
    augment: Callable = augment,
    schedule: Callable = learning_rate,
) -> list[dict]:
    """Train `model` by `recipe`; return one dictionary an epoch.

    `train` and `validation` are images uint8 (N, 32, 32, 3) and labels int64 (N,), on
    the device of the model. Taught in chapter 7.
    """
    optimizer = make_optimizer(model, recipe)
    steps = recipe.epochs * math.ceil(len(train[0]) / recipe.batch_size)
    rates = (
        schedule(step, steps, recipe.peak_rate, recipe.warm_up) for step in range(steps)
    )
    history = []
    for epoch in range(recipe.epochs):
        batches = shuffled_batches(*train, recipe, epoch, augment)
        loss, accuracy = train_epoch(
            model, batches, optimizer, rates, recipe.label_smoothing
        )
        row = {"epoch": epoch + 1, "loss": loss, "accuracy": accuracy}
        line = f"epoch {epoch + 1:2}: loss {loss:.3f}, accuracy {accuracy:.1%}"
        if validation:
            scores = evaluate(model, *validation)
            row["validation_loss"] = scores["loss"]
            row["validation_accuracy"] = scores["accuracy"]
            line += f", validation {scores['accuracy']:.1%}"
        history.append(row)
        report(line)
    return history


# ---------------------------------------------------------------- the judgement


def predict(model: nn.Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """Return the logits float32 (N, classes) of uint8 images (N, 32, 32, 3).

    Taught in chapter 7.
    """
    model.eval()
    with torch.no_grad():
        return torch.cat([model(normalise(x)) for x in images.split(batch_size)])


def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> dict:
    """Return loss, accuracy, and how many of how many images are classified right.

    Taught in chapter 7.
    """
    logits = predict(model, images)
    correct = int((logits.argmax(dim=1) == labels).sum())
    return {
        "loss": float(F.cross_entropy(logits, labels)),
        "accuracy": correct / len(labels),
        "correct": correct,
        "images": len(labels),
    }
