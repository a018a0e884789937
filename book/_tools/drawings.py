"""Draw the diagrams of the chapters.

    python book/_tools/drawings.py

Each function returns one drawing, and its name is that of the file in _static/drawings;
`helpers.show_drawing("residual_block")` shows it in a chapter. Numbers come from the
code of the chapters. A unit is at least 0.78 pixels on a phone: text of 15 has 11.7.
"""

import sys
from pathlib import Path

BOOK = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BOOK))

import drawsvg as draw  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from support.figures import (  # noqa: E402
    BLUE,
    DRAWINGS,
    GREY,
    INK,
    ON_DARK,
    ORANGE,
    ROOT,
)
from support.files import write_whole  # noqa: E402
from taught import resnet  # noqa: E402

WIDTH = 440  # units, which fill the column of a phone
SIZE = 15  # of text, in units


def paint(selector: str, what: str, light: str, dark: str) -> str:
    """Return a rule of style for light and dark pages, and for old browsers."""
    both = f"{what}: {light}; {what}: light-dark({light}, {dark})"
    return f".drawing {selector} {{ {both} }}"


FILLS = {  # of boxes: on a light page, on a dark one
    "plain": ("#eef2f6", "#26313c"),
    "blue": ("#d3e8f6", "#123a55"),
    "orange": ("#fbe3d0", "#55300f"),
    "green": ("#d2f0e6", "#0f4436"),
}
INKS = {"edge": INK, "faint": GREY, "by-blue": BLUE, "by-orange": ORANGE}  # of lines
RULES = [
    f".drawing text {{ font: {SIZE}px system-ui, sans-serif }}",
    ".drawing .line { fill: none; stroke-width: 1.8 }",
    ".drawing .strong { font-weight: bold }",
    paint("text", "fill", INK, ON_DARK[INK]),
    *(paint(f".{name}", "fill", *pair) for name, pair in FILLS.items()),
    *(
        rule
        for name, colour in INKS.items()
        for rule in (
            paint(f".{name}", "stroke", colour, ON_DARK[colour]),
            paint(
                f"text.{name}, .drawing .tip-{name}", "fill", colour, ON_DARK[colour]
            ),
        )
    ),
    ".drawing text { stroke: none !important }",
    ".drawing .dashed { fill: none; stroke-dasharray: 5 4 }",
]


class Sketch(draw.Drawing):
    """A drawing with boxes, arrows and text in the book's style."""

    def __init__(self, height: float, alt: str):
        super().__init__(WIDTH, height, class_="drawing", role="img", aria_label=alt)
        self.append_css("\n".join([ROOT, *RULES]))

    def say(self, text: str, x: float, y: float, anchor="middle", kind="", size=SIZE):
        """Write text, its middle line at height y; a line break begins a new line."""
        lines = text.split("\n")
        first = y - (len(lines) - 1) * size * 0.6
        for number, line in enumerate(lines):
            self.append(
                draw.Text(
                    line,
                    size,
                    x,
                    first + number * size * 1.2 + size * 0.35,
                    text_anchor=anchor,
                    class_=kind,
                )
            )

    def box(self, text: str, x: float, y: float, w: float, h: float, kind="plain"):
        """Draw a box with its centre at x, y and text in its middle."""
        rectangle = draw.Rectangle(
            x - w / 2, y - h / 2, w, h, rx=6, class_=f"{kind} edge"
        )
        self.append(rectangle)
        self.say(text, x, y)

    def ring(self, text: str, x: float, y: float, r=15, kind="plain"):
        """Draw a circle with text in it."""
        self.append(draw.Circle(x, y, r, class_=f"{kind} edge"))
        self.say(text, x, y)

    def arrow(self, *points: tuple[float, float], kind="edge", tip=True):
        """Draw a line through points, with a tip at its end."""
        steps = [f"{'L' if i else 'M'}{x:g},{y:g}" for i, (x, y) in enumerate(points)]
        self.append(draw.Path(" ".join(steps), class_=f"line {kind}"))
        if tip:
            (x0, y0), (x, y) = np.array(points[-2:], dtype=float)
            along = np.array([x - x0, y - y0]) / np.hypot(x - x0, y - y0)
            across = np.array([-along[1], along[0]])
            corners = [(x, y), *((x, y) - 8 * along + 4 * s * across for s in (1, -1))]
            flat = [round(float(v), 2) for corner in corners for v in corner]
            self.append(draw.Lines(*flat, close=True, class_=f"tip-{kind}"))

    def grid(self, numbers, x: float, y: float, side: float, kind="plain", marked=()):
        """Write a table of numbers into squares; those of `marked` are orange."""
        for (row, column), number in np.ndenumerate(np.asarray(numbers)):
            kind_here = "orange" if (row, column) in marked else kind
            left, top = x + column * side, y + row * side
            self.append(
                draw.Rectangle(left, top, side, side, class_=f"{kind_here} faint")
            )
            text = str(number).replace("-", "−")
            self.say(text, left + side / 2, top + side / 2)


# ------------------------------------------------------------------------- chapter 2


def neuron_and_layer() -> Sketch:
    """One neuron with the numbers of a bluish picture, and a layer of three."""
    x, w, b = np.array([0.3, 0.7]), np.array([-1.0, 1.0]), 0.0
    z = float(x @ w + b)
    sketch = Sketch(
        430,
        f"Above, a neuron: the inputs x1 = {x[0]} and x2 = {x[1]} are multiplied by "
        f"the weights −1 and 1 and added to the bias 0, which gives z = {z:.1f}; the "
        "activation f makes a of it. Below, a layer: three such neurons look at the "
        "same two inputs, with a weight for each line.",
    )
    sketch.say("A neuron", 10, 16, "start", "strong")
    for i, (value, weight) in enumerate(zip(x, w)):
        y = 65 + 80 * i
        sketch.ring(f"{value}", 60, y, 24, "blue")
        sketch.say("xx"[i] + "₁₂"[i], 20, y)
        sketch.arrow((84, y), (189, 105 + 10 * (2 * i - 1)))
        label = f"w{'₁₂'[i]} = {weight:g}".replace("-", "−")
        sketch.say(label, 132, y - 10 + 26 * i)
    sketch.box("Σ + b", 222, 105, 66, 44, "orange")
    sketch.say("b = 0", 222, 150)
    sketch.arrow((255, 105), (322, 105))
    sketch.say(f"z = {z:.1f}", 288, 90)
    sketch.box("f", 345, 105, 44, 44, "green")
    sketch.arrow((367, 105), (415, 105))
    sketch.say("a", 427, 105)
    sketch.say("A layer", 10, 210, "start", "strong")
    inputs, outputs = (270, 370), (250, 320, 390)
    for i, start in enumerate(inputs):
        sketch.ring("x" + "₁₂"[i], 90, start, 20, "blue")
        for end in outputs:
            sketch.arrow((110, start), (238, end), kind="faint")
    for j, y in enumerate(outputs):
        sketch.ring("z" + "₁₂₃"[j], 260, y, 20, "orange")
    sketch.say("2 · 3 weights,\n3 biases", 300, 320, "start")
    return sketch


# ------------------------------------------------------------------------- chapter 5

PICTURE = np.array(
    [
        [1, 2, 0, 1, 3],
        [0, 1, 2, 1, 0],
        [2, 0, 1, 3, 1],
        [1, 1, 0, 2, 2],
        [0, 2, 1, 0, 1],
    ]
)
KERNEL = np.array([[1, 0, 2], [0, 1, 0], [1, 2, 1]])


def convolution() -> Sketch:
    """A 3×3 window over a picture of 5×5 pixels with a frame of zeros."""
    padded = np.pad(PICTURE, 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, KERNEL.shape)
    output = (windows * KERNEL).sum(axis=(2, 3))  # (5, 5)
    row, column = 0, 1
    seen = windows[row, column]
    lines = [
        " + ".join(f"{a}·{b}" for a, b in zip(*rows)) for rows in zip(seen, KERNEL)
    ]
    total = output[row, column]
    sketch = Sketch(
        400,
        "A picture of 5 × 5 numbers with a frame of zeros around it. A window of 3 × 3 "
        "lies on its top edge, one column from the left. The numbers in the window "
        f"times those of the kernel, {' + '.join(lines)}, add up to {total}, which is "
        "the number of the output at that place.",
    )
    inside = {(row + i, column + j) for i in range(3) for j in range(3)}
    sketch.say("input 5×5, padding 1", 117, 14)
    sketch.grid(padded, 5, 30, 32, "plain", inside)
    for (i, j), number in np.ndenumerate(PICTURE):
        if (i + 1, j + 1) not in inside:
            sketch.grid([[number]], 37 + 32 * j, 62 + 32 * i, 32, "blue")
    sketch.say("kernel 3×3", 345, 14)
    sketch.say("×", 263, 78)
    sketch.grid(KERNEL, 297, 30, 32, "green")
    sketch.arrow((345, 130), (345, 150))
    sketch.say("output 5×5", 345, 164)
    sketch.grid(output, 270, 180, 30, "plain", {(row, column)})
    for number, line in enumerate(lines):
        text = f"{'+ ' if number else ''}{line}"
        sketch.say(text, 28 if not number else 15, 285 + 24 * number, "start")
    sketch.say(f"= {total}", 15, 285 + 24 * len(lines), "start", "strong")
    return sketch


def residual_block() -> Sketch:
    """The basic block, with the three shortcuts."""
    sketch = Sketch(
        560,
        "A residual block. The input x goes two ways. The body: convolution 3×3, batch "
        "normalisation, ReLU, convolution 3×3, batch normalisation. The shortcut goes "
        "around the body; a plus adds both, and ReLU follows. Three shortcuts: the "
        "identity where the shape stays; every second pixel and zeros as new channels; "
        "or a convolution 1×1 with stride 2 and batch normalisation.",
    )
    middle, way, y = 110, 235, 20
    sketch.say("x", middle, y)
    sketch.arrow((middle, 32), (middle, 80))
    layers = ("conv 3×3", "batch norm", "ReLU", "conv 3×3", "batch norm")
    for number, name in enumerate(layers):
        y = 100 + 62 * number
        kind = {"c": "blue", "b": "green", "R": "orange"}[name[0]]
        sketch.box(name, middle, y, 130, 38, kind)
        last = number == len(layers) - 1
        sketch.arrow((middle, y + 19), (middle, y + (35 if last else 43)))
    plus = y + 50
    sketch.ring("+", middle, plus, 15)
    sketch.arrow((middle, plus + 15), (middle, plus + 41))
    sketch.box("ReLU", middle, plus + 60, 130, 38, "orange")
    sketch.arrow((middle, plus + 79), (middle, plus + 112))
    sketch.say("y = relu(F(x) + x)", middle, plus + 128)
    sketch.append(draw.Rectangle(20, 62, 180, 305, rx=8, class_="dashed faint"))
    sketch.say("body F", 20, 50, "start", "faint")
    sketch.arrow(
        (middle, 52), (way, 52), (way, plus), (middle + 15, plus), kind="by-blue"
    )
    sketch.say("shortcut", 246, 52, "start", "by-blue")
    choices = (
        ("identity", "x itself, where the\nshape stays", 125),
        ("padding", "every second pixel,\nzeros as the new\nchannels", 215),
        ("projection", "conv 1×1, stride 2,\nbatch norm", 310),
    )
    for name, text, y in choices:
        lines = text.count("\n") + 1
        sketch.say(name, 255, y - 14 - 9 * (lines - 1), "start", "strong")
        sketch.say(text, 255, y + 10, "start")
    sketch.say(
        "Padding and projection\nsuit a body that halves\nthe side and doubles\n"
        "the channels.",
        246,
        435,
        "start",
    )
    return sketch


# ------------------------------------------------------------------------- chapter 6


def resnet20() -> Sketch:
    """ResNet-20, with the shapes and the parameters of its parts."""
    model = resnet.build_model("resnet20").eval()
    shapes, weights = {}, {}

    def note(name):
        def hook(module, inputs, output):
            shapes[name] = tuple(output.shape[1:])  # (C, H, W)

        return hook

    for name, module in model.named_children():
        module.register_forward_hook(note(name))
        weights[name] = sum(p.numel() for p in module.parameters())
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    stages = [name for name in shapes if name.startswith("layer")]
    told = []
    for name in stages:
        channels, side, _ = shapes[name]
        told.append(f"{side}×{side}, {channels} channels, {weights[name]:,} parameters")
    sketch = Sketch(
        645,
        "ResNet-20 from top to bottom: an image of 32 × 32 pixels with 3 channels, a "
        "convolution to 16 channels, then three stages of three blocks, each block "
        f"with a shortcut around it. {'; '.join(told)}. Then the mean over all pixels "
        "leaves 64 numbers, and a linear layer gives 10 logits.",
    )
    middle = 225
    sketch.say("image, 32×32, 3 channels", middle, 14)
    sketch.arrow((middle, 26), (middle, 48))
    stem = weights["conv1"] + weights["bn1"]
    sketch.box(f"conv 3×3, batch norm, ReLU: {stem}", middle, 66, 300, 36, "blue")
    for number, text in enumerate(told):
        top = 84 + 148 * number
        sketch.arrow(
            (middle, top),
            (middle, top + 14),
            (28, top + 14),
            (28, top + 76),
            (70, top + 76),
        )
        sketch.say(f"stage {number + 1}", 38, top + 34, "start", "strong")
        for block, x in enumerate((110, 225, 340)):
            y = top + 76
            sketch.box("block", x, y, 80, 38, "green")
            sketch.arrow(
                (x + 40, y), (x + 75 if block < 2 else x + 82, y), tip=block < 2
            )
            changes = number > 0 and block == 0
            around = ((x - 54, y), (x - 54, y - 32), (x + 54, y - 32), (x + 54, y))
            sketch.arrow(*around, kind="by-orange" if changes else "by-blue")
        sketch.say(text, middle, top + 112)
        if number < 2:
            sketch.arrow(
                (422, top + 76),
                (422, top + 136),
                (middle, top + 136),
                (middle, top + 148),
                tip=False,
            )
        else:
            sketch.arrow(
                (422, top + 76),
                (422, top + 134),
                (middle, top + 134),
                (middle, top + 150),
            )
    text = "orange: a shortcut with zeros as the new channels"
    sketch.say(text, middle, 632, kind="by-orange")
    features, classes = model.fc.in_features, model.fc.out_features
    sketch.box(f"mean over all pixels: {features} numbers", middle, 548, 300, 34)
    sketch.arrow((middle, 565), (middle, 578))
    sketch.box(
        f"linear: {classes} logits, {weights['fc']} parameters",
        middle,
        595,
        300,
        34,
        "blue",
    )
    return sketch


# ------------------------------------------------------------------------- chapter 7


def training_loop() -> Sketch:
    """The four lines that training repeats, and what stands around them."""
    sketch = Sketch(
        372,
        "The training loop. A batch of images goes forward through the network to "
        "logits; the loss compares them with the labels; backward gives a gradient for "
        "each weight; the optimiser takes a step, which changes the weights; then "
        "comes the next batch. When all batches have been used, which is one epoch, "
        "the network is judged on images set aside.",
    )
    left, right = 110, 330
    sketch.box("batch\nimages and labels", left, 45, 170, 58, "blue")
    sketch.box("forward\nlogits = model(x)", right, 45, 170, 58, "green")
    sketch.box("loss\ncross_entropy", right, 145, 170, 58, "orange")
    sketch.box("backward\ngradients", right, 245, 170, 58, "orange")
    sketch.box("step\nchanges the weights", left, 245, 170, 58, "green")
    sketch.arrow((left + 85, 45), (right - 85, 45))
    sketch.arrow((right, 74), (right, 116))
    sketch.arrow((right, 174), (right, 216))
    sketch.arrow((right - 85, 245), (left + 85, 245))
    sketch.arrow((left, 216), (left, 74))
    sketch.say("next batch", left + 10, 145, "start")
    sketch.arrow((left, 274), (left, 318), kind="by-blue")
    sketch.say("after all batches: one epoch", left + 12, 296, "start", "by-blue")
    sketch.box("judge on images set aside", 165, 342, 280, 44)
    return sketch


DRAWN = (neuron_and_layer, convolution, residual_block, resnet20, training_loop)


def main() -> None:
    """Write all drawings."""
    DRAWINGS.mkdir(exist_ok=True)
    for make in DRAWN:
        text = make().as_svg()
        text = text[text.index("<svg") :]
        write_whole(
            DRAWINGS / f"{make.__name__}.svg",
            lambda part, text=text: part.write_text(text, "utf-8"),
        )


if __name__ == "__main__":
    main()
