"""Make the recorded runs again, all or by name, as the plan says.

    python -m runs.records                 all that this machine can make
    python -m runs.records resnet20 mlp    some of them

To be typed in book/. A run that was stopped goes on; a record that exists is replaced.
The plan stands in plan.toml; what a run is stands in the program that it names.
"""

import argparse
import subprocess
import sys

import torch

from support.files import BOOK, RESULTS
from support.plan import SINGLE, command_of, read_plan, words


def choose(names: list[str], plan: dict[str, dict], gpu: bool) -> list[str]:
    """Return the runs to make: those named, or all that this machine can make.

    Raises ValueError for a name that the plan lacks, or a run for another machine.
    """
    for name in names:
        if name not in plan:
            raise ValueError(f"no run {name!r} in the plan: use {', '.join(plan)}")
        if plan[name].get("on_gpu", False) != gpu:
            wanted = "a GPU" if not gpu else "a processor: hide the GPU first"
            raise ValueError(f"{name} is recorded on {wanted}")
    return names or [n for n, e in plan.items() if e.get("on_gpu", False) == gpu]


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and make the runs, one after another."""
    parser = argparse.ArgumentParser(
        prog="runs.records", description="Make the recorded runs again."
    )
    parser.add_argument("names", nargs="*", help="of records; all unless given")
    options = parser.parse_args(arguments)
    plan = read_plan()
    try:
        names = choose(options.names, plan, torch.accelerator.is_available())
    except ValueError as problem:
        sys.exit(f"runs.records: {problem}")
    for number, name in enumerate(names, 1):
        print(f"{number} of {len(names)}: {command_of(name, plan[name])}", flush=True)
        more = ["--results", str(RESULTS)]
        if plan[name]["program"] in SINGLE:
            more += ["--overwrite", "--resume"]
        done = subprocess.run(
            [sys.executable, "-m", *words(name, plan[name]), *more], cwd=BOOK
        )
        if done.returncode:
            sys.exit(done.returncode)
        if not plan[name].get("keep_weights", True):
            (RESULTS / f"{name}.safetensors").unlink()


if __name__ == "__main__":
    main()
