"""The record of a run: what it says, where its files lie, and what it will not lose.

This is the only place that makes a record. What a run does before it has something to
record stands in driver.py and comparison.py.
"""

import os
import shlex
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from support import cifar10
from support.files import BOOK, save_tensors, write_json

RUNS = BOOK / ".runs"  # not under version control, unlike results/


class RunFiles:
    """Where a run keeps its checkpoint, record, weights and test outputs."""

    def __init__(self, folder: Path, name: str):
        self.folder = folder
        self.name = name
        self.checkpoint = folder / f"{name}.checkpoint"
        self.record = folder / f"{name}.json"
        self.weights = folder / f"{name}.safetensors"
        self.outputs = folder / f"{name}.outputs.safetensors"

    def refuse_to_lose_work(self, resume: bool, overwrite: bool) -> None:
        """Raise ValueError before old work would be lost, or new work find no place."""
        if self.record.exists() and not overwrite:
            raise ValueError(
                f"{self.record} exists: choose another --name, or --overwrite it"
            )
        if self.checkpoint.exists() and not resume:
            raise ValueError(
                f"{self.checkpoint} exists: --resume goes on from it; delete it to "
                "start anew"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as problem:
            raise ValueError(
                f"--results {self.folder}: nothing can be written there "
                f"({problem.strerror}); choose another folder"
            ) from problem

    def how_to_go_on(self) -> str:
        """Return what to do after the run was stopped."""
        if self.checkpoint.exists():
            return f"the same command with --resume goes on from {self.checkpoint}"
        return "no epoch was finished, so start it again"


def make_record(name: str, command: str, machine: dict, **fields) -> dict:
    """Return what every record begins with, and the fields that are its own."""
    made = datetime.now(UTC).strftime("%Y-%m-%d")
    start = {"name": name, "made": made, "command": command}
    return start | {"machine": machine} | fields


def write_network(
    files: RunFiles,
    record: dict,
    model: nn.Module,
    logits: dict[str, Tensor],
    labels: dict[str, Tensor],
) -> None:
    """Write weights, outputs, and last the record; then drop the checkpoint.

    `logits` are float32 (N, classes) each, `labels` int64 (N,), by the names that they
    get in the file of outputs.
    """
    dtype = getattr(torch, record["weights_precision"])
    weights = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }
    outputs = {name: y.to(torch.uint8) for name, y in labels.items()}
    for name, z in logits.items():
        # In half precision large logits may tie; those near 0 are told apart.
        outputs[name] = (z - z.max(dim=1, keepdim=True).values).half()
    save_tensors(files.weights, weights)
    save_tensors(files.outputs, outputs)
    write_json(files.record, record)
    files.checkpoint.unlink(missing_ok=True)


def describe_data(data: cifar10.Cifar10) -> dict:
    """Return where the images come from, and their checksum."""
    return {"source": data.source, "sha256": cifar10.digest(data)}


def summarise(values: Sequence[float]) -> dict:
    """Return mean, standard deviation (of more than one) and number of some values."""
    summary = {"mean": float(np.mean(values)), "n": len(values)}
    if len(values) > 1:
        summary["sd"] = float(np.std(values, ddof=1))
    return summary


def command(program: str, arguments: Sequence[str] = ()) -> str:
    """Return the command, to be typed in book/, that makes a run again."""
    once = {"--resume", "--overwrite"}
    start = ["python"]
    if torch.distributed.is_torchelastic_launched():
        start = ["torchrun"]
        if os.environ["GROUP_WORLD_SIZE"] != "1":
            start.append(f"--nnodes={os.environ['GROUP_WORLD_SIZE']}")
        start.append(f"--nproc-per-node={os.environ['LOCAL_WORLD_SIZE']}")
    words = (a for a in arguments if a not in once)
    return shlex.join([*start, "-m", f"runs.{program}", *words])
