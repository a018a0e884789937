"""Chapter 3's network on all of CIFAR-10: the article's case, in NumPy, recorded.

    python book/train_mlp.py

Trains 3072-128-64-10 with SGD, rate 0.1, batches of 64, for ten epochs, on pixels in
[0, 1] and on standardised ones, three seeds each, and times PyTorch on the same work.
"""

import time
from datetime import UTC, datetime

import numpy as np
import torch

import cifar10
import helpers
import scratch
import train

EPOCHS, SEEDS, BATCH, RATE = 10, (0, 1, 2), 64, 0.1
INPUTS = {"pixels in [0, 1]": (0.0, 1.0), "standardised": None}


def main() -> None:
    """Train all runs and write results/mlp.json."""
    data = cifar10.load_full()
    machine = train.describe_machine(torch.device("cpu"), bf16=False)
    machine.pop("memory_format")
    runs = []
    for name, scaling in INPUTS.items():
        for seed in SEEDS:
            runs.append({"input": name, **one_run(data, scaling, seed)})
            print(f"{name}, seed {seed}: {runs[-1]['test_accuracy']:.2%}", flush=True)
    model, summary = build(np.random.default_rng(0)), {}
    for name in INPUTS:
        scores = [run["test_accuracy"] for run in runs if run["input"] == name]
        mean, sd = float(np.mean(scores)), float(np.std(scores, ddof=1))
        summary[name] = {"mean": mean, "sd": sd, "n": len(scores)}
    record = {
        "name": "mlp",
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": "python book/train_mlp.py",
        "model": "multilayer perceptron 3072-128-64-10, NumPy, float32",
        "parameters": sum(p.size for p in model.params.values()),
        "recipe": {"epochs": EPOCHS, "batch_size": BATCH, "rate": RATE},
        "data": {"source": data.source, "sha256": cifar10.digest(data)},
        "protocol": "50,000 training images; test set used once, after the last epoch",
        "machine": machine,
        "test_accuracy": summary,
        "images_a_second": compare_speed(data),
        "runs": runs,
    }
    helpers.write_record(helpers.RESULTS / "mlp.json", record)


def inputs_of(
    images: np.ndarray, scaling: tuple[float, float] | None, like: np.ndarray
) -> np.ndarray:
    """Flatten images to (N, 3072) in [0, 1], less a mean, over a deviation."""
    mean, deviation = scaling or (like.mean() / 255, like.std() / 255)
    x = images.reshape(len(images), -1).astype(np.float32) / 255
    return (x - np.float32(mean)) / np.float32(deviation)


def build(generator: np.random.Generator) -> scratch.Sequential:
    """Build the article's network."""
    sizes, layers = (3072, 128, 64, 10), []
    for inputs, outputs in zip(sizes, sizes[1:]):
        layers += [
            scratch.Linear(inputs, outputs, generator, np.float32),
            scratch.ReLU(),
        ]
    return scratch.Sequential(*layers[:-1])


def one_run(data: cifar10.Cifar10, scaling, seed: int) -> dict:
    """Train one network and judge it once; return its history and test accuracy."""
    generator = np.random.default_rng(seed)
    model = build(generator)
    optimiser = scratch.SGD(model, RATE)
    x = inputs_of(data.train.images, scaling, data.train.images)
    start, losses = time.perf_counter(), []
    for _ in range(EPOCHS):
        losses.append(
            scratch.run_epoch(model, optimiser, x, data.train.labels, BATCH, generator)
        )
    seconds = time.perf_counter() - start
    test = inputs_of(data.test.images, scaling, data.train.images)
    right = model.forward(test).argmax(axis=1) == data.test.labels
    train_right = model.forward(x).argmax(axis=1) == data.train.labels
    return {
        "seed": seed,
        "losses": losses,
        "seconds": seconds,
        "train_accuracy": float(train_right.mean()),
        "test_accuracy": float(right.mean()),
    }


def compare_speed(data: cifar10.Cifar10, steps: int = 150, rounds: int = 5) -> dict:
    """Return training images a second of NumPy and of PyTorch, the best of rounds."""
    x = inputs_of(data.train.images[: steps * BATCH], None, data.train.images)
    labels = data.train.labels[: len(x)]
    model = build(np.random.default_rng(0))
    optimiser = scratch.SGD(model, RATE)
    twin = torch.nn.Sequential(
        torch.nn.Linear(3072, 128), torch.nn.ReLU(),
        torch.nn.Linear(128, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10),
    )  # fmt: skip
    twin_optimiser = torch.optim.SGD(twin.parameters(), RATE)
    x_torch, labels_torch = torch.tensor(x), torch.tensor(labels)

    def pytorch() -> None:
        for batch in torch.randperm(len(x)).split(BATCH):
            logits = twin(x_torch[batch])
            loss = torch.nn.functional.cross_entropy(logits, labels_torch[batch])
            twin_optimiser.zero_grad()
            loss.backward()
            twin_optimiser.step()
            loss.item()

    def numpy() -> None:
        generator = np.random.default_rng(0)
        scratch.run_epoch(model, optimiser, x, labels, BATCH, generator)

    best = {"numpy": 0.0, "pytorch": 0.0}
    for _ in range(rounds):
        for name, epoch in (("numpy", numpy), ("pytorch", pytorch)):
            start = time.perf_counter()
            epoch()
            best[name] = max(best[name], len(x) / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    main()
