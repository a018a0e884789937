"""Record chapter 1's classifiers on all of CIFAR-10.

    python -m runs.baselines

To be typed in book/. The methods stand in taught/baselines.py and taught/scratch.py.
"""

from pathlib import Path

import numpy as np
import torch

from runs.comparison import compare
from runs.inputs import standardised
from runs.record import command, describe_data, make_record, summarise
from support import download
from support.machine import describe_machine
from taught.baselines import nearest, nearest_mean, vote
from taught.scratch import softmax_regression

COUNTS, EPOCHS, SEEDS = (1, 3, 5, 7, 10, 15, 20, 30, 50), 10, (0, 1, 2)


def main() -> None:
    """Run the command line."""
    compare("baselines", "Measure the classifiers without a network.", measure)


def measure(kept: Path) -> dict:
    """Measure all three."""
    machine = describe_machine(torch.device("cpu")) | {"precision": "float32"}
    data = download.load_full()
    order = np.random.default_rng(0).permutation(50_000)
    held_out, kept = order[:5_000], order[5_000:]
    images, labels = data.train.images[kept], data.train.labels[kept]
    x, validation_x, test_x = (
        standardised(some, like=images)
        for some in (images, data.train.images[held_out], data.test.images)
    )
    validation_labels, test_labels = data.train.labels[held_out], data.test.labels

    near = labels[nearest(x, validation_x, max(COUNTS))]
    by_count = {
        k: float((vote(near[:, :k]) == validation_labels).mean()) for k in COUNTS
    }
    best = max(by_count, key=by_count.get)
    trained = [
        softmax_regression(x, labels, EPOCHS, np.random.default_rng(seed))
        for seed in SEEDS
    ]
    answers = {
        "nearest class mean": [nearest_mean(x, labels, test_x)],
        "k nearest neighbours": [vote(labels[nearest(x, test_x, best)])],
        "softmax regression": [m.forward(test_x).argmax(axis=1) for m in trained],
    }
    summary = {
        name: summarise([float((answer == test_labels).mean()) for answer in found])
        for name, found in answers.items()
    }
    return make_record(
        "baselines",
        command("baselines"),
        machine,
        data=describe_data(data),
        protocol="45,000 training images; the number of neighbours, and softmax "
        "regression's rate and weight decay, chosen on the other 5,000; test set used "
        "once",
        neighbours=best,
        validation_accuracy=by_count,
        test_accuracy=summary,
    )


if __name__ == "__main__":
    main()
