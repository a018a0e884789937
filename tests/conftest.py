"""Fixtures that several test files share."""

import os

import pytest
import torch
import weigh

import cifar10
import helpers


@pytest.fixture(scope="session")
def sample():
    return cifar10.load_sample()


@pytest.fixture(scope="session")
def full():
    """All of CIFAR-10, really fetched where the cache is empty."""
    try:
        return cifar10.load_full(progress=False)
    except cifar10.DataError as problem:
        # A machine that must test everything may not pass by testing less.
        if os.environ.get("CI") or "cannot be fetched" not in str(problem):
            raise
        pytest.skip(f"needs the full set: {problem}")


@pytest.fixture(scope="session")
def chromium():
    """The path of the browser."""
    path = weigh.find_browser()
    if path is None:
        reason = "Chromium is missing: sudo apt install chromium"
        # A machine that must test everything may not pass by testing less.
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return path


@pytest.fixture
def few(sample):
    """Two hundred training images of all classes, as tensors, and their labels."""
    images, labels = helpers.to_tensors(sample.train)
    return images[::10], labels[::10]


@pytest.fixture(autouse=True)
def two_threads():
    torch.set_num_threads(2)
