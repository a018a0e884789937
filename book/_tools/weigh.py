"""Weigh the pages of the built site: what a reader's first visit to each transfers.

    python book/_tools/weigh.py

Needs Chromium. Text is counted as a web server sends it, compressed by gzip; a page is
scrolled to its end, so that pictures and formulas that load late are counted, too.
"""

import gzip
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SITE = Path(__file__).resolve().parents[2] / "_build" / "html"
MATHS = "tex-svg-full.js"
BUDGET = 1_200_000  # bytes for a page, cold cache
BUDGET_BUT_MATHS = 600_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class AsPublished(SimpleHTTPRequestHandler):
    """Serves files as hosts do: text compressed, and quietly."""

    TEXTS = (".html", ".css", ".js", ".svg", ".xml", ".json")
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".webp": "image/webp"}

    def do_GET(self):
        """Answer with the compressed text, or as usual."""
        path = Path(self.translate_path(self.path))
        if path.suffix not in self.TEXTS or not path.is_file():
            super().do_GET()
            return
        body = gzip.compress(path.read_bytes(), 6)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=600")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Say nothing."""


@contextmanager
def serve(site: Path = SITE, port: int = 0) -> Iterator[str]:
    """Serve the site on this machine; yields its address."""
    server = ThreadingHTTPServer(
        ("127.0.0.1", port), partial(AsPublished, directory=str(site))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def find_browser() -> str | None:
    """Return the path of Chromium or Chrome, or None."""
    return next((path for path in map(shutil.which, BROWSERS) if path), None)


def weigh(page, address: str) -> dict[str, int]:
    """Open `address` in a Playwright page, scroll to its end; return bytes by file."""
    weights = {}

    def count(request):
        sizes = request.sizes()
        weights[request.url] = sizes["responseBodySize"] + sizes["responseHeadersSize"]

    page.on("requestfinished", count)
    page.goto(address)
    page.evaluate(
        """async () => {
            for (let y = 0; y < document.body.scrollHeight; y += 800) {
                scrollTo(0, y);
                await new Promise(resolve => setTimeout(resolve, 15));
            }
        }"""
    )
    page.wait_for_load_state("networkidle")
    return weights


def split(weights: dict[str, int]) -> tuple[int, int]:
    """Return the bytes of all files, and of all but the maths script."""
    whole = sum(weights.values())
    maths = sum(size for url, size in weights.items() if MATHS in url)
    return whole, whole - maths


def main() -> None:
    """Print the weight of each page; exit status 1 if one is too heavy."""
    from playwright.sync_api import sync_playwright

    heavy = False
    print(f"{'kB':>7}{'but maths':>11}  page")
    with serve() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_browser(), args=["--no-sandbox"]
        )
        for file in sorted(SITE.glob("book/**/*.html")):
            context = browser.new_context()
            name = file.relative_to(SITE).as_posix()
            whole, rest = split(weigh(context.new_page(), f"{address}/{name}"))
            heavy |= whole > BUDGET or rest > BUDGET_BUT_MATHS
            print(f"{whole / 1000:7.0f}{rest / 1000:11.0f}  {name}")
            context.close()
    sys.exit(heavy)


if __name__ == "__main__":
    main()
