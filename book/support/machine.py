"""The machine: which device to compute on, and what a record must say of it.

Here lives what seconds and last digits depend on; bfloat16 has its own file.
"""

import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import torch

from support.files import BOOK


def choose_device(name: str | None = None) -> torch.device:
    """Return the device called `name`, or the accelerator if there is one, or the CPU.

    Raises ValueError if this machine has no such device.
    """
    accelerator = None
    if torch.accelerator.is_available():
        accelerator = torch.accelerator.current_accelerator()
    if name is None:
        return accelerator or torch.device("cpu")
    known = {"cpu"} | ({accelerator.type} if accelerator else set())
    if name not in known:
        raise ValueError(f"no device {name!r} here: use {' or '.join(sorted(known))}")
    return torch.device(name)


def describe_machine(device: torch.device) -> dict:
    """Return what the seconds and the last digits of any run depend on."""
    return {
        "device": device.type,
        "processor": processor_name(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "commit": commit(),
    }


def describe_training(bf16: bool) -> dict:
    """Return what else the seconds and digits of a network's training depend on."""
    precision = "bfloat16 autocast" if bf16 else "float32"
    return {"precision": precision, "memory_format": "channels_last"}


def processor_name(device: torch.device) -> str:
    """Return the accelerator's name, or the processor's as the system tells it."""
    module = torch.get_device_module(device)
    if hasattr(module, "get_device_name"):
        return module.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()


def commit(folder: Path = BOOK) -> str:
    """Return the commit of the code that runs, with "+" if files were changed.

    `folder` is the book's, which holds results/: new records change nothing that runs,
    so that several runs can follow each other.
    """
    git = ["git", "-C", str(folder)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        status = [*git, "status", "--porcelain", "-uno", "--", ":/", ":^results"]
        changed = subprocess.run(status, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip()[:12] + ("+" if changed.stdout else "")
