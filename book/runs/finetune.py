"""Compare chapter 8's ways to carry a network over, over labels and seeds.

    python -m runs.finetune

To be typed in book/. The ways themselves stand in taught/finetuning.py.
"""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from runs.comparison import choose, compare, run_jobs
from runs.record import command, describe_data, make_record, summarise
from support import cifar10, download
from support.files import RESULTS, load_tensors
from support.machine import describe_machine, describe_training
from support.precision import bf16_is_fast, train_in_bf16
from taught.finetuning import WAYS, adapt, pick, start
from taught.training import evaluate

ANIMALS, VEHICLES = (2, 3, 4, 5, 6, 7), (0, 1, 8, 9)
STEPS = {25: 100, 100: 150, 250: 200}  # by labelled images a class, batches of 50
RATES = (0.03, 0.1, 0.3, 1.0)  # to choose from, at 100 labelled images a class
GENTLE_TO_ROUGH = (0.01, 0.1, 0.3)  # to see what is forgotten
SEEDS = (0, 1, 2, 3, 4)
THREADS = 2
LONGER = 4  # times the steps, for a network from scratch and the most labels


def main() -> None:
    """Run the command line."""
    compare("finetune", "Compare ways to carry a network over.", measure)


def jobs_to_choose() -> list[dict]:
    """List the runs that choose the rates, judged on validation images."""
    return [
        {"way": way, "labels": 100, "times": 1, "rate": rate, "seed": 1000}
        | {"swept": False, "test": False}
        for way in WAYS
        for rate in RATES
    ]


def jobs_to_compare(chosen: dict[str, float]) -> list[dict]:
    """List the runs that are compared, by the chosen rates: all of a seed together."""
    jobs = []
    for seed in SEEDS:
        runs = [(way, labels, 1, chosen[way]) for labels in STEPS for way in WAYS]
        runs.append(("from scratch", max(STEPS), LONGER, chosen["from scratch"]))
        for way, labels, times, rate in runs:
            job = {"way": way, "labels": labels, "times": times, "rate": rate}
            jobs.append(job | {"seed": seed, "swept": False, "test": True})
        for rate in GENTLE_TO_ROUGH:
            job = {"way": "full", "labels": 100, "times": 1, "rate": rate}
            jobs.append(job | {"seed": seed, "swept": True, "test": True})
    return jobs


@cache
def material() -> tuple:
    """Return the animals' weights, the vehicles to choose from, and what judges."""
    data = download.load_full()
    state, _ = load_tensors(RESULTS / "animals.safetensors")
    part, held_out = cifar10.set_aside(cifar10.only(data.train, VEHICLES), 2_000)
    judges = {
        "validation": cifar10.to_tensors(held_out),
        "test": cifar10.to_tensors(cifar10.only(data.test, VEHICLES)),
        "animals": cifar10.to_tensors(cifar10.only(data.test, ANIMALS)),
    }
    return state, part, judges


def do(job: dict, checkpoint: Path) -> dict:
    """Do one run; return its accuracies."""
    state, part, judges = material()
    model = fine_tuned(state, part, job)
    if not job["test"]:
        scores = evaluate(model, *judges["validation"])
        return {"validation_accuracy": scores["accuracy"]}
    accuracy = {"test_accuracy": evaluate(model, *judges["test"])["accuracy"]}
    if job["swept"]:
        head = nn.Linear(model.fc.in_features, len(ANIMALS))
        old = {name: state[f"fc.{name}"].float() for name in ("weight", "bias")}
        head.load_state_dict(old)
        model.fc = head
        accuracy["animals_accuracy"] = evaluate(model, *judges["animals"])["accuracy"]
    return accuracy


def fine_tuned(state: dict[str, Tensor], part: cifar10.Images, job: dict) -> nn.Module:
    """Return the network that a run ends with."""
    places = pick(part.labels, job["labels"], job["seed"])
    few = cifar10.to_tensors(cifar10.Images(*(array[places] for array in part)))
    model = start(job["way"], state, int(few[1].max()) + 1, job["seed"])
    model.to(memory_format=torch.channels_last)
    if bf16_is_fast(few[0].device):
        train_in_bf16(model)
    steps = job["times"] * STEPS[job["labels"]]
    adapt(job["way"], model, *few, steps, job["rate"], job["seed"])
    return model


def measure(kept: Path) -> dict:
    """Do all runs and sum them up."""
    device = torch.device("cpu")
    machine = describe_machine(device) | describe_training(bf16_is_fast(device))
    pilots = run_jobs(jobs_to_choose(), do, kept, THREADS)
    chosen = choose(pilots, by="way", setting="rate")
    runs = run_jobs(jobs_to_compare(chosen), do, kept, THREADS)
    return make_record(
        "finetune",
        command("finetune"),
        machine | {"threads": THREADS},
        data=describe_data(download.load_full()),
        protocol="carried over from the record animals; rates chosen at 100 images a "
        "class, on 2,000 training images outside all runs; test set used once",
        steps={str(labels): steps for labels, steps in STEPS.items()},
        **sum_up(pilots, runs),
    )


def sum_up(pilots: list[dict], runs: list[dict]) -> dict:
    """Return the chosen rates, mean accuracies, what was forgotten, and the runs."""
    rates = {}
    for way, rate in choose(pilots, by="way", setting="rate").items():
        tried = {p["rate"]: p["validation_accuracy"] for p in pilots if p["way"] == way}
        rates[way] = {"rate": rate, "validation_accuracy": tried}
    scores, forgetting, told = {}, {}, []
    for run in runs:
        way = run["way"]
        if run["times"] > 1:
            way += f", {run['times']} times the steps"
        kept = ("labels", "rate", "swept", "seed", "test_accuracy", "animals_accuracy")
        told.append({"way": way} | {name: run[name] for name in kept if name in run})
        if run["swept"]:
            both = forgetting.setdefault(str(run["rate"]), {})
            both.setdefault("vehicles", []).append(run["test_accuracy"])
            both.setdefault("animals", []).append(run["animals_accuracy"])
        else:
            by_labels = scores.setdefault(way, {})
            by_labels.setdefault(str(run["labels"]), []).append(run["test_accuracy"])
    return {
        "rates": rates,
        "test_accuracy": {
            way: {labels: summarise(values) for labels, values in by_labels.items()}
            for way, by_labels in scores.items()
        },
        "forgetting": {
            rate: {name: summarise(values) for name, values in both.items()}
            for rate, both in forgetting.items()
        },
        "runs": told,
    }


if __name__ == "__main__":
    main()
