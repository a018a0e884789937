"""Compare ResNet-20 without one part of chapter 7's recipe at a time, over seeds.

    python -m runs.ablations

To be typed in book/. The recipe and its switches stand in recipe.py.
"""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from runs.comparison import choose, compare, run_jobs
from runs.recipe import FullRecipe, fit
from runs.record import command, describe_data, make_record, summarise
from support import cifar10, download
from support.files import TrainingError
from support.machine import describe_machine, describe_training
from support.precision import bf16_is_fast
from taught import resnet
from taught.training import evaluate

WHOLE = "whole recipe"
VARIANTS = {  # what each changes, of the recipe or of the network
    WHOLE: {},
    "no augmentation": {"augment": False},
    "no batch normalisation": {"normalised": False},
    "no shortcut": {"shortcut": "none"},
    "constant rate": {"fall": False},
    "Adam": {"optimizer": "adam"},
    "no weight decay": {"weight_decay": 0.0},
    "no label smoothing": {"label_smoothing": 0.0},
}
RATES = {  # to choose from, where the recipe's own rate would be unfair
    "no batch normalisation": (0.003, 0.01, 0.03),
    "Adam": (0.001, 0.003, 0.01),
}
EPOCHS, SEEDS = 4, (0, 1, 2)
PROCESSES = 2  # at a time, of one thread each: faster than one process of two


def main() -> None:
    """Run the command line."""
    compare("ablations", "Compare the recipe without one part at a time.", measure)


def train_variant(
    variant: str,
    images: tuple[Tensor, Tensor],
    epochs: int,
    seed: int,
    rate: float | None = None,
    checkpoint: Path | None = None,
) -> tuple[nn.Module, list[dict]]:
    """Train ResNet-20 by the recipe as `variant` changes it; return it and its history.

    `images` as `fit` takes them; `rate` in place of the recipe's peak. Variants of one
    seed start from the same weights, where they have them, and see the same images in
    the same order. Raises KeyError for an unknown variant and TrainingError as `fit`.
    """
    changes = dict(VARIANTS[variant])
    shortcut, normalised = changes.pop("shortcut", "A"), changes.pop("normalised", True)
    if rate is not None:
        changes["peak_rate"] = rate
    bf16 = bf16_is_fast(images[0].device)
    recipe = FullRecipe(epochs, bf16=bf16, seed=seed, **changes)
    torch.manual_seed(seed)
    model = resnet.build_model("resnet20", shortcut)
    if not normalised:
        resnet.without_normalisation(model)
    history = fit(
        model,
        images,
        recipe,
        checkpoint=checkpoint,
        report=lambda line: None,
        known_as={"variant": variant},
    )
    return model, history


def jobs_to_choose() -> list[dict]:
    """List the runs of one epoch that choose the rates, judged on validation images."""
    return [
        {"variant": variant, "rate": rate, "epochs": 1, "seed": 1000, "test": False}
        for variant, rates in RATES.items()
        for rate in rates
    ]


def jobs_to_compare(chosen: dict[str, float]) -> list[dict]:
    """List the runs that are compared, by the chosen rates: all of a seed together."""
    return [
        {"variant": variant, "rate": chosen.get(variant), "epochs": EPOCHS}
        | {"seed": seed, "test": True}
        for seed in SEEDS
        for variant in VARIANTS
    ]


def do(job: dict, checkpoint: Path) -> dict:
    """Do one run; a run whose loss is no longer finite gets the accuracy None."""
    data = download.load_full()
    kept, held_out = cifar10.set_aside(data.train, 5_000)
    settings = {name: job[name] for name in ("variant", "epochs", "seed", "rate")}
    try:
        model, history = train_variant(
            images=cifar10.to_tensors(kept), checkpoint=checkpoint, **settings
        )
    except TrainingError as problem:
        return {"validation_accuracy": None, "stopped": str(problem)}
    judged = evaluate(model, *cifar10.to_tensors(held_out))
    outcome = {
        "validation_accuracy": judged["accuracy"],
        "train_accuracy": history[-1]["accuracy"],
        "history": history,
    }
    if job["test"]:
        judged = evaluate(model, *cifar10.to_tensors(data.test))
        outcome["test_accuracy"] = judged["accuracy"]
    return outcome


def measure(kept: Path) -> dict:
    """Do all runs and sum them up."""
    device = torch.device("cpu")
    recipe = FullRecipe(EPOCHS, bf16=bf16_is_fast(device))
    machine = describe_machine(device) | describe_training(recipe.bf16)
    pilots = run_jobs(jobs_to_choose(), do, kept, 1, PROCESSES)
    chosen = choose(pilots, by="variant", setting="rate")
    runs = run_jobs(jobs_to_compare(chosen), do, kept, 1, PROCESSES)
    return make_record(
        "ablations",
        command("ablations"),
        machine | {"threads": 1, "processes": PROCESSES},
        model="resnet20",
        recipe=asdict(recipe),
        data=describe_data(download.load_full()),
        protocol="45,000 training images; the two rates that are not the recipe's "
        "chosen on 5,000 others, after one epoch; test set used once, after the last "
        "epoch",
        variants=VARIANTS,
        **sum_up(runs),
        choice=pilots,
        runs=runs,
    )


def sum_up(runs: list[dict]) -> dict:
    """Return the mean accuracies, and by how much each variant is below the whole."""
    scores = {
        variant: [run["test_accuracy"] for run in runs if run["variant"] == variant]
        for variant in VARIANTS
    }
    below = {
        variant: [whole - score for whole, score in zip(scores[WHOLE], values)]
        for variant, values in scores.items()
        if variant != WHOLE
    }
    return {
        "test_accuracy": {name: summarise(values) for name, values in scores.items()},
        "less_than_whole": {name: summarise(values) for name, values in below.items()},
    }


if __name__ == "__main__":
    main()
