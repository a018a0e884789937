"""CIFAR-10 as arrays: its classes, its parts, the embedded sample, and their checks.

Where the full set comes from stands in download.py; nothing here uses the network.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from support.files import BOOK

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer",
    "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

# Means and standard deviations of the colours of the 50,000 training images, by which
# `check_full` knows them; chapter 7 computes them and has them under its own names.
KNOWN_MEAN = (0.4914, 0.4822, 0.4465)
KNOWN_STD = (0.2470, 0.2435, 0.2616)

SAMPLE = BOOK / "data"
PARTS = ("train", "test")
PER_CLASS = {"train": 200, "test": 100}  # images of each class in the sample
COLUMNS = 50  # images in a row of a contact sheet


class DataError(RuntimeError):
    """The images cannot be had; the message says why and what to do."""


class Images(NamedTuple):
    """Images uint8 (N, 32, 32, 3), red first; class and original place int64 (N,)."""

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


def in_order(images: np.ndarray, labels: np.ndarray) -> Images:
    """Return a part of the full set, where each image stands in its original place."""
    return Images(images, np.asarray(labels, dtype=np.int64), np.arange(len(labels)))


def only(part: Images, classes: Sequence[int]) -> Images:
    """Return the images of some classes, whose labels become 0, 1, … in this order.

    Raises ValueError for a class that does not exist, or one named twice.
    """
    if len(set(classes)) != len(classes) or not set(classes) <= {*range(len(CLASSES))}:
        raise ValueError(f"classes are different numbers from 0 to 9, not {classes}")
    number = np.full(len(CLASSES), -1)
    number[list(classes)] = np.arange(len(classes))
    labels = number[part.labels]
    kept = labels >= 0
    return Images(part.images[kept], labels[kept], part.indices[kept])


def set_aside(part: Images, count: int) -> tuple[Images, ...]:
    """Split off `count` images, the same ones in every run; return the rest and them.

    Raises ValueError if that would leave nothing to train on.
    """
    if not 0 <= count < len(part.labels):
        raise ValueError(
            f"--validation {count}: set aside from 0 to {len(part.labels) - 1:,} images"
        )
    order = np.random.default_rng(0).permutation(len(part.labels))
    places = np.sort(order[count:]), order[:count]
    return tuple(Images(*(a[some] for a in part)) for some in places)


class Cifar10(NamedTuple):
    """A training set, a test set, and the name of the place that they came from."""

    train: Images
    test: Images
    source: str


def to_tensors(
    part: Images, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Copy images (N, 32, 32, 3) and labels (N,) to tensors uint8 and int64."""
    images = torch.tensor(part.images, device=device)
    return images, torch.tensor(part.labels, device=device)


def load_sample(folder: Path = SAMPLE) -> Cifar10:
    """Read the embedded 2,000 training and 1,000 test images, sorted by class.

    Raises DataError if a sheet or the label file is missing or damaged.
    """
    try:
        card = json.loads((folder / "sample.json").read_text("utf-8"))
        parts = [_read_sheet(folder / f"{name}.png", card[name]) for name in PER_CLASS]
    except (OSError, ValueError, KeyError, SyntaxError) as problem:
        raise DataError(
            f"the embedded sample in {folder} is damaged ({problem}): "
            "restore it with `git checkout -- book/data`"
        ) from problem
    return Cifar10(*parts, source="embedded sample")


def digest(data: Cifar10) -> str:
    """Return the SHA-256 of all pixels and labels, in the original order."""
    arrays = []
    for part in (data.train, data.test):
        arrays += [part.images, part.labels.astype(np.uint8)]
    return checksum(*arrays)


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each channel, scaled to [0, 1].

    `images` is uint8 (N, H, W, 3); both results are float64 (3,). Counting how often
    each of the 256 values occurs is exact and needs no copy of the images as floats.
    """
    values = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(3):
        share = np.bincount(images[..., channel].ravel(), minlength=256)
        share = share / share.sum()
        mean = share @ values
        means.append(mean)
        deviations.append(np.sqrt(share @ (values - mean) ** 2))
    return np.array(means), np.array(deviations)


def check_full(data: Cifar10) -> None:
    """Raise DataError if a full set differs from what is known of CIFAR-10."""
    for part, count in ((data.train, 50_000), (data.test, 10_000)):
        if part.images.shape != (count, 32, 32, 3) or part.images.dtype != np.uint8:
            raise DataError(
                f"{data.source} holds images {part.images.shape} of "
                f"{part.images.dtype}, not uint8 ({count}, 32, 32, 3)"
            )
        per_class = np.bincount(part.labels, minlength=10)
        if len(per_class) != 10 or (per_class != count // 10).any():
            raise DataError(
                f"{data.source} holds {per_class.tolist()} images of each class, "
                f"not {count // 10}"
            )
    means, deviations = channel_statistics(data.train.images)
    if (means.round(4) != KNOWN_MEAN).any() or (deviations.round(4) != KNOWN_STD).any():
        raise DataError(
            f"{data.source} has channel means {means.round(4).tolist()} and deviations "
            f"{deviations.round(4).tolist()}, not {KNOWN_MEAN} and {KNOWN_STD}"
        )


def make_sample(data: Cifar10, folder: Path = SAMPLE) -> None:
    """Choose the embedded sample from the full set and write its sheets and labels."""
    # RandomState and not default_rng: its stream is frozen, so the choice is for ever.
    random = np.random.RandomState(2015)
    folder.mkdir(parents=True, exist_ok=True)
    card = {}
    for name, per_class in PER_CLASS.items():
        part = getattr(data, name)
        chosen = [
            np.sort(random.permutation(np.flatnonzero(part.labels == c))[:per_class])
            for c in range(10)
        ]
        indices = np.concatenate(chosen)
        images = part.images[indices]
        rows = images.reshape(-1, COLUMNS, 32, 32, 3).swapaxes(1, 2)
        sheet = Image.fromarray(rows.reshape(-1, COLUMNS * 32, 3))
        sheet.save(folder / f"{name}.png", optimize=True)
        card[name] = {
            "labels": part.labels[indices].tolist(),
            "indices": indices.tolist(),
            "sha256": checksum(images, part.labels[indices], indices),
        }
    lines = [f'"{name}": {json.dumps(entry)}' for name, entry in card.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (folder / "sample.json").write_text(text, "utf-8")


def _read_sheet(path: Path, entry: dict) -> Images:
    labels = np.array(entry["labels"], dtype=np.int64)
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    rows = pixels.reshape(-1, 32, COLUMNS, 32, 3).swapaxes(1, 2)
    images = np.ascontiguousarray(rows.reshape(-1, 32, 32, 3))
    indices = np.array(entry["indices"])
    if checksum(images, labels, indices) != entry["sha256"]:
        raise ValueError(f"{path.name} does not have the checksum in sample.json")
    return Images(images, labels, indices)


def checksum(*arrays: np.ndarray) -> str:
    """Return the SHA-256 of some arrays, the same on every system."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")))
    return sha.hexdigest()
