"""The built site in a real browser, as a reader meets it on a desk and on a phone."""

import os
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

SITE = Path(__file__).resolve().parent.parent / "_build" / "html"
PAGES = sorted(p.relative_to(SITE).as_posix() for p in SITE.glob("book/**/*.html"))
WIDTHS = {"desk": 1280, "phone": 390}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# The last one is the proof that the site needs no other host: no name is ever found.
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address():
    handler = partial(Quiet, directory=str(SITE))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    path = next((p for p in map(shutil.which, BROWSERS) if p), None)
    if path is None:
        reason = "Chromium is missing: sudo apt install chromium"
        # A machine that must test everything may not pass by testing less.
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        yield started
        started.close()


class Visit:
    """One page open in the browser, and what went wrong on the way."""

    def __init__(self, browser, address, page, width=1280, scheme="light"):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        self.page = self.context.new_page()
        self.complaints = []
        self.page.on("console", self.on_console)
        self.page.on("pageerror", lambda e: self.complaints.append(f"error: {e}"))
        self.page.on(
            "requestfailed", lambda r: self.complaints.append(f"failed: {r.url}")
        )
        self.page.on("request", lambda r: self.on_request(r, address))
        self.page.on("response", self.on_response)
        self.page.goto(f"{address}/{page}", wait_until="load")
        self.page.wait_for_load_state("networkidle")

    def on_console(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(f"console: {message.text}")

    def on_request(self, request, address):
        if not request.url.startswith((address, "data:", "blob:")):
            self.complaints.append(f"foreign: {request.url}")

    def on_response(self, response):
        if response.status >= 400:
            self.complaints.append(f"{response.status}: {response.url}")


@pytest.fixture
def visit(browser, address):
    open_visits = []

    def go(page, **options):
        open_visits.append(Visit(browser, address, page, **options))
        return open_visits[-1]

    yield go
    for opened in open_visits:
        opened.context.close()


def test_all_pages_were_built():
    names = {page.removeprefix("book/").removesuffix(".html") for page in PAGES}
    chapters = "01_introduction", "exercises/01_introduction", "07_training"
    assert {"index", *chapters, "references"} <= names


each_page = pytest.mark.parametrize("page", PAGES)
each_width = pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)


@each_page
@each_width
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_loads_clean_and_fits_its_window(visit, page, width, scheme):
    opened = visit(page, width=width, scheme=scheme)
    assert opened.complaints == []
    root = "document.documentElement"
    assert opened.page.evaluate(f"{root}.scrollWidth") <= width
    assert opened.page.evaluate(f"{root}.dataset.theme") == scheme


@each_page
def test_all_maths_is_understood(visit, page):
    opened = visit(page)
    opened.page.wait_for_timeout(500)
    assert opened.page.locator("article .math:not(:has(mjx-container))").count() == 0
    wrong = opened.page.locator("mjx-merror, [data-mml-node='merror']")
    assert wrong.all_inner_texts() == []


@each_page
def test_every_picture_arrives_and_has_alt_text(visit, page):
    opened = visit(page)
    pictures = opened.page.eval_on_selector_all(
        "article img", "all => all.map(i => [i.alt, i.naturalWidth, i.src])"
    )
    for alt, width, address in pictures:
        assert len(alt) > 40, address
        assert width > 0, address


def test_chapter_shows_its_figures_and_maths(visit):
    opened = visit("book/07_training.html")
    assert opened.page.locator("article .cell_output img").count() >= 10
    opened.page.wait_for_selector("mjx-container[display='true'] svg")
    assert opened.page.locator("mjx-container").count() >= 6
    assert opened.page.locator("mjx-assistive-mml math").count() >= 6


@each_page
@each_width
def test_wide_blocks_scroll_by_themselves_from_their_beginning(visit, page, width):
    opened = visit(page, width=width)
    outside = opened.page.evaluate(
        """() => [...document.querySelectorAll('article pre, article div.math')]
            .filter(e => e.getBoundingClientRect().right > window.innerWidth + 1)
            .map(e => e.textContent.slice(0, 60))"""
    )
    assert outside == []
    cut = opened.page.evaluate(
        """() => [...document.querySelectorAll('article mjx-container')]
            .filter(e => e.getBoundingClientRect().left < 0)
            .map(e => e.textContent.slice(0, 60))"""
    )
    assert cut == []


def test_search_finds_the_chapter(visit):
    opened = visit("search.html?q=momentum")
    opened.page.wait_for_selector("#search-results li a")
    titles = opened.page.locator("#search-results li > a").all_inner_texts()
    assert any("Training a ResNet" in title for title in titles)
    assert opened.complaints == []


def test_root_leads_to_the_landing_page(visit):
    opened = visit("index.html")
    opened.page.wait_for_url("**/book/index.html")
    first = opened.page.locator("article a[href*='07_training']").first
    first.click()
    opened.page.wait_for_url("**/book/07_training.html*")
    assert "Training a ResNet" in opened.page.title()


def test_landing_page_shows_its_promise_and_picture_in_one_screen(visit):
    opened = visit("book/index.html")
    for target in ("article h1", "article img", "article ul"):
        box = opened.page.locator(target).first.bounding_box()
        assert box["y"] + box["height"] / 2 < 900, target


def test_buttons_lead_to_the_repository_that_built_the_site(visit):
    from yaml import safe_load

    config = safe_load((SITE.parent.parent / "_config.yml").read_text("utf-8"))
    built_by = os.environ.get("GITHUB_REPOSITORY")
    home = f"https://github.com/{built_by}" if built_by else config["repository"]["url"]
    opened = visit("book/07_training.html")
    links = opened.page.eval_on_selector_all("a", "all => all.map(a => a.href)")
    slug = home.removeprefix("https://github.com/")
    notebook = "blob/main/book/07_training.ipynb"
    colab = f"https://colab.research.google.com/github/{slug}/{notebook}"
    assert colab in links and home in links
    assert not any("github.com" in x and slug not in x for x in links if "blob" in x)


def test_site_carries_no_source_maps_and_one_maths_script():
    assert not list(SITE.rglob("*.map"))
    assert (SITE / "_static" / "tex-svg-full.js").stat().st_size > 1_000_000
