"""Record chapter 3's network on all of CIFAR-10: the article's case, in NumPy.

    python -m runs.mlp

To be typed in book/. Trains 3072-128-64-10 with SGD, rate 0.1, batches of 64, for ten
epochs, on pixels in [0, 1] and on standardised ones, three seeds each, and times
PyTorch on the same work.
"""

import time
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from runs.comparison import compare, run_jobs
from runs.inputs import flat, standardised
from runs.record import command, describe_data, make_record, summarise
from support import cifar10, download
from support.machine import describe_machine
from taught.scratch import SGD, Linear, ReLU, Sequential, run_epoch

EPOCHS, SEEDS, BATCH, RATE = 10, (0, 1, 2), 64, 0.1
INPUTS = ("pixels in [0, 1]", "standardised")


def main() -> None:
    """Run the command line."""
    compare("mlp", "Train chapter 3's network in NumPy.", measure)


def measure(kept: Path) -> dict:
    """Do all runs and sum them up."""
    machine = describe_machine(torch.device("cpu")) | {"precision": "float32"}
    jobs = [{"input": name, "seed": seed} for name in INPUTS for seed in SEEDS]
    runs = run_jobs(jobs, do, kept, machine["threads"])
    scores = {
        name: [run["test_accuracy"] for run in runs if run["input"] == name]
        for name in INPUTS
    }
    model = build(np.random.default_rng(0))
    data = load()
    return make_record(
        "mlp",
        command("mlp"),
        machine,
        model="multilayer perceptron 3072-128-64-10, NumPy, float32",
        parameters=sum(p.size for p in model.params.values()),
        recipe={"epochs": EPOCHS, "batch_size": BATCH, "rate": RATE},
        data=describe_data(data),
        protocol="50,000 training images; test set used once, after the last epoch",
        test_accuracy={name: summarise(values) for name, values in scores.items()},
        images_a_second=compare_speed(data),
        runs=runs,
    )


@cache
def load() -> cifar10.Cifar10:
    """Return all of CIFAR-10, read once."""
    return download.load_full()


def build(generator: np.random.Generator) -> Sequential:
    """Build the article's network."""
    sizes, layers = (3072, 128, 64, 10), []
    for inputs, outputs in zip(sizes, sizes[1:]):
        layers += [Linear(inputs, outputs, generator, np.float32), ReLU()]
    return Sequential(*layers[:-1])


def do(job: dict, checkpoint: Path) -> dict:
    """Train one network and judge it once; return its history and accuracies."""
    data = load()
    x, test = flat(data.train.images), flat(data.test.images)
    if job["input"] == "standardised":
        x, test = (
            standardised(part.images, like=data.train.images)
            for part in (data.train, data.test)
        )
    generator = np.random.default_rng(job["seed"])
    model = build(generator)
    optimiser = SGD(model, RATE)
    start, losses = time.perf_counter(), []
    for _ in range(EPOCHS):
        losses.append(
            run_epoch(model, optimiser, x, data.train.labels, BATCH, generator)
        )
    seconds = time.perf_counter() - start
    right = model.forward(test).argmax(axis=1) == data.test.labels
    train_right = model.forward(x).argmax(axis=1) == data.train.labels
    return {
        "losses": losses,
        "seconds": seconds,
        "train_accuracy": float(train_right.mean()),
        "test_accuracy": float(right.mean()),
    }


def compare_speed(data: cifar10.Cifar10, steps: int = 150, rounds: int = 5) -> dict:
    """Return training images a second of NumPy and of PyTorch, the best of rounds."""
    x = standardised(data.train.images[: steps * BATCH], data.train.images)
    labels = data.train.labels[: len(x)]
    model = build(np.random.default_rng(0))
    optimiser = SGD(model, RATE)
    twin = nn.Sequential(
        nn.Linear(3072, 128), nn.ReLU(),
        nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    twin_optimiser = torch.optim.SGD(twin.parameters(), RATE)
    x_torch, labels_torch = torch.tensor(x), torch.tensor(labels)

    def pytorch() -> None:
        for batch in torch.randperm(len(x)).split(BATCH):
            logits = twin(x_torch[batch])
            loss = F.cross_entropy(logits, labels_torch[batch])
            twin_optimiser.zero_grad()
            loss.backward()
            twin_optimiser.step()
            loss.item()

    def numpy() -> None:
        generator = np.random.default_rng(0)
        run_epoch(model, optimiser, x, labels, BATCH, generator)

    best = {"numpy": 0.0, "pytorch": 0.0}
    for _ in range(rounds):
        for name, epoch in (("numpy", numpy), ("pytorch", pytorch)):
            start = time.perf_counter()
            epoch()
            best[name] = max(best[name], len(x) / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    main()
