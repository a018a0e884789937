"""Draw the landing page's picture from the recorded ResNet-20 and the sample.

    python book/_tools/cover.py

Each row is a class of the test sample, ordered by the probability that the network
gives to the true class; a frame marks an image that it takes for something else.
"""

import sys
from pathlib import Path

BOOK = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BOOK))

import matplotlib.pyplot as plt  # noqa: E402
import torch  # noqa: E402

import cifar10  # noqa: E402
import helpers  # noqa: E402

COLUMNS = 14
FILE = BOOK / "_static" / "cover.png"


def main() -> None:
    """Write the picture to _static."""
    test = cifar10.load_sample().test
    labels = torch.tensor(test.labels)
    outputs, _ = helpers.load_tensors(helpers.RESULTS / "resnet20.outputs.safetensors")
    p = outputs["logits"][test.indices].float().softmax(dim=1)  # (1000, 10)
    sure = p[torch.arange(len(labels)), labels]
    wrong = p.argmax(dim=1) != labels

    helpers.use_book_style()
    figure, axes = plt.subplots(
        10, COLUMNS, figsize=(8.6, 5.3), gridspec_kw={"wspace": 0.05, "hspace": 0.05}
    )
    for row, name in enumerate(cifar10.CLASSES):
        members = torch.where(labels == row)[0]
        ordered = members[sure[members].argsort(descending=True)]
        places = torch.linspace(0, len(ordered) - 1, COLUMNS).round().long()
        for axis, i in zip(axes[row], ordered[places].tolist()):
            axis.imshow(test.images[i], interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            axis.spines[:].set_visible(bool(wrong[i]))
            axis.spines[:].set(color=helpers.ORANGE, linewidth=4)
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=11)
    figure.supxlabel(
        "surest of the true class  →  least sure; framed: mistaken", size=11
    )
    helpers.write_whole(FILE, lambda part: figure.savefig(part, format="png", dpi=110))


if __name__ == "__main__":
    main()
