"""How fast training is, step by step to the fast loop, and what more workers bring.

    python benchmark.py

The loops are timed in processes of their own, in rounds, so that a change of the
machine's load meets all of them; the rest is measured once, after them. Here live
measurements only; the loop that is measured is that of helpers.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import cifar10
import helpers
import resnet
import train
import workers

STEPS = (  # each has what those before it have, and one thing more
    "plain loop",
    "images in memory",
    "channels last",
    "bfloat16",
    "memory kept",
    "compiled",
)
BATCHES = {"resnet20": 40, "resnet18": 8}  # timed, of 128 images each
THREADS = 2
SHARES = (128, 64, 32, 16, 8, 4, 2)


class Files(Dataset):
    """CIFAR-10 as tutorials read it: one PIL image at a time, through `transform`."""

    def __init__(self, part: cifar10.Images, transform):
        self.part, self.transform = part, transform

    def __len__(self) -> int:
        return len(self.part.labels)

    def __getitem__(self, index: int):
        image = Image.fromarray(self.part.images[index])
        return self.transform(image), int(self.part.labels[index])


def plain_loader(part: cifar10.Images, batch_size: int = 128) -> DataLoader:
    """Build the loader that most tutorials build."""
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(cifar10.MEAN, cifar10.STD),
        ]
    )
    return DataLoader(
        Files(part, transform), batch_size, shuffle=True, drop_last=True, num_workers=2
    )


def plain_seconds(model, loader, batches: int, skip: int) -> float:
    """Time `batches` steps of the plain loop, after `skip` of them."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    model.train()
    for count, (x, y) in enumerate(loader):
        if count == skip:
            start = time.perf_counter()
        if count == skip + batches:
            return time.perf_counter() - start
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise ValueError(f"the loader holds fewer than {skip + batches} batches")


def our_seconds(
    model, data, recipe, batches: int, skip: int, team: workers.Workers = workers.ALONE
) -> float:
    """Time `batches` steps of helpers.train_epoch, after `skip` of them."""
    optimizer = helpers.make_optimizer(model, recipe)
    generator = torch.Generator().manual_seed(0)
    for count in (skip, batches):
        part = [t[: count * recipe.batch_size] for t in data]
        start = time.perf_counter()
        rates = [0.01] * count
        helpers.train_epoch(model, *part, optimizer, rates, recipe, generator, team)
    return time.perf_counter() - start


def images_per_second(name: str, step: str, batch_size: int = 128) -> float:
    """Train the network called `name` for some batches, as far as `step` goes."""
    level = STEPS.index(step)
    batches, skip = BATCHES[name], 3
    data = cifar10.load_full()
    torch.manual_seed(0)
    model = resnet.build_model(name)
    if level == 0:
        loader = plain_loader(data.train, batch_size)
        return batches * batch_size / plain_seconds(model, loader, batches, skip)
    if level == 1:  # normalise leaves channels last, which convolutions would follow
        model.register_forward_pre_hook(lambda _, x: (x[0].contiguous(),))
    if level >= 2:
        model.to(memory_format=torch.channels_last)
    if level >= 4:
        helpers.keep_freed_memory()
    if level >= 5:
        model.compile()
    recipe = helpers.Recipe(epochs=1, batch_size=batch_size, bf16=level >= 3)
    seconds = our_seconds(model, helpers.to_tensors(data.train), recipe, batches, skip)
    return batches * batch_size / seconds


def matrix_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """Return the floating-point operations a second of a matrix product, at best."""
    a, b = torch.rand(2, size, size).to(dtype)
    seconds = []
    while len(seconds) < 10 and sum(seconds) < 2:  # some types are very slow
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def worker_seconds(norm: str = "own") -> dict:
    """Time one step of each share of a batch, and what a step sends; under torchrun."""
    team = workers.join(torch.device("cpu"), sync_norm=norm == "sync")
    helpers.keep_freed_memory()
    data = helpers.to_tensors(cifar10.load_full().train)
    result = {"workers": team.count, "threads": torch.get_num_threads()}
    model = resnet.build_model("resnet20").to(memory_format=torch.channels_last)
    model = team.wrap(model)
    device = torch.device("cpu")
    recipe = helpers.Recipe(epochs=1, bf16=helpers.bf16_is_fast(device))
    if team.count == 1:
        result["seconds_by_share"] = {}
        for share in SHARES:
            small = helpers.Recipe(**(vars(recipe) | {"batch_size": share}))
            seconds = our_seconds(model, data, small, 20, 3)
            result["seconds_by_share"][share] = seconds / 20
        return result

    result["seconds_a_step"] = our_seconds(model, data, recipe, 40, 3, team) / 40
    for name, numbers in (("small", 64), ("large", 4_000_000)):
        tensor = torch.zeros(numbers)
        dist.all_reduce(tensor)
        start = time.perf_counter()
        for _ in range(20):
            dist.all_reduce(tensor)
        result[f"{name}_all_reduce"] = {
            "bytes": 4 * numbers,
            "seconds": (time.perf_counter() - start) / 20,
        }
    dist.destroy_process_group()
    return result


def measure(*words: str, processes: int = 0, threads: int = THREADS) -> dict:
    """Run this file again with `words`, in processes of their own; return its answer.

    Raises RuntimeError with all that it wrote, if it fails.
    """
    command = [sys.executable]
    if processes:
        command += ["-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc-per-node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [*command, __file__, *words], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise RuntimeError(f"{words} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: list[str] | None = None) -> None:
    """Measure everything, or, in a process of its own, one thing."""
    parser = argparse.ArgumentParser(description="Measure the speed of training.")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=train.RUNS, help="folder")
    words = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(words)
    if options.one:
        answer = {
            "speed": images_per_second,
            "matrix": lambda kind: matrix_rate(getattr(torch, kind)),
            "workers": worker_seconds,
        }[options.one[0]](*options.one[1:])
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(answer))
        return

    speeds = {name: {step: [] for step in STEPS} for name in BATCHES}
    for turn in range(options.rounds):
        for name in BATCHES:
            for step in STEPS:
                speeds[name][step].append(measure("--one", "speed", name, step))
                print(f"round {turn + 1}, {name}, {step}: ", end="")
                print(f"{speeds[name][step][-1]:,.0f} images a second", flush=True)
    kinds = ("float32", "bfloat16")
    machine = train.describe_machine(torch.device("cpu"), bf16=False)
    machine["threads"] = THREADS  # of each measurement, not of this process
    del machine["precision"], machine["memory_format"]  # measured in several
    record = {
        "name": "speed",
        "command": train.command(words, "benchmark.py"),
        "images_per_second": speeds,
        "matrix_product_per_second": {k: measure("--one", "matrix", k) for k in kinds},
        "alone": measure("--one", "workers", threads=1),
        "two": measure("--one", "workers", processes=2, threads=1),
        "two_sync": measure("--one", "workers", "sync", processes=2, threads=1),
        "machine": machine,
    }
    helpers.write_record(options.results / "speed.json", record)
    print(f"record in {options.results / 'speed.json'}")


if __name__ == "__main__":
    main()
