"""Make one EPUB and one PDF of the whole book, by Sphinx's own builders.

    python book/_tools/ebooks.py FOLDER

Chromium prints the PDF from the book as a single page. The site that is built after
this offers both at its foot.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import page_weight
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
NAME = "resnets-from-scratch"
PAPER = {"format": "A4", "tagged": True, "outline": True}
MARGIN = {"top": "18mm", "bottom": "18mm", "left": "16mm", "right": "16mm"}


def main(folder: Path) -> None:
    """Write both books into `folder`; RuntimeError if Chromium is missing."""
    browser = page_weight.find_browser()
    if browser is None:
        raise RuntimeError("Chromium is missing: sudo apt install chromium")
    parts = folder / "parts"
    for builder in ("epub", "singlehtml"):
        command = "from jupyter_book.cli.main import main; main()"
        words = ["build", ".", "-W", "-n", "--keep-going", "--path-output", str(parts)]
        words += ["--builder", "custom", "--custom-builder", builder]
        subprocess.run([sys.executable, "-c", command, *words], cwd=ROOT, check=True)
    shutil.copy(parts / "_build" / "epub" / f"{NAME}.epub", folder)
    page = parts / "_build" / "singlehtml" / "book" / "index.html"
    whole = page.parent.parent / "whole.html"  # from where its links are right
    shutil.copy(page, whole)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=browser, args=["--no-sandbox"]
        )
        sheet = chromium.new_page()
        sheet.set_default_timeout(600_000)
        sheet.goto(whole.as_uri())
        page_weight.read_on(sheet)  # pictures come late
        sheet.pdf(path=folder / f"{NAME}.pdf", margin=MARGIN, **PAPER)
    shutil.rmtree(parts)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]).resolve())
    except RuntimeError as problem:
        sys.exit(f"No PDF: {problem}")
    print(f"The books lie in {sys.argv[1]}")
