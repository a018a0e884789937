"""Weigh the pages of the built site: what a reader's first visit to each transfers.

    python book/_tools/page_weight.py

Needs Chromium. Text is counted as a web server sends it, compressed by gzip; a page is
scrolled to its end, so that pictures that load late are counted, too.
"""

import gzip
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SITE = Path(__file__).resolve().parents[2] / "_build" / "html"
BUDGET = 700_000  # bytes for a page, cold cache
BROWSERS = (
    "chromium-headless-shell",  # no window to draw: half the work for each page
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)


class AsPublished(SimpleHTTPRequestHandler):
    """Serves files as hosts do: text compressed, and quietly."""

    protocol_version = "HTTP/1.1"  # several files by one connection
    TEXTS = (".html", ".css", ".js", ".svg", ".xml", ".json")
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".webp": "image/webp"}

    def do_GET(self):
        """Answer with the compressed text, or as usual."""
        path = Path(self.translate_path(self.path))
        if path.suffix not in self.TEXTS or not path.is_file():
            super().do_GET()
            return
        body = compressed(path, path.stat().st_mtime)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=600")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Say nothing."""


@lru_cache
def compressed(path: Path, changed: float) -> bytes:
    """Return a file as it travels; a file that has `changed` since is read again."""
    return gzip.compress(path.read_bytes(), 6)


@contextmanager
def serve(site: Path = SITE) -> Iterator[str]:
    """Serve the site on this machine; yields its address."""
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(AsPublished, directory=str(site))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def find_browser() -> str | None:
    """Return the path of Chromium or Chrome, or None."""
    return next((path for path in map(shutil.which, BROWSERS) if path), None)


def watch(page) -> list:
    """Return a list that fills with the requests of a Playwright page."""
    requests = []
    page.on("requestfinished", lambda request: requests.append(request))
    return requests


def read_on(page) -> None:
    """Scroll to the end of the page, and wait for its pictures."""
    page.evaluate(
        """async () => {
            for (const image of document.images) {
                if (!image.checkVisibility()) continue;
                image.scrollIntoView();
                if (!image.complete)
                    await new Promise(done => image.onload = image.onerror = done);
            }
            scrollTo(0, document.body.scrollHeight);
        }"""
    )


def weigh(requests: list) -> int:
    """Return the bytes of all that was transferred."""
    sizes = [r.sizes() for r in requests if r.url.startswith("http")]
    return sum(s["responseBodySize"] + s["responseHeadersSize"] for s in sizes)


def main() -> None:
    """Print the weight of each page; exit status 1 if one is too heavy."""
    from playwright.sync_api import sync_playwright

    heavy = False
    print(f"{'kB':>7}  page")
    with serve() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_browser(), args=["--no-sandbox"]
        )
        for file in sorted(SITE.glob("book/**/*.html")):
            context = browser.new_context()
            name = file.relative_to(SITE).as_posix()
            page = context.new_page()
            requests = watch(page)
            page.goto(f"{address}/{name}")
            read_on(page)
            weight = weigh(requests)
            heavy |= weight > BUDGET
            print(f"{weight / 1000:7.0f}  {name}")
            context.close()
    sys.exit(heavy)


if __name__ == "__main__":
    main()
