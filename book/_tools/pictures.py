"""Draw the site's pictures from the recorded ResNet-20 and the sample.

    python book/_tools/pictures.py

The cover: each row is a class of the test sample, ordered by the probability that the
network gives to the true class; a frame marks an image that it takes for something
else. The card, which other sites show beside a link. The still picture of the live
model, for readers whose build has none.
"""

import sys
from pathlib import Path

BOOK = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BOOK))

import matplotlib.pyplot as plt  # noqa: E402
import torch  # noqa: E402

import helpers  # noqa: E402
from support import cifar10  # noqa: E402
from support.files import write_whole  # noqa: E402

FOLDER = BOOK / "_static"
COLUMNS = 14


def main() -> None:
    """Write the three pictures to _static."""
    test = cifar10.load_sample().test
    outputs, _ = helpers.load_tensors(helpers.RESULTS / "resnet20.outputs.safetensors")
    p = outputs["logits"][test.indices].float().softmax(dim=1)  # (1000, 10)
    helpers.use_book_style()
    save(cover(test, p), "cover.webp", dpi=100, pil_kwargs={"quality": 80})
    save(card(test, p), "card.png", dpi=100)
    save(still(test, p), "live_model.png", dpi=160)


def save(figure: plt.Figure, name: str, **options) -> None:
    """Write a picture to _static, all or nothing."""
    kind = name.rpartition(".")[2]
    write_whole(
        FOLDER / name, lambda part: figure.savefig(part, format=kind, **options)
    )


def cover(test: cifar10.Images, p: torch.Tensor) -> plt.Figure:
    """Draw the classes as rows, from the surest image to the least sure."""
    figure, axes = plt.subplots(
        10, COLUMNS, figsize=(8.6, 5.3), gridspec_kw={"wspace": 0.05, "hspace": 0.05}
    )
    fill(axes, test, p)
    for row, name in enumerate(cifar10.CLASSES):
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=11)
    figure.supxlabel(
        "surest of the true class  →  least sure; framed: mistaken", size=11
    )
    return figure


def card(test: cifar10.Images, p: torch.Tensor) -> plt.Figure:
    """Draw title and images for a card of 1200 × 630 pixels."""
    figure = plt.figure(figsize=(12, 6.3), layout="none")
    title = {"color": "#1b2733", "weight": "bold", "size": 44, "va": "top"}
    figure.text(0.04, 0.80, "ResNets\nfrom\nScratch", linespacing=1.2, **title)
    accuracy = helpers.read_record("resnet20")["test"]["accuracy"]
    promise = (
        "From one neuron in NumPy to a\n"
        f"ResNet with {accuracy:.1%} on CIFAR-10,\n"
        "trained, tested and taken apart"
    )
    figure.text(0.04, 0.33, promise, size=20, va="top", color="#445261")
    columns, side = 10, 0.0885
    axes = [
        [
            figure.add_axes((0.52 + c * 0.0465, 0.955 - (r + 1) * side, 0.045, 0.0857))
            for c in range(columns)
        ]
        for r in range(10)
    ]
    fill(axes, test, p)
    return figure


def fill(axes, test: cifar10.Images, p: torch.Tensor) -> None:
    """Show each class in its row of axes, from the surest image to the least sure."""
    labels = torch.tensor(test.labels)
    sure = p[torch.arange(len(labels)), labels]
    wrong = p.argmax(dim=1) != labels
    for number, row in enumerate(axes):
        members = torch.where(labels == number)[0]
        ordered = members[sure[members].argsort(descending=True)]
        places = torch.linspace(0, len(ordered) - 1, len(row)).round().long()
        for axis, i in zip(row, ordered[places].tolist()):
            axis.imshow(test.images[i])
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            axis.spines[:].set_visible(bool(wrong[i]))
            axis.spines[:].set(color=helpers.ORANGE, linewidth=4)


def still(test: cifar10.Images, p: torch.Tensor) -> plt.Figure:
    """Draw one image, and the probabilities of its classes as bars."""
    i = int(torch.where(torch.tensor(test.labels) == 8)[0][0])  # the first ship
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(7, 2.8), gridspec_kw={"width_ratios": [1, 1.7], "wspace": 0.35}
    )
    left.imshow(test.images[i])
    left.set(xticks=[], yticks=[], title=f"test image {test.indices[i]}")
    left.grid(False)
    first = p[i] == p[i].max()
    colours = [helpers.BLUE if f else "#b8c4d0" for f in first]
    right.barh(cifar10.CLASSES, (100 * p[i]).numpy(), color=colours)
    right.set(xlim=(0, 100), xlabel="probability (%)", title="what the network says")
    right.invert_yaxis()
    return figure


if __name__ == "__main__":
    main()
