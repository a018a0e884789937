"""Files that are whole or not there: tensors, texts, and the weights of a network.

Nothing here executes what it reads. What a checkpoint holds stands in checkpoints.py,
what a record holds in runs/record.py.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

BOOK = Path(__file__).resolve().parent.parent
RESULTS = BOOK / "results"  # the records of full runs


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a neighbour of `path`, then rename it: a whole file or none.

    Raises OSError that names `path` and says what to do; what was there is kept.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        os.replace(part, path)
    except (OSError, SafetensorError) as problem:  # safetensors' own for a full disk
        raise OSError(
            f"{path} cannot be written ({problem}): make room there; what was in its "
            "place is kept"
        ) from problem
    finally:
        if part.exists():
            part.unlink()


def write_json(path: Path, content: dict) -> None:
    """Write a dictionary as JSON, whole or not at all.

    Raises ValueError for values that are not finite, and OSError as `write_whole` does.
    """
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_whole(path, lambda part: part.write_text(text, "utf-8"))


def save_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write named tensors and texts to one safetensors file; OSError if it fails."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}

    def write(part: Path) -> None:
        safetensors.torch.save_file(tensors, part, metadata)
        part.chmod(0o644)  # safetensors lets nobody else read

    write_whole(path, write)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `save_tensors` wrote, without executing anything.

    Raises TrainingError if the file is missing or damaged.
    """
    sys.audit("open", str(path), "rb", 0)  # safetensors reads it unseen by Python
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {n: file.get_tensor(n) for n in names}, file.metadata() or {}
    except (SafetensorError, OSError) as problem:
        raise TrainingError(
            f"{path} is missing or damaged ({problem}): restore it or make it again"
        ) from problem


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill `model` with the weights in `path`.

    Raises TrainingError that names the first tensor that does not fit.
    """
    fill(model, load_tensors(path)[0], path)


def fill(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Fill `model` with tensors that were read from `path`.

    Raises TrainingError that names the first tensor that does not fit.
    """
    state = model.state_dict()
    for name in sorted(state.keys() | tensors.keys()):
        if name not in tensors:
            problem = f"lacks {name}"
        elif name not in state:
            problem = f"holds {name}, which this model lacks"
        elif state[name].shape != tensors[name].shape:
            found, wanted = tuple(tensors[name].shape), tuple(state[name].shape)
            problem = f"holds {name} of shape {found}, and this model needs {wanted}"
        else:
            continue
        raise TrainingError(f"{path} is of another model: it {problem}")
    model.load_state_dict(tensors)
