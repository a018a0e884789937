"""Pictures of the reader's own, as a network for CIFAR-10 takes them.

The page's live model does the same in live_model.js; the images of CIFAR-10 itself
come from cifar10.py.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SIDE = 32  # pixels


def shrink(picture: str | Path | np.ndarray) -> np.ndarray:
    """Return the middle square of a picture, shrunk to (32, 32, 3) uint8.

    `picture` names a file, or holds pixels (H, W, 3) uint8. A photo is turned upright
    as its camera noted, transparent parts are laid on white, 16 bits become 8, and
    each new pixel is the mean of those that it stands for; live_model.js does the same.
    Raises OSError if the file is missing or is no picture.
    """
    if isinstance(picture, np.ndarray):
        image = Image.fromarray(picture)
    else:
        image = ImageOps.exif_transpose(Image.open(picture))
    if image.mode.startswith("I"):  # 16 bits, which convert() would cut off at 255
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    image = image.convert("RGBA")
    paper = Image.new("RGBA", image.size, "white")
    paper.alpha_composite(image)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = paper.convert("RGB").crop((left, top, left + side, top + side))
    channels = [  # as floats, which are rounded once, at the end
        Image.fromarray(channel).resize((SIDE, SIDE), Image.Resampling.BOX)
        for channel in np.moveaxis(np.asarray(square, np.float32), 2, 0)
    ]
    return np.stack(channels, axis=2).round().astype(np.uint8)
