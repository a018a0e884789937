"""Fixtures of the tests that open the built site in a browser."""

import os

import page_weight
import pytest
from playwright.sync_api import sync_playwright

from browsing import OPTIONS, Visit


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


@pytest.fixture
def visit(browser, address):
    """A function that opens a page: of the served site, or a file named in full."""
    open_visits = []

    def go(page, **options):
        where = page if page.startswith("file:") else f"{address}/{page}"
        open_visits.append(Visit(browser, where, **options))
        return open_visits[-1]

    yield go
    for opened in open_visits:
        opened.context.close()
