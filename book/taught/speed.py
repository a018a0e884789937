"""Chapter 10: what the speed of training is measured by.

Here live the yardstick and the loader that most tutorials build. The recorded
measurements are made by runs/speed.py.
"""

import time

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from taught.training import MEAN, STD


def matrix_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """Return the floating-point operations a second of a matrix product, at best.

    Taught in chapter 10.
    """
    a, b = torch.rand(2, size, size).to(dtype)
    seconds = []
    while len(seconds) < 10 and sum(seconds) < 2:  # some types are very slow
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


class OneByOne(Dataset):
    """CIFAR-10 as tutorials read it: one PIL image at a time, through `transform`.

    `images` is uint8 (N, 32, 32, 3), `labels` int (N,), both NumPy arrays.
    Taught in chapter 10.
    """

    def __init__(self, images, labels, transform):
        self.images = images
        self.labels = labels
        self.transform = transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = Image.fromarray(self.images[index])
        return self.transform(image), int(self.labels[index])


def plain_loader(images, labels, batch_size: int = 128) -> DataLoader:
    """Build the loader that most tutorials build. Taught in chapter 10."""
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    data = OneByOne(images, labels, transform)
    return DataLoader(data, batch_size, shuffle=True, drop_last=True, num_workers=2)
