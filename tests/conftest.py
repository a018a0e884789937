"""Fixtures that several test files share."""

import os

import pytest
import torch
import weigh
from playwright.sync_api import sync_playwright

import cifar10
import helpers
from browsing import OPTIONS


def pytest_collection_modifyitems(items):
    """Let processes that share the tests of the site take one page after the other."""
    for item in items:
        page = getattr(item, "callspec", None) and item.callspec.params.get("opened")
        item.add_marker(pytest.mark.xdist_group(page or item.path.stem))


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


@pytest.fixture(scope="module")
def browser(chromium):
    """A browser that finds no host but this one."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=OPTIONS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def address():
    """Where the built site is served."""
    with weigh.serve() as address:
        yield address


@pytest.fixture
def few(sample):
    """Two hundred training images of all classes, as tensors, and their labels."""
    images, labels = helpers.to_tensors(sample.train)
    return images[::10], labels[::10]


@pytest.fixture(autouse=True)
def two_threads():
    torch.set_num_threads(2)
