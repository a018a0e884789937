"""Fixtures that several test files share."""

import os
import re

import pytest
import torch
import weigh
from playwright.sync_api import sync_playwright
from xdist.scheduler import LoadScopeScheduling

import cifar10
import helpers
from browsing import OPTIONS


class ByPage(LoadScopeScheduling):
    """Gives the tests of one page of the site to one process, and else those of a file.

    (xdist's own groups are lost on pytest 9.2.)
    """

    def _split_scope(self, nodeid):
        page = re.search(r"\[([\w/]+\.html)\b", nodeid)
        return page[1] if page else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return ByPage(config, log)


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
