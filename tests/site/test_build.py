"""The build itself: what must turn it red, does."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from notebooks import CHAPTERS, read, source

ROOT = Path(__file__).resolve().parents[2]

CONTENTS = """
format: jb-book
root: book/index
chapters:
  - file: book/01_small
  - file: book/references
"""
SMALL = "# Small\n\nA small page, with a sentence that says what stands on it."
PAGE = """# A small book

{cite}`he2016` stands in the [references](references.md).

```{image} _static/cover.webp
:alt: Test images of CIFAR-10, ordered by how sure the network is of them.
```
"""


@pytest.fixture
def small_book(tmp_path):
    """A book of three pages with the settings of this one."""
    book = tmp_path / "book"
    book.mkdir()
    shutil.copy(ROOT / "_config.yml", tmp_path)
    (tmp_path / "_toc.yml").write_text(CONTENTS, "utf-8")
    (book / "index.md").write_text(PAGE, "utf-8")
    shutil.copy(ROOT / "book/appendix/references.md", book)
    for name in ("references.bib", "helpers.py"):
        shutil.copy(ROOT / "book" / name, book)
    for name in ("_static", "_tools", "support", "taught", "data"):
        shutil.copytree(ROOT / "book" / name, book / name)
    (book / "exercises").mkdir()
    text = {"cell_type": "markdown", "metadata": {}, "id": "title", "source": SMALL}
    notebook = {"cells": [text], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (book / "01_small.ipynb").write_text(json.dumps(notebook), "utf-8")
    return tmp_path


def build(folder):
    """Build with the command of the Makefile."""
    words = re.search(r"jupyter-book (build .*)", (ROOT / "Makefile").read_text())
    code = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", code, *words.group(1).split()]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_sound_book_is_built(small_book):
    result = build(small_book)
    assert result.returncode == 0, result.stderr


def test_broken_references_fail_the_build(small_book):
    """A link in a notebook, a citation, a picture: each is named."""
    path = small_book / "book/01_small.ipynb"
    broken = "on [it](99_nothing.ipynb)."
    path.write_text(path.read_text("utf-8").replace("on it.", broken), "utf-8")
    page = small_book / "book/index.md"
    more = "\n{cite}`nobody1999`\n\n```{image} _static/none.png\n```\n"
    page.write_text(page.read_text("utf-8") + more, "utf-8")
    result = build(small_book)
    assert result.returncode != 0
    for cause in ("99_nothing", "nobody1999", "none.png"):
        assert cause in result.stderr, cause


def test_wrong_formula_fails_the_build(small_book):
    path = small_book / "book/01_small.ipynb"
    wrong = r"on $\frac{1$ it."
    path.write_text(path.read_text("utf-8").replace("on it.", json.dumps(wrong)[1:-1]))
    result = build(small_book)
    assert result.returncode != 0
    assert "KaTeX parse error" in result.stderr


@pytest.mark.slow
def test_pdf_and_epub_hold_the_whole_book(chromium, tmp_path):
    import ebooks
    from pypdf import PdfReader

    ebooks.main(tmp_path)
    printed = PdfReader(tmp_path / f"{ebooks.NAME}.pdf")
    assert len(printed.pages) > 200 and printed.outline
    text = "".join(page.extract_text() for page in printed.pages)
    with zipfile.ZipFile(tmp_path / f"{ebooks.NAME}.epub") as packed:
        names = packed.namelist()
    for path in CHAPTERS:
        title = source(read(path)[0]).splitlines()[0].removeprefix("# ")
        assert title in text
        assert any(name.endswith(f"{path.stem}.xhtml") for name in names)
    assert "\\frac" not in text and "\\tag" not in text
