"""Chapter 8: ways to carry a trained network over to other classes.

Here live the parts that the chapter teaches; the recorded comparison of the ways over
seeds and labels is made by runs/finetune.py.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taught import resnet
from taught.training import augment, evaluate, learning_rate, normalise

WAYS = ("from scratch", "linear probe", "full", "by stage", "gradual")
HEAD_RATE = 1.0  # of the head alone: the best of four for the linear probe


def pick(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Choose the places of `per_class` images of each class at random, int64 (n,).

    `labels` is int (N,), with classes 0, 1, …. Raises ValueError if a class has fewer
    images. Taught in chapter 8.
    """
    generator, places = np.random.default_rng(seed), []
    for c in range(labels.max() + 1):
        of_class = np.flatnonzero(labels == c)
        places.append(generator.choice(of_class, per_class, replace=False))
    return np.concatenate(places)


def carry_over(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Fill a new model with the weights of an old one, but for its head `fc`.

    Everything else must fit, else RuntimeError names it. Taught in chapter 8.
    """
    head = {f"fc.{name}": p for name, p in model.fc.named_parameters()}  # as it is
    model.load_state_dict({**state, **head})
    return model


def freeze(module: nn.Module, frozen: bool = True) -> None:
    """Exclude the parameters of a module from training, or include them again.

    Taught in chapter 8.
    """
    for p in module.parameters():
        p.requires_grad_(not frozen)


def train_mode(model: nn.Module) -> None:
    """Put a model into training mode, but what is frozen into evaluation mode.

    Else the running statistics of a frozen normalisation would move.
    Taught in chapter 8.
    """
    model.train()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(p.requires_grad for p in own):
            module.eval()


def stage_groups(model: nn.Module, rate: float, factor: float = 1.0) -> list[dict]:
    """Group the parameters that are trained: head, last stage, …, first stage, stem.

    The head gets the learning rate `rate`, each group after it `factor` times the one
    before. Taught in chapter 8.
    """
    names = ["fc", *reversed(model.stages), "conv1", "bn1"]
    groups = []
    for depth, name in enumerate(names):
        params = [p for p in model.get_submodule(name).parameters() if p.requires_grad]
        depth = min(depth, len(names) - 2)  # conv1 and bn1 are the stem
        if params:
            groups.append({"params": params, "lr": rate * factor**depth})
    return groups


def fine_tune(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    groups: list[dict],
    steps: int,
    seed: int,
    batch_size: int = 50,
) -> None:
    """Train the parameters in `groups`, each by its own learning rate.

    Every rate rises over the first 15 % of the steps and then falls to 0. `images` is
    uint8 (N, 32, 32, 3), `labels` int64 (N,). Taught in chapter 8.
    """
    optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=5e-4)
    peaks = [group["lr"] for group in optimizer.param_groups]
    generator, order = torch.Generator().manual_seed(seed), torch.tensor([]).long()
    train_mode(model)
    for step in range(steps):
        for group, peak in zip(optimizer.param_groups, peaks):
            group["lr"] = learning_rate(step, steps, peak, warm_up=0.15)
        if len(order) < batch_size:
            order = torch.randperm(len(images), generator=generator)
        batch, order = order[:batch_size], order[batch_size:]
        z = model(normalise(augment(images[batch], generator)))
        loss = F.cross_entropy(z, labels[batch], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def start(way: str, state: dict[str, Tensor], classes: int, seed: int) -> nn.Module:
    """Build the ResNet-20 that one of the WAYS begins with.

    `state` is that of the network to carry over. Taught in chapter 8.
    """
    torch.manual_seed(seed)  # draws the head, or from scratch everything
    model = resnet.build_model("resnet20", classes=classes)
    if way == "from scratch":
        return model
    return carry_over(model, state)


def adapt(
    way: str,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    steps: int,
    rate: float,
    seed: int,
) -> None:
    """Train a network that `start` has built on a few images, in one of the five WAYS.

    `images` is uint8 (N, 32, 32, 3), `labels` int64 (N,), on the device of the model.
    Taught in chapter 8.
    """
    if way in ("linear probe", "gradual"):
        freeze(model)
        freeze(model.fc, False)
        head_steps = steps if way == "linear probe" else steps // 4
        groups = stage_groups(model, rate if way == "linear probe" else HEAD_RATE)
        fine_tune(model, images, labels, groups, head_steps, seed)
        steps -= head_steps
    if way != "linear probe":
        freeze(model, False)
        groups = stage_groups(model, rate, factor=0.5 if way == "by stage" else 1.0)
        fine_tune(model, images, labels, groups, steps, seed)


def features(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return the mean over the pixels of what each stage puts out, (N, channels).

    In evaluation mode; the last stage's is what the head gets. Taught in chapter 8.
    """
    model.eval()
    with torch.no_grad():
        h = model.pool(F.relu(model.bn1(model.conv1(normalise(images)))))
        found = {"stem": h}
        for name in model.stages:
            found[name] = h = model.get_submodule(name)(h)
    return {name: h.mean(dim=(2, 3)) for name, h in found.items()}


def cka(a: Tensor, b: Tensor) -> float:
    """Compare two sets of features of the same images, (N, p) and (N, q): 0 to 1.

    Linear centred kernel alignment: the correlation of their tables of inner products
    between images. Source: Kornblith et al. (2019), section 3. Taught in chapter 8.
    """
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    one, other = a @ a.T, b @ b.T  # (N, N)
    return float((one * other).sum() / (one.norm() * other.norm()))


def with_head(model: nn.Module, head: nn.Module, images: Tensor, labels: Tensor):
    """Return the accuracy of a model with another head on it. Taught in chapter 8."""
    kept, model.fc = model.fc, head
    accuracy = evaluate(model, images, labels)["accuracy"]
    model.fc = kept
    return accuracy
