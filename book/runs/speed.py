"""Measure how fast training is, step by step, and what more workers bring.

    python -m runs.speed                                    makes the record
    python -m runs.speed loop resnet20 "channels last"      measures one thing

To be typed in book/. For the record each loop is timed in a process of its own, in
rounds, so that a change of the machine's load meets all of them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F

from runs.record import RUNS, command, make_record
from support import cifar10, download, workers
from support.files import BOOK, write_json
from support.machine import describe_machine
from support.precision import bf16_is_fast, train_in_bf16
from taught import resnet
from taught.memory import keep_freed_memory
from taught.speed import matrix_rate, plain_loader
from taught.training import Recipe, make_optimizer, shuffled_batches, train_epoch

# Each loop has all the switches of the loops before it, and one more.
SWITCHES = (
    "images in memory",
    "channels last",
    "bfloat16",
    "memory kept",
    "compiled",
)
LOOPS = ("plain loop", *SWITCHES)
BATCHES = {"resnet20": 40, "resnet18": 8}  # timed, of 128 images each
SKIP = 3  # batches before the clock starts
THREADS = 2
SHARES = (128, 64, 32, 16, 8, 4, 2)  # of a batch, for one worker


def main(arguments: list[str] | None = None) -> None:
    """Measure everything and write the record, or measure one thing and print it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = make_parser().parse_args(arguments)
    if options.what is None:
        record = measure(options.rounds, command("speed", arguments))
        write_json(options.results / "speed.json", record)
        print(f"record in {options.results / 'speed.json'}")
        return
    if options.what == "loop":
        answer = images_per_second(options.network, options.loop)
    elif options.what == "matrix":
        answer = matrix_rate(getattr(torch, options.type))
    else:
        answer = worker_seconds(options.sync_norm)
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(answer))


def make_parser() -> argparse.ArgumentParser:
    """Make the options."""
    parser = argparse.ArgumentParser(
        prog="runs.speed", description="Measure the speed of training."
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--results", type=Path, default=RUNS, help="folder; book/.runs unless given"
    )
    one = parser.add_subparsers(dest="what", title="one measurement, printed as JSON")
    loop = one.add_parser("loop", help="images a second of one loop")
    loop.add_argument("network", choices=list(BATCHES))
    loop.add_argument("loop", choices=LOOPS)
    matrix = one.add_parser("matrix", help="operations a second of a matrix product")
    matrix.add_argument("type", help="float32, bfloat16, …")
    team = one.add_parser("workers", help="seconds a step; under torchrun, of several")
    team.add_argument("--sync-norm", action="store_true")
    return parser


def measure(rounds: int, typed: str) -> dict:
    """Measure everything; return the record."""
    speeds = {name: {loop: [] for loop in LOOPS} for name in BATCHES}
    for turn in range(rounds):
        for name in BATCHES:
            for loop in LOOPS:
                speeds[name][loop].append(apart("loop", name, loop))
                print(
                    f"round {turn + 1}, {name}, {loop}: "
                    f"{speeds[name][loop][-1]:,.0f} images a second",
                    flush=True,
                )
    machine = describe_machine(torch.device("cpu"))
    types = ("float32", "bfloat16")
    return make_record(
        "speed",
        typed,
        machine | {"threads": THREADS},  # of each measurement, not of this process
        images_per_second=speeds,
        matrix_product_per_second={kind: apart("matrix", kind) for kind in types},
        alone=apart("workers", threads=1),
        two=apart("workers", processes=2, threads=1),
        two_sync=apart("workers", "--sync-norm", processes=2, threads=1),
    )


def apart(*words: str, processes: int = 0, threads: int = THREADS):
    """Make one measurement in processes of its own; return its answer.

    Raises RuntimeError with all that it wrote, if it fails.
    """
    start = [sys.executable]
    if processes:
        start += ["-m", "torch.distributed.run", "--standalone"]
        start += [f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*start, "-m", "runs.speed", *words],
        cwd=BOOK,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{words} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------- loops


def images_per_second(name: str, loop: str, batch_size: int = 128) -> float:
    """Train the network called `name` for some batches by one of the LOOPS."""
    on = SWITCHES[: LOOPS.index(loop)]
    batches = BATCHES[name]
    data = download.load_full()
    torch.manual_seed(0)
    model = resnet.build_model(name)
    if "images in memory" not in on:
        loader = plain_loader(data.train.images, data.train.labels, batch_size)
        return batches * batch_size / plain_seconds(model, loader, batches, SKIP)
    if "channels last" in on:
        model.to(memory_format=torch.channels_last)
    else:  # normalise leaves channels last, which convolutions would follow
        model.register_forward_pre_hook(lambda _, x: (x[0].contiguous(),))
    if "bfloat16" in on:
        train_in_bf16(model)
    if "memory kept" in on:
        keep_freed_memory()
    if "compiled" in on:
        model.compile()
    recipe = Recipe(epochs=1, batch_size=batch_size)
    images = cifar10.to_tensors(data.train)
    return batches * batch_size / our_seconds(model, images, recipe, batches, SKIP)


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
    model,
    data,
    recipe: Recipe,
    batches: int,
    skip: int,
    team: workers.Workers = workers.ALONE,
) -> float:
    """Time `batches` steps of chapter 7's loop, after `skip` of them."""
    optimizer = make_optimizer(model, recipe)
    for count in (skip, batches):
        part = [tensor[: count * recipe.batch_size] for tensor in data]
        start = time.perf_counter()
        shown = team.share(shuffled_batches(*part, recipe, epoch=0))
        train_epoch(model, shown, optimizer, [0.01] * count, recipe.label_smoothing)
    return time.perf_counter() - start


# ---------------------------------------------------------------- workers


def worker_seconds(sync_norm: bool = False) -> dict:
    """Time one step of each share of a batch, and what a step sends; under torchrun."""
    device = torch.device("cpu")
    team = workers.join(device, sync_norm)
    keep_freed_memory()
    data = cifar10.to_tensors(download.load_full().train)
    result = {"workers": team.count, "threads": torch.get_num_threads()}
    model = resnet.build_model("resnet20").to(memory_format=torch.channels_last)
    if bf16_is_fast(device):
        train_in_bf16(model)
    model = team.wrap(model)
    recipe = Recipe(epochs=1)
    if team.count == 1:
        result["seconds_by_share"] = {}
        for share in SHARES:
            seconds = our_seconds(model, data, replace(recipe, batch_size=share), 20, 3)
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


if __name__ == "__main__":
    main()
