"""Chapter 1's classifiers, which are no networks, on all of CIFAR-10, recorded.

    python book/baselines.py

Here live the nearest class mean, k nearest neighbours and softmax regression, in NumPy.
What they share with networks (layers, losses, steps) lives in scratch.py.
"""

from datetime import UTC, datetime

import numpy as np
import torch

import cifar10
import helpers
import train
import train_mlp
from scratch import SGD, Linear, run_epoch

COUNTS, EPOCHS, SEEDS = (1, 3, 5, 7, 10, 15, 20, 30, 50), 10, (0, 1, 2)

Array = np.ndarray


def nearest_mean(x: Array, labels: Array, queries: Array) -> Array:
    """Return the class whose mean image is nearest, int64 (Q,), for each query.

    `x` is (N, D) with labels int (N,) of all classes 0, 1, …; `queries` is (Q, D).
    Taught in chapter 1.
    """
    means = np.stack([x[labels == c].mean(axis=0) for c in range(labels.max() + 1)])
    distances = [((queries - mean) ** 2).sum(axis=1) for mean in means]
    return np.argmin(distances, axis=0)


def nearest(x: Array, queries: Array, count: int) -> Array:
    """Return the places in x (N, D) of the `count` rows nearest to each query (Q, D).

    The result is int64 (Q, count), the nearest first. Taught in chapter 1.
    """
    squares = (x**2).sum(axis=1)  # |x|², (N,)
    found = []
    for some in np.array_split(queries, max(1, len(queries) // 500)):
        distance = squares - 2 * some @ x.T  # |q - x|² less |q|², (500, N)
        near = np.argpartition(distance, count - 1, axis=1)[:, :count]
        order = np.take_along_axis(distance, near, axis=1).argsort(axis=1)
        found.append(np.take_along_axis(near, order, axis=1))
    return np.concatenate(found)


def vote(labels: Array) -> Array:
    """Return the most frequent class in each row of int labels (Q, k).

    Of classes with equally many votes, the one with the lowest number wins.
    Taught in chapter 1.
    """
    return np.eye(10)[labels].sum(axis=1).argmax(axis=1)


def softmax_regression(
    x: Array, labels: Array, epochs: int, generator: np.random.Generator
) -> Linear:
    """Train one linear layer from x (N, D) to ten scores, from weights of zero.

    Taught in chapter 1.
    """
    model = Linear(x.shape[1], 10, generator, x.dtype)
    model.params["W"][:] = 0
    optimiser = SGD(model, rate=0.001, weight_decay=0.1)
    for _ in range(epochs):
        run_epoch(model, optimiser, x, labels, 64, generator)
    return model


def main() -> None:
    """Measure all three and write results/baselines.json."""
    data = cifar10.load_full()
    machine = train.describe_machine(torch.device("cpu"), bf16=False)
    machine.pop("memory_format")
    order = np.random.default_rng(0).permutation(50_000)
    held_out, kept = order[:5_000], order[5_000:]
    images, labels = data.train.images[kept], data.train.labels[kept]
    x, validation_x, test_x = (
        train_mlp.inputs_of(some, scaling=None, like=images)
        for some in (images, data.train.images[held_out], data.test.images)
    )
    validation_labels, test_labels = data.train.labels[held_out], data.test.labels

    near = labels[nearest(x, validation_x, max(COUNTS))]
    by_count = {
        k: float((vote(near[:, :k]) == validation_labels).mean()) for k in COUNTS
    }
    best = max(by_count, key=by_count.get)
    scores = {
        "nearest class mean": [nearest_mean(x, labels, test_x)],
        "k nearest neighbours": [vote(labels[nearest(x, test_x, best)])],
        "softmax regression": [
            softmax_regression(x, labels, EPOCHS, np.random.default_rng(seed))
            .forward(test_x)
            .argmax(axis=1)
            for seed in SEEDS
        ],
    }
    summary = {}
    for name, answers in scores.items():
        right = [float((answer == test_labels).mean()) for answer in answers]
        summary[name] = {"mean": float(np.mean(right)), "n": len(right)}
        if len(right) > 1:
            summary[name]["sd"] = float(np.std(right, ddof=1))
        print(f"{name}: {summary[name]['mean']:.2%}", flush=True)
    record = {
        "name": "baselines",
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": "python book/baselines.py",
        "data": {"source": data.source, "sha256": cifar10.digest(data)},
        "protocol": "45,000 training images; the number of neighbours, and softmax "
        "regression's rate and weight decay, chosen on the other 5,000; test set used "
        "once",
        "machine": machine,
        "neighbours": best,
        "validation_accuracy": by_count,
        "test_accuracy": summary,
    }
    helpers.write_record(helpers.RESULTS / "baselines.json", record)


if __name__ == "__main__":
    main()
