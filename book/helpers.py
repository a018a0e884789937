"""The plumbing that all chapters share: mode, device, data, training, files, plots.

Here live the parts that a chapter uses but does not teach, and those that chapter 7
teaches and later chapters use. Networks live in resnet.py, images in cifar10.py;
nothing here knows a model's name.
"""

import ctypes
import json
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

import cifar10
from workers import ALONE, Workers

MODES = ("reduced", "full")
RESULTS = Path(__file__).parent / "results"

# Okabe and Ito's palette: told apart by colour-blind readers, in the order of use.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
GREY = "#6B6B6B"


# ---------------------------------------------------------------- mode and machine


def mode() -> str:
    """Return "reduced" or "full", as the environment variable BOOK_MODE says.

    Raises ValueError for any other value.
    """
    value = os.environ.get("BOOK_MODE", "reduced")
    if value not in MODES:
        raise ValueError(f"BOOK_MODE is {value!r}: use 'reduced' or 'full'")
    return value


def by_mode(reduced, full):
    """Return the first argument in reduced mode and the second in full mode."""
    return reduced if mode() == "reduced" else full


def setup(seed: int = 0) -> None:
    """Prepare a chapter: seeds, threads, plot style; say which mode it runs in."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if mode() == "reduced":
        torch.set_num_threads(2)  # another number adds in another order
    use_book_style()
    print(
        by_mode(
            "Reduced mode: a sample of 3,000 images, short runs, two threads.",
            "Full mode: all 60,000 images, full schedules.",
        )
    )


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


def bf16_is_fast(device: torch.device) -> bool:
    """Tell whether this is a processor with arithmetic units for bfloat16.

    False where PyTorch cannot tell, and on accelerators, where float32 is fast enough
    for the networks of this book.
    """
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    units = torch.cpu.get_capabilities()
    return any(units.get(unit) for unit in ("amx_bf16", "avx512_bf16", "bf16"))


def keep_freed_memory() -> bool:
    """Keep freed memory for the next tensor instead of giving it back to the system.

    glibc gives each large tensor back when it is freed, so every step of training pays
    for new pages. Returns whether the settings were made: elsewhere nothing happens.
    Source: mallopt(3). Taught in chapter 10.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc: macOS, musl, Windows
        return False
    trim_threshold, mmap_threshold, largest, once_largest = -1, -3, 2**31 - 1, 2**25
    if not mallopt(mmap_threshold, largest):
        mallopt(mmap_threshold, once_largest)  # an older glibc refuses more
    return bool(mallopt(trim_threshold, largest))


# ---------------------------------------------------------------- data


def load_data() -> cifar10.Cifar10:
    """Load the embedded sample in reduced mode, all of CIFAR-10 in full mode.

    Raises cifar10.DataError with one sentence that says what to do.
    """
    return cifar10.load_sample() if mode() == "reduced" else cifar10.load_full()


def to_tensors(
    part: cifar10.Images, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Copy images (N, 32, 32, 3) and labels (N,) to tensors uint8 and int64."""
    return torch.tensor(part.images, device=device), torch.tensor(
        part.labels, device=device
    )


def normalise(images: Tensor) -> Tensor:
    """Scale uint8 images (N, H, W, 3) to mean 0, deviation 1: float32 (N, 3, H, W).

    The memory keeps its order, which PyTorch calls channels_last.
    Taught in chapter 7.
    """
    mean = torch.tensor(cifar10.MEAN, device=images.device)
    std = torch.tensor(cifar10.STD, device=images.device)
    x = (images / 255 - mean) / std  # (N, H, W, 3)
    return x.permute(0, 3, 1, 2)  # (N, 3, H, W)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by up to 4 pixels and mirror every other one, at random.

    Takes and returns uint8 (N, 32, 32, 3); the border is filled with the mean colour.
    Source: He et al. (2016), section 4.2. Taught in chapter 7.
    """
    n = len(images)
    canvas = images.new_empty(n, 40, 40, 3)
    canvas[:] = images.new_tensor([round(255 * m) for m in cifar10.MEAN])
    canvas[:, 4:36, 4:36] = images
    top, left = torch.randint(0, 9, (2, n, 1), generator=generator)
    mirror = torch.rand(n, 1, generator=generator) < 0.5
    rows = top + torch.arange(32)  # (N, 32)
    columns = left + torch.where(mirror, torch.arange(31, -1, -1), torch.arange(32))
    return canvas[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None]]


# ---------------------------------------------------------------- training


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    `warm_up` is the share of steps with a rising rate, after which it falls to zero
    if `fall`, and stays otherwise. `optimizer` is "sgd" or "adam". `averaging` is the
    share of the old average that a step keeps, where weights are averaged; 0 averages
    nothing.
    Raises ValueError for no epochs, empty batches, a warm-up outside (0, 1), an
    averaging outside [0, 1), a seed outside [0, 2**32), or an unknown optimizer.
    """

    epochs: int
    batch_size: int = 128
    peak_rate: float = 0.2
    warm_up: float = 0.15
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.05
    augment: bool = True
    fall: bool = True
    optimizer: str = "sgd"
    averaging: float = 0.0
    bf16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or not 0 < self.warm_up < 1:
            raise ValueError(
                "a recipe needs epochs and batch_size of at least 1 and a warm_up "
                f"between 0 and 1: {self}"
            )
        check_seed(self)
        if self.optimizer not in ("sgd", "adam") or not 0 <= self.averaging < 1:
            raise ValueError(
                "a recipe needs the optimizer 'sgd' or 'adam', and an averaging of at "
                f"least 0 and less than 1: {self}"
            )


def check_seed(recipe) -> None:
    """Raise ValueError where NumPy and PyTorch would not both take `recipe.seed`."""
    if not 0 <= recipe.seed < 2**32:
        raise ValueError(f"a recipe needs a seed from 0 to {2**32 - 1:,}: {recipe}")


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Build SGD with Nesterov momentum, or Adam, that decays weights of layers only.

    Biases and the scales and shifts of batch normalisation are not decayed.
    Taught in chapter 7.
    """
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=recipe.peak_rate)
    momentum = recipe.momentum
    return torch.optim.SGD(groups, recipe.peak_rate, momentum, nesterov=momentum > 0)


def learning_rate(
    step: int, steps: int, peak: float, warm_up: float, fall: bool = True
) -> float:
    """Return the rate of step 0, 1, …, steps - 1: a rise to `peak`, then a fall to 0.

    The rise takes the share `warm_up` of all steps; both are straight lines. Without
    `fall` the rate stays at its peak. Where the rise ends between two steps, the rate
    of one may lie above the peak, by less than one step's rise. Taught in chapter 7.
    """
    rise = warm_up * steps
    falling = (steps - step) / (steps - rise) if fall else 1
    return peak * min((step + 1) / rise, falling)


def train_epoch(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    rates: Iterable[float],
    recipe: Recipe,
    generator: torch.Generator,
    workers: Workers = ALONE,
) -> tuple[float, float]:
    """Show every image once, in random order; return mean loss and accuracy.

    `images` is uint8 (N, 32, 32, 3), `labels` int64 (N,); `rates` yields one learning
    rate a step. Loss and accuracy are those of the augmented images, as they were seen.
    One of several workers takes its share of each batch; its numbers, added to the
    others', are those of all images. Taught in chapter 7.
    """
    rank, count = workers.rank, workers.count
    model.train()
    loss_sum = correct = 0
    order = torch.randperm(len(images), generator=generator)
    for batch, rate in zip(order.split(recipe.batch_size), rates):
        for group in optimizer.param_groups:
            group["lr"] = rate
        seen = augment(images[batch], generator) if recipe.augment else images[batch]
        x, y = normalise(seen[rank::count]), labels[batch][rank::count]
        with torch.autocast(x.device.type, torch.bfloat16, enabled=recipe.bf16):
            logits = model(x)
        loss = F.cross_entropy(
            logits.float(), y, label_smoothing=recipe.label_smoothing
        )
        share = len(y) / len(batch)  # 1 for a worker alone
        optimizer.zero_grad()
        (loss * share * count).backward()  # the workers' gradients will be averaged
        optimizer.step()
        loss_sum += loss.detach() * len(y)
        correct += (logits.argmax(dim=1) == y).sum()
    return float(loss_sum / len(images)), float(correct / len(images))


def predict(model: nn.Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """Return the logits float32 (N, classes) of uint8 images (N, 32, 32, 3).

    Taught in chapter 7.
    """
    model.eval()
    with torch.no_grad():
        return torch.cat([model(normalise(x)) for x in images.split(batch_size)])


def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> dict:
    """Return loss, accuracy, and how many of how many images are classified right.

    Taught in chapter 7.
    """
    logits = predict(model, images)
    correct = int((logits.argmax(dim=1) == labels).sum())
    return {
        "loss": float(F.cross_entropy(logits, labels)),
        "accuracy": correct / len(labels),
        "correct": correct,
        "images": len(labels),
    }


def fit(
    model: nn.Module,
    train: tuple[Tensor, Tensor],
    recipe: Recipe,
    validation: tuple[Tensor, Tensor] | None = None,
    checkpoint: Path | None = None,
    report: Callable[[str], None] = tqdm.write,
    workers: Workers = ALONE,
    about: dict | None = None,
) -> list[dict]:
    """Train `model` by `recipe`; return one dictionary an epoch.

    `train` and `validation` are (images, labels) as `to_tensors` makes them, on the
    device of the model. Where `checkpoint` exists, training goes on from it; it is
    written after each epoch. The order of images depends on seed and epoch alone, so
    on a CPU a run that was stopped ends with the weights of one that was not.
    Where the recipe averages weights, the averages are what is validated, and what
    `model` holds in the end. Of several workers, the first one writes and reports.
    `about` is what else the run is known again by when it goes on, as JSON.
    Raises TrainingError if a loss or a weight is no longer finite, for a checkpoint
    that cannot be used, or for fewer images than workers in a batch or to validate
    with, and OSError if a checkpoint cannot be written; the last one then remains.
    """
    model.to(memory_format=torch.channels_last)
    in_loop = workers.wrap(model)
    optimizer = make_optimizer(model, recipe)
    saved = nn.ModuleDict({"model": model})
    if recipe.averaging:
        keep = get_ema_multi_avg_fn(recipe.averaging)
        saved["average"] = AveragedModel(model, multi_avg_fn=keep, use_buffers=True)
        optimizer.register_step_post_hook(
            lambda *_: saved["average"].update_parameters(model)
        )
    judged = saved["average"].module if recipe.averaging else model
    run = asdict(recipe) | {"images": len(train[0])} | (about or {})
    history = []
    if checkpoint and checkpoint.exists():
        history = load_checkpoint(checkpoint, saved, optimizer, run)
    _check_workers(workers, len(train[0]), recipe.batch_size, len(history))
    if validation and len(validation[1]) < workers.count:
        raise TrainingError(
            f"{len(validation[1])} validation images are too few for {workers.count} "
            "workers: set more aside"
        )
    steps_an_epoch = math.ceil(len(train[0]) / recipe.batch_size)
    steps, done = steps_an_epoch * recipe.epochs, steps_an_epoch * len(history)
    rates = [
        learning_rate(step, steps, recipe.peak_rate, recipe.warm_up, recipe.fall)
        for step in range(steps)
    ]
    silent = {"disable": True} if workers.rank else {}  # else TQDM_DISABLE decides
    with tqdm(rates[done:], total=steps, initial=done, unit="step", **silent) as bar:
        remaining = iter(bar)
        for epoch in range(len(history), recipe.epochs):
            generator = torch.Generator().manual_seed(1000 * recipe.seed + epoch)
            start = time.perf_counter()
            shares = train_epoch(
                in_loop, *train, optimizer, remaining, recipe, generator, workers
            )
            row = describe_epoch(epoch, optimizer, *workers.add(*shares), start)
            if validation:
                row |= _validate(judged, validation, workers)
            first = epoch * steps_an_epoch
            check_finite(row, saved, max(rates[first : first + steps_an_epoch]))
            history.append(row)
            if workers.rank == 0:
                if checkpoint:
                    save_checkpoint(checkpoint, saved, optimizer, run, history)
                report(epoch_line(row, recipe.epochs))
        next(remaining, None)  # the bar counts a step when the next is asked for
    if recipe.averaging:
        model.load_state_dict(judged.state_dict())
    return history


def describe_epoch(
    epoch: int,
    optimizer: torch.optim.Optimizer,
    loss: float,
    accuracy: float,
    start: float,
) -> dict:
    """Return what the history keeps of an epoch, counted from 0.

    `loss` and `accuracy` are those of the training images as they were shown; `start`
    is what time.perf_counter returned before. The rate is the first group's, now.
    """
    return {
        "epoch": epoch + 1,
        "rate": optimizer.param_groups[0]["lr"],
        "loss": loss,
        "accuracy": accuracy,
        "seconds": time.perf_counter() - start,
    }


def check_finite(row: dict, model: nn.Module, rate: float) -> None:
    """Raise TrainingError where the epoch ended in numbers that are none.

    `row` is what the history will keep of the epoch, `model` holds the weights and
    running statistics after it, and `rate` was its highest learning rate.
    """
    found = {name.replace("_", " "): n for name, n in row.items() if "loss" in name}
    broken = [f"{name} is {n}" for name, n in found.items() if not math.isfinite(n)]
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            broken.append(f"tensor {name} is not finite")
    if broken:
        raise TrainingError(
            f"the {broken[0]} in epoch {row['epoch']} at learning rates up to "
            f"{rate:.3g}: lower the rate or lengthen the warm-up"
        )


def _validate(model: nn.Module, images: tuple[Tensor, Tensor], workers: Workers):
    workers.agree(model)
    own = evaluate(model, *(t[workers.rank :: workers.count] for t in images))
    loss, correct, total = workers.add(
        own["loss"] * own["images"], own["correct"], own["images"]
    )
    return {"validation_loss": loss / total, "validation_accuracy": correct / total}


def _check_workers(workers: Workers, images: int, batch_size: int, epochs: int) -> None:
    smallest = images % batch_size or min(images, batch_size)
    if smallest < workers.count:
        raise TrainingError(
            f"the last batch of {smallest} images is too small for {workers.count} "
            "workers: use fewer workers or another batch size"
        )
    if workers.add(epochs)[0] != epochs * workers.count:
        raise TrainingError(
            "the workers found different checkpoints: give all of them one folder"
        )


def epoch_line(row: dict, epochs: int) -> str:
    """Return what is printed of an epoch, from its row of the history."""
    line = f"epoch {row['epoch']:2}/{epochs}  loss {row['loss']:.3f}"
    line += f"  accuracy {row['accuracy']:6.1%}"
    if "validation_accuracy" in row:
        line += f"  validation {row['validation_accuracy']:6.1%}"
    return line


# ---------------------------------------------------------------- files


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
    _fill(model, load_tensors(path)[0], path)


def _fill(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
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


def save_checkpoint(
    path: Path,
    saved: nn.Module,
    optimizer: torch.optim.Optimizer,
    run: dict,
    history: list[dict],
) -> None:
    """Write all that `fit` needs to go on after this epoch, in one file.

    `saved` holds the model and any averages; `run` is the recipe and the number of
    images, by which the run is known again.
    """
    tensors = dict(saved.state_dict())
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": t for key, t in state.items()}
    texts = {"run": json.dumps(run), "history": json.dumps(history)}
    save_tensors(path, tensors, texts)


def load_checkpoint(
    path: Path, saved: nn.Module, optimizer: torch.optim.Optimizer, run: dict
) -> list[dict]:
    """Fill `saved` and the optimizer from a checkpoint; return the history so far.

    Raises TrainingError if it is damaged, of another model, or of another run.
    """
    tensors, texts = load_tensors(path)
    try:
        made_with, history = json.loads(texts["run"]), json.loads(texts["history"])
    except (KeyError, ValueError) as problem:
        raise TrainingError(f"{path} is no checkpoint ({problem})") from problem
    for key, value in run.items():
        if made_with.get(key) != value:
            raise TrainingError(
                f"{path} was made with {key} = {made_with.get(key)}, not {value}: "
                "use the same settings, or another name for this run"
            )
    weights = {n: t for n, t in tensors.items() if not n.startswith("optimizer.")}
    _fill(saved, weights, path)
    state = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return history


def read_record(name: str) -> dict:
    """Read the record of a full run from results/."""
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def write_record(path: Path, record: dict) -> None:
    """Write the record of a full run, whole or not at all.

    Raises ValueError for numbers that are none, and OSError as `write_whole` does.
    """
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    write_whole(path, lambda part: part.write_text(text, "utf-8"))


# ---------------------------------------------------------------- plots


def use_book_style() -> None:
    """Set the one plot style of the book: readable at phone width, sharp, plain."""
    plt.rcdefaults()
    plt.rcParams.update(
        {
            "figure.figsize": (5.6, 3.4),
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "font.size": 12,
            "axes.titlesize": 12,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, PINK, GREY]),
            "axes.grid": True,
            "grid.color": "#E6E6E6",
            "axes.axisbelow": True,
            "lines.linewidth": 2,
            "legend.frameon": False,
        }
    )
    if "matplotlib_inline" in sys.modules:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")


def show_images(
    images: Sequence[np.ndarray],
    titles: Sequence[str],
    columns: int = 5,
    title: str = "",
) -> None:
    """Draw images uint8 (32, 32, 3) in a grid, nearest neighbour, a title over each."""
    rows = math.ceil(len(images) / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.12 * columns, 1.36 * rows + 0.3), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, text in zip(axes.flat, images, titles):
        axis.imshow(image, interpolation="nearest")
        axis.set_title(text, fontsize=9, loc="center")
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    plt.show()


def plot_curves(
    curves: dict[str, Sequence[float]], title: str, ylabel: str, axis=None
) -> None:
    """Draw one line an entry over the epochs 1, 2, …, each labelled at its end."""
    axis = axis or plt.subplots()[1]
    for label, values in curves.items():
        (line,) = axis.plot(range(1, len(values) + 1), values)
        axis.annotate(
            label,
            (len(values), values[-1]),
            xytext=(5, 0),
            textcoords="offset points",
            color=line.get_color(),
            va="center",
            annotation_clip=False,
        )
    axis.set(title=title, xlabel="epoch", ylabel=ylabel)
