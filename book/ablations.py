"""What each part of chapter 7's recipe brings: ResNet-20 without one of them at a time.

    python book/ablations.py

Here lives the comparison over variants and seeds, run by run, two at a time. The
network lives in resnet.py, the training in helpers.py.
"""

import json
import multiprocessing
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import cifar10
import finetune
import helpers
import resnet
import train

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
PARTS = train.RUNS / "ablations"  # finished runs, and checkpoints of the others


def train_variant(
    variant: str,
    images: tuple[torch.Tensor, torch.Tensor],
    epochs: int,
    seed: int,
    rate: float | None = None,
    checkpoint: Path | None = None,
) -> tuple[torch.nn.Module, list[dict]]:
    """Train ResNet-20 by the recipe as `variant` changes it; return it and its history.

    `images` as helpers.fit takes them; `rate` in place of the recipe's peak. Variants
    of one seed start from the same weights, where they have them, and see the same
    images in the same order. Raises KeyError for an unknown variant and TrainingError
    as helpers.fit does.
    """
    changes = dict(VARIANTS[variant])
    shortcut, normalised = changes.pop("shortcut", "A"), changes.pop("normalised", True)
    if rate is not None:
        changes["peak_rate"] = rate
    bf16 = helpers.bf16_is_fast(images[0].device)
    recipe = helpers.Recipe(epochs, bf16=bf16, seed=seed, **changes)
    torch.manual_seed(seed)
    model = resnet.build_model("resnet20", shortcut)
    if not normalised:
        resnet.without_normalisation(model)
    history = helpers.fit(
        model,
        images,
        recipe,
        checkpoint=checkpoint,
        report=lambda line: None,
        about={"variant": variant},
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
        {
            "variant": variant,
            "rate": chosen.get(variant),
            "epochs": EPOCHS,
            "seed": seed,
            "test": True,
        }
        for seed in SEEDS
        for variant in VARIANTS
    ]


def file_of(job: dict) -> Path:
    """Return where the outcome of a run is kept until all are done."""
    name = f"{job['variant']}, {job['rate']}, {job['epochs']}, {job['seed']}"
    return PARTS / f"{name.replace(' ', '-').replace(',', '')}.json"


def run_job(job: dict) -> dict:
    """Do one run, or read what it came to; return the job with its outcome.

    A run whose loss is no longer finite gets the accuracy None.
    """
    path = file_of(job)
    if path.exists():
        return json.loads(path.read_text("utf-8"))
    data = cifar10.load_full()
    kept, held_out = train.set_aside(data.train, 5_000)
    checkpoint = path.with_suffix(".checkpoint")
    changes = {name: job[name] for name in ("variant", "epochs", "seed", "rate")}
    outcome = dict(job)
    try:
        model, history = train_variant(
            images=helpers.to_tensors(kept), checkpoint=checkpoint, **changes
        )
    except helpers.TrainingError as problem:
        outcome |= {"validation_accuracy": None, "stopped": str(problem)}
    else:
        judged = helpers.evaluate(model, *helpers.to_tensors(held_out))
        outcome["validation_accuracy"] = judged["accuracy"]
        outcome["train_accuracy"] = history[-1]["accuracy"]
        outcome["history"] = history
        if job["test"]:
            judged = helpers.evaluate(model, *helpers.to_tensors(data.test))
            outcome["test_accuracy"] = judged["accuracy"]
    helpers.write_record(path, outcome)
    checkpoint.unlink(missing_ok=True)
    return outcome


def get_ready() -> None:
    """Prepare a process of its own for its runs."""
    torch.set_num_threads(1)
    helpers.keep_freed_memory()


def run_all(jobs: list[dict], pool) -> list[dict]:
    """Do the runs, as many at a time as the pool has processes; return all in order."""
    done = []
    for outcome in tqdm(pool.imap(run_job, jobs), total=len(jobs), unit="run"):
        done.append(outcome)
        accuracy = outcome["validation_accuracy"]
        shown = "stopped" if accuracy is None else f"{accuracy:.2%}"
        rate = outcome["rate"] or helpers.Recipe(EPOCHS).peak_rate
        tqdm.write(
            f"{outcome['variant']}, rate {rate}, seed {outcome['seed']}: "
            f"validation {shown}"
        )
    return done


def choose(outcomes: list[dict]) -> dict[str, float]:
    """Return for each variant the rate that did best on the validation images."""
    best = {}
    for outcome in outcomes:
        score = outcome["validation_accuracy"] or 0.0
        if score > best.get(outcome["variant"], (0.0, None))[0]:
            best[outcome["variant"]] = score, outcome["rate"]
    return {variant: rate for variant, (_, rate) in best.items()}


def main() -> None:
    """Compare all variants over the seeds, and write results/ablations.json.

    Each run is kept as it ends, and each epoch of the others, so a stopped
    comparison goes on.
    """
    go_on = "start it again, and it goes on after the last whole epochs"
    with train.faults_in_a_sentence("ablations.py", lambda: go_on):
        get_ready()
        PARTS.mkdir(parents=True, exist_ok=True)
        data = cifar10.load_full()
        device = torch.device("cpu")
        recipe = helpers.Recipe(EPOCHS, bf16=helpers.bf16_is_fast(device))
        machine = train.describe_machine(device, recipe.bf16)
        os.environ["TQDM_DISABLE"] = "1"  # in the processes: one bar is enough
        context = multiprocessing.get_context("spawn")
        with context.Pool(PROCESSES, initializer=get_ready) as pool:
            pilots = run_all(jobs_to_choose(), pool)
            chosen = choose(pilots)
            runs = run_all(jobs_to_compare(chosen), pool)
        write(runs, pilots, recipe, data, machine)
        for path in PARTS.glob("*.json"):
            path.unlink()


def write(
    runs: list[dict],
    pilots: list[dict],
    recipe: helpers.Recipe,
    data: cifar10.Cifar10,
    machine: dict,
) -> None:
    """Sum the runs up and write results/ablations.json."""
    scores = {
        variant: np.array([r["test_accuracy"] for r in runs if r["variant"] == variant])
        for variant in VARIANTS
    }
    record = {
        "name": "ablations",
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": "python book/ablations.py",
        "model": "resnet20",
        "recipe": asdict(recipe),
        "data": {"source": data.source, "sha256": cifar10.digest(data)},
        "protocol": "45,000 training images; the two rates that are not the recipe's "
        "chosen on 5,000 others, after one epoch; test set used once, after the last "
        "epoch",
        "machine": machine | {"processes": PROCESSES},
        "variants": VARIANTS,
        "test_accuracy": {
            variant: finetune.summarise(values) for variant, values in scores.items()
        },
        "less_than_whole": {
            variant: finetune.summarise(scores[WHOLE] - values)
            for variant, values in scores.items()
            if variant != WHOLE
        },
        "choice": pilots,
        "runs": runs,
    }
    helpers.write_record(helpers.RESULTS / "ablations.json", record)


if __name__ == "__main__":
    main()
