"""Fixtures of the tests that open the built site in a browser."""

import os

import page_weight
import pytest
from playwright.sync_api import sync_playwright

from browsing import OPTIONS


@pytest.fixture(scope="session")
def chromium():
    """The path of the browser."""
    path = page_weight.find_browser()
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
    with page_weight.serve() as address:
        yield address
