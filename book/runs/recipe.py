"""Chapter 7's training as a full run does it: the lesson's parts, and what is around.

Around them are bfloat16, workers, averaged weights, checkpoints, and the switches of
the ablations. How one epoch runs stands in taught/training.py.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from support.epochs import run_epochs
from support.precision import train_in_bf16
from support.workers import ALONE, Workers
from taught import training


@dataclass(frozen=True)
class FullRecipe(training.Recipe):
    """The lesson's recipe, with the switches of a full run.

    Without `augment` images are shown as they are; without `fall` the rate stays at
    its peak. `optimizer` is "sgd" or "adam". `averaging` is the share of the old
    average that a step keeps, where weights are averaged; 0 averages nothing.
    Raises ValueError for settings that make no run.
    """

    augment: bool = True
    fall: bool = True
    optimizer: str = "sgd"
    averaging: float = 0.0
    bf16: bool = False

    def __post_init__(self) -> None:
        need(self, "epochs", "of at least 1", self.epochs >= 1)
        need(self, "batch_size", "of at least 1", self.batch_size >= 1)
        need(self, "warm_up", "between 0 and 1", 0 < self.warm_up < 1)
        need(self, "momentum", "from 0 to less than 1", 0 <= self.momentum < 1)
        need(self, "optimizer", "'sgd' or 'adam'", self.optimizer in ("sgd", "adam"))
        need(self, "averaging", "from 0 to less than 1", 0 <= self.averaging < 1)
        need_seed(self)


def need_seed(recipe) -> None:
    """Raise ValueError where NumPy and PyTorch would not both take the seed."""
    need(recipe, "seed", f"from 0 to {2**32 - 1:,}", 0 <= recipe.seed < 2**32)


def need(recipe, name: str, wanted: str, is_good: bool) -> None:
    """Raise ValueError that names a setting of a recipe, unless it is good."""
    if not is_good:
        raise ValueError(
            f"a recipe needs {name} {wanted}, not {getattr(recipe, name)!r}"
        )


def fit(
    model: nn.Module,
    train: tuple[Tensor, Tensor],
    recipe: FullRecipe,
    validation: tuple[Tensor, Tensor] | None = None,
    checkpoint: Path | None = None,
    report: Callable[[str], None] = tqdm.write,
    team: Workers = ALONE,
    known_as: dict | None = None,
) -> list[dict]:
    """Train `model` by `recipe`; return one dictionary an epoch.

    `train` and `validation` are (images, labels) as `to_tensors` makes them, on the
    device of the model. The rest, and the errors, are those of `run_epochs`. Where the
    recipe averages weights, the averages are what is validated, and what `model` holds
    in the end. Raises ValueError where batches do not divide among the workers.
    """
    images = len(train[0])
    team.check_batches(images, recipe.batch_size)
    model.to(memory_format=torch.channels_last)
    if recipe.bf16:
        train_in_bf16(model)
    in_loop = team.wrap(model)
    optimizer = _make_optimizer(model, recipe)
    saved, judged = nn.ModuleDict({"model": model}), model
    if recipe.averaging:
        keep = get_ema_multi_avg_fn(recipe.averaging)
        average = AveragedModel(model, multi_avg_fn=keep, use_buffers=True)
        optimizer.register_step_post_hook(lambda *_: average.update_parameters(model))
        saved["average"], judged = average, average.module
    augment = training.augment if recipe.augment else training.as_they_are
    schedule = training.learning_rate if recipe.fall else training.constant_rate
    steps = math.ceil(images / recipe.batch_size)  # an epoch
    total = steps * recipe.epochs

    def train_epoch(epoch: int) -> tuple[float, float]:
        batches = training.shuffled_batches(*train, recipe, epoch, augment)
        rates = (
            schedule(step, total, recipe.peak_rate, recipe.warm_up)
            for step in range(epoch * steps, (epoch + 1) * steps)
        )
        return training.train_epoch(
            in_loop, team.share(batches), optimizer, rates, recipe.label_smoothing
        )

    def validate() -> dict:
        team.agree(judged)
        own = (tensor[team.rank :: team.count] for tensor in validation)
        return training.evaluate(judged, *own)

    history = run_epochs(
        saved,
        optimizer,
        train_epoch,
        recipe.epochs,
        steps,
        known_as=asdict(recipe) | {"images": images} | (known_as or {}),
        validate=validate if validation else None,
        checkpoint=checkpoint,
        report=report,
        team=team,
    )
    if recipe.averaging:
        model.load_state_dict(judged.state_dict())
    return history


def _make_optimizer(model: nn.Module, recipe: FullRecipe) -> torch.optim.Optimizer:
    usual = training.make_optimizer(model, recipe)
    if recipe.optimizer == "sgd":
        return usual
    kept = ("params", "weight_decay")
    groups = [{name: group[name] for name in kept} for group in usual.param_groups]
    return torch.optim.Adam(groups, lr=recipe.peak_rate)
