"""Images as the NumPy methods of chapters 1 and 3 take them: rows of numbers.

The networks of PyTorch have their own way, in taught/training.py.
"""

import numpy as np


def flat(images: np.ndarray) -> np.ndarray:
    """Flatten uint8 images (N, 32, 32, 3) to float32 rows (N, 3072) in [0, 1]."""
    return images.reshape(len(images), -1).astype(np.float32) / 255


def standardised(images: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Flatten images, and bring the pixels of `like` to mean 0, deviation 1."""
    mean, deviation = like.mean() / 255, like.std() / 255
    return (flat(images) - np.float32(mean)) / np.float32(deviation)
