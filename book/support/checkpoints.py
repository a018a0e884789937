"""What a run needs to go on after an epoch, in one file.

Here lives what a checkpoint holds and what it is known again by; epochs.py decides when
it is written and read.
"""

import json
from pathlib import Path

import torch
from torch import nn

from support.files import TrainingError, fill, load_tensors, save_tensors


def save_checkpoint(
    path: Path,
    saved: nn.Module,
    optimizer: torch.optim.Optimizer,
    known_as: dict,
    history: list[dict],
) -> None:
    """Write weights, optimizer and history; OSError if it fails.

    `known_as` says, as JSON, which run this is.
    """
    tensors = dict(saved.state_dict())
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": t for key, t in state.items()}
    texts = {"run": json.dumps(known_as), "history": json.dumps(history)}
    save_tensors(path, tensors, texts)


def load_checkpoint(
    path: Path, saved: nn.Module, optimizer: torch.optim.Optimizer, known_as: dict
) -> list[dict]:
    """Fill `saved` and the optimizer from a checkpoint; return the history so far.

    Raises TrainingError if it is damaged, of another model, or of another run.
    """
    tensors, texts = load_tensors(path)
    try:
        made_with, history = json.loads(texts["run"]), json.loads(texts["history"])
    except (KeyError, ValueError) as problem:
        raise TrainingError(f"{path} is no checkpoint ({problem})") from problem
    for key, value in known_as.items():
        if made_with.get(key) != value:
            raise TrainingError(
                f"{path} was made with {key} = {made_with.get(key)}, not {value}: "
                "use the same settings, or another name for this run"
            )
    weights = {n: t for n, t in tensors.items() if not n.startswith("optimizer.")}
    fill(saved, weights, path)
    state = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return history
