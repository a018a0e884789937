"""Train the fast residual network on CIFAR-10 and record the run.

    python -m runs.fast --seed 0 --threads 2 --name mine

To be typed in book/. How the network learns stands in taught/fast.py.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from runs.driver import Experiment, add_options, drive, halve
from runs.recipe import need, need_seed
from support.epochs import run_epochs
from support.precision import train_in_bf16
from support.workers import ALONE, Workers
from taught import fast
from taught.training import evaluate, normalise

PROTOCOL = (
    "test set used once, with the weights of the last epoch in half precision, without "
    "and with test-time augmentation"
)


@dataclass(frozen=True)
class FullRecipe(fast.FastRecipe):
    """The lesson's recipe, and in which precision it is carried out.

    Raises ValueError for settings that make no run.
    """

    bf16: bool = False

    def __post_init__(self) -> None:
        need(self, "epochs", "of at least 1", self.epochs >= 1)
        need(self, "batch_size", "of at least 1", self.batch_size >= 1)
        for name in ("filter_rate", "bias_rate", "head_rate"):
            need(self, name, "above 0", getattr(self, name) > 0)
        need_seed(self)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    drive("fast", arguments, make_parser(), prepare)


def make_parser() -> argparse.ArgumentParser:
    """Make the options."""
    parser = argparse.ArgumentParser(
        prog="runs.fast",
        description="Train the fast network on CIFAR-10 and record the run.",
        allow_abbrev=False,
    )
    parser.set_defaults(model="fast")
    recipe = parser.add_argument_group("recipe")
    for name in ("epochs", "seed"):
        recipe.add_argument(
            f"--{name}",
            type=int,
            default=getattr(FullRecipe, name),
            help="%(default)s unless given",
        )
    add_options(parser)
    return parser


def prepare(options: argparse.Namespace, bf16: bool) -> Experiment:
    """Turn the options into an experiment; ValueError under torchrun."""
    if torch.distributed.is_torchelastic_launched():
        raise ValueError("it trains in one process: start it by python, not torchrun")
    return Experiment(
        recipe=FullRecipe(epochs=options.epochs, seed=options.seed, bf16=bf16),
        build=fast.FastResNet,
        fit=fit,
        judge=judge,
        protocol=PROTOCOL,
        about={"model": "fast"},
    )


def fit(
    model: fast.FastResNet,
    train: tuple[Tensor, Tensor],
    recipe: FullRecipe,
    validation: tuple[Tensor, Tensor] | None = None,
    checkpoint: Path | None = None,
    report: Callable[[str], None] = tqdm.write,
    team: Workers = ALONE,
    known_as: dict | None = None,
) -> list[dict]:
    """Train `model`; return one dictionary an epoch.

    `train` and `validation` are images uint8 (N, 32, 32, 3) and labels int64 (N,), on
    the model's device. The stem's filters are computed from the first 5,000 images.
    The rest, and the errors, are those of `run_epochs`.
    Raises ValueError for fewer images than a batch.
    """
    images, labels = train
    if len(images) < recipe.batch_size:
        raise ValueError(
            f"{len(images)} images fill no batch of {recipe.batch_size}: train on more "
            "images, or with a smaller batch_size"
        )
    model.stem.weight.data.copy_(fast.whitening_filters(normalise(images[:5000])))
    model.to(memory_format=torch.channels_last)
    if recipe.bf16:
        train_in_bf16(model)
    optimizer = fast.make_optimizer(model, recipe)
    return run_epochs(
        model,
        optimizer,
        lambda epoch: fast.train_fast_epoch(
            model, images, labels, optimizer, recipe, epoch
        ),
        recipe.epochs,
        len(images) // recipe.batch_size,
        known_as=asdict(recipe) | {"images": len(images)} | (known_as or {}),
        validate=(lambda: evaluate(model, *validation)) if validation else None,
        checkpoint=checkpoint,
        report=report,
        team=team,
    )


def judge(
    model: fast.FastResNet, images: Tensor, labels: Tensor
) -> tuple[dict, dict[str, Tensor]]:
    """Judge the network in half precision, as it will be kept, by one view and six."""
    halve(model)
    start = time.perf_counter()
    logits = fast.predict_views(model, images)
    correct = int((logits.argmax(dim=1) == labels).sum())  # waits for an accelerator
    seconds = time.perf_counter() - start
    scores = {
        "seconds_six_views": seconds,
        "weights_precision": "float16",
        "test": evaluate(model, images, labels),
        "six_views": {
            "accuracy": correct / len(labels),
            "correct": correct,
            "images": len(labels),
        },
    }
    return scores, {"six_views_logits": logits}


if __name__ == "__main__":
    main()
