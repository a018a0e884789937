"""What every chapter calls and none teaches: setup, data, records, pictures, curves.

What chapters build lives in taught/; what they only use comes from support/, and those
names of it that a chapter needs can be had from here.
"""

import json
import math
import os
import random
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch

from support import cifar10, download
from support.cifar10 import (
    CLASSES,
    channel_statistics,
    load_sample,
    only,
    to_tensors,
)
from support.figures import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PINK,
    show_drawing,
    show_figures_as_svg,
)
from support.files import RESULTS, TrainingError, load_tensors, load_weights
from support.machine import choose_device
from support.photos import shrink
from support.plan import command_of, read_plan
from support.precision import bf16_is_fast, train_in_bf16

__all__ = [
    "BLUE", "CLASSES", "GREEN", "GREY", "INK", "ORANGE", "PINK", "RESULTS",
    "TrainingError", "bf16_is_fast", "by_mode", "channel_statistics", "choose_device",
    "command_of", "load_data", "load_sample", "load_tensors", "load_weights", "mode",
    "only", "plot_curves", "read_plan", "read_record", "setup", "show_drawing",
    "show_images", "shrink", "to_tensors", "train_in_bf16", "use_book_style",
]  # fmt: skip

MODES = ("reduced", "full")


# ---------------------------------------------------------------- setup


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
    """Prepare a chapter: seeds, threads, plot style; say which mode it runs in.

    In reduced mode the number of threads is pinned, since another number adds in
    another order: to two, or to what the environment variable OMP_NUM_THREADS says.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if mode() == "reduced":
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    use_book_style()
    print(
        by_mode(
            "Reduced mode: a sample of 3,000 images and short runs.",
            "Full mode: all 60,000 images, full schedules.",
        )
    )


# ---------------------------------------------------------------- data and records


def load_data() -> cifar10.Cifar10:
    """Load the embedded sample in reduced mode, all of CIFAR-10 in full mode.

    Raises support.cifar10.DataError with one sentence that says what to do.
    """
    return by_mode(load_sample, download.load_full)()


def read_record(name: str) -> dict:
    """Read the record of a full run from results/."""
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


# ---------------------------------------------------------------- plots


def use_book_style() -> None:
    """Set the plot style of the book: plain, legible on a phone and in the dark."""
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
            "grid.color": GREY,
            "grid.alpha": 0.25,
            "text.color": INK,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "axes.facecolor": "none",
            "xtick.color": INK,
            "ytick.color": INK,
            "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
            "image.interpolation": "none",
            "axes.axisbelow": True,
            "lines.linewidth": 2,
            "legend.frameon": False,
        }
    )
    show_figures_as_svg()


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
        axis.imshow(image)
        axis.set_title(text, fontsize=10.5, loc="center")
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    plt.show()


def plot_curves(
    curves: dict[str, Sequence[float]], title: str, ylabel: str, axis=None
) -> None:
    """Draw one line an entry over the epochs 1, 2, …, each labelled at its end."""
    axis = axis or plt.subplots()[1]
    ends = [values[-1] for values in curves.values()]
    for label, values in curves.items():
        above = values[-1] == max(ends)  # labels of two curves do not meet
        (line,) = axis.plot(range(1, len(values) + 1), values)
        axis.annotate(
            label,
            (len(values), values[-1]),
            xytext=(5, 0),
            textcoords="offset points",
            color=line.get_color(),
            va="center" if len(ends) > 2 else "bottom" if above else "top",
            annotation_clip=False,
        )
    axis.set(title=title, xlabel="epoch", ylabel=ylabel)
