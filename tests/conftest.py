"""Fixtures that tests of several rooms share."""

import os

import pytest
import torch

from support import cifar10, download


@pytest.fixture(scope="session")
def sample():
    return cifar10.load_sample()


@pytest.fixture(scope="session")
def full():
    """All of CIFAR-10, really fetched where the cache is empty."""
    try:
        return download.load_full(progress=False)
    except cifar10.DataError as problem:
        # A machine that must test everything may not pass by testing less.
        if os.environ.get("CI") or "cannot be fetched" not in str(problem):
            raise
        pytest.skip(f"needs the full set: {problem}")


@pytest.fixture
def few(sample):
    """Two hundred training images of all classes, as tensors, and their labels."""
    images, labels = cifar10.to_tensors(sample.train)
    return images[::10], labels[::10]


@pytest.fixture(autouse=True)
def one_thread():
    """Two processes test side by side, each on a core of its own."""
    torch.set_num_threads(1)
