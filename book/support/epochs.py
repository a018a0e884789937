"""The one driver of epochs: it resumes, validates, checks, keeps and reports.

What happens within an epoch is handed to it as a function; nothing here knows a
network, a recipe or an image.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from support.checkpoints import load_checkpoint, save_checkpoint
from support.files import TrainingError
from support.workers import ALONE, Workers


def run_epochs(
    saved: nn.Module,
    optimizer: torch.optim.Optimizer,
    train_epoch: Callable[[int], tuple[float, float]],
    epochs: int,
    steps: int,
    known_as: dict,
    validate: Callable[[], dict] | None = None,
    checkpoint: Path | None = None,
    report: Callable[[str], None] = tqdm.write,
    team: Workers = ALONE,
) -> list[dict]:
    """Run the epochs that are left; return one dictionary an epoch.

    `train_epoch(epoch)` takes `steps` steps of the optimizer and returns mean loss and
    accuracy; it must depend on the number of the epoch alone, from 0, and on what
    `saved` and the optimizer hold. Then a run that was stopped ends with the weights
    of one that was not: where `checkpoint` exists it goes on from it, and after each
    epoch it writes it. `known_as` says, as JSON, which run this is. `validate` returns
    loss, accuracy, and how many of how many images are classified correctly. Of
    several workers, the first one writes and reports.
    Raises TrainingError if a loss or a weight is no longer finite, or for a checkpoint
    that cannot be used, and OSError if one cannot be written; the last one then stays.
    """
    history = []
    if checkpoint and checkpoint.exists():
        history = load_checkpoint(checkpoint, saved, optimizer, known_as)
    if team.mean(len(history)) != [len(history)]:
        raise TrainingError(
            "the workers found different checkpoints: give all of them one folder"
        )
    silent = {"disable": True} if team.rank else {}  # else TQDM_DISABLE decides
    total, done = epochs * steps, len(history) * steps
    highest = 0.0
    with tqdm(total=total, initial=done, unit="step", **silent) as bar:

        def after_step(*_) -> None:
            nonlocal highest
            highest = max(highest, optimizer.param_groups[0]["lr"])
            bar.update()

        watch = optimizer.register_step_post_hook(after_step)
        for epoch in range(len(history), epochs):
            highest, start = 0.0, time.perf_counter()
            loss, accuracy = team.mean(*train_epoch(epoch))
            row = {
                "epoch": epoch + 1,
                "rate": optimizer.param_groups[0]["lr"],
                "loss": loss,
                "accuracy": accuracy,
                "seconds": time.perf_counter() - start,
            }
            if validate:
                row |= _validation(validate(), team)
            _check_finite(row, saved, highest)
            history.append(row)
            if team.rank == 0:
                if checkpoint:
                    save_checkpoint(checkpoint, saved, optimizer, known_as, history)
                report(epoch_line(row, epochs))
        watch.remove()
    return history


def epoch_line(row: dict, epochs: int) -> str:
    """Return what is printed of an epoch, from its row of the history."""
    line = f"epoch {row['epoch']:2}/{epochs}  loss {row['loss']:.3f}"
    line += f"  accuracy {row['accuracy']:6.1%}"
    if "validation_accuracy" in row:
        line += f"  validation {row['validation_accuracy']:6.1%}"
    return line


def _validation(own: dict, team: Workers) -> dict:
    loss, correct, images = team.mean(
        own["loss"] * own["images"], own["correct"], own["images"]
    )
    return {"validation_loss": loss / images, "validation_accuracy": correct / images}


def _check_finite(row: dict, saved: nn.Module, rate: float) -> None:
    found = {name.replace("_", " "): n for name, n in row.items() if "loss" in name}
    broken = [f"{name} is {n}" for name, n in found.items() if not math.isfinite(n)]
    for name, tensor in saved.state_dict().items():
        if not tensor.isfinite().all():
            broken.append(f"tensor {name} is not finite")
    if broken:
        raise TrainingError(
            f"the {broken[0]} in epoch {row['epoch']} at learning rates up to "
            f"{rate:.3g}: lower the rate or lengthen the warm-up"
        )
