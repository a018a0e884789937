"""Slides of the chapters: what a class looks at, with the prose as speaker's notes.

    python book/_tools/slides.py FOLDER

nbconvert makes them from the slide types in the notebooks' metadata; what the pages
need lies beside them, so that they work without network.
"""

import re
import shutil
import sys
from pathlib import Path

import nbformat
import packages
from nbconvert.exporters import SlidesExporter

BOOK = Path(__file__).resolve().parent.parent
CHAPTERS = sorted(BOOK.glob("[0-9][0-9]_*.ipynb"))


def write_slides(folder: Path) -> None:
    """Write the slides of all chapters, and what they need, into `folder`.

    Raises RuntimeError if npm cannot fetch reveal.js or KaTeX.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(packages.dist("reveal.js"), folder / "reveal" / "dist")
    shutil.copytree(packages.dist("katex"), folder / "katex")
    exporter = SlidesExporter(
        template_name="slides",
        extra_template_basedirs=[str(BOOK / "_tools")],
        reveal_url_prefix="reveal",
        reveal_theme="white",
        exclude_anchor_links=True,
    )
    for path in CHAPTERS:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if shows_picture(cell):  # how it is drawn stands in the book
                cell.metadata["transient"] = {"remove_source": True}
        title = notebook.cells[0].source.splitlines()[0].removeprefix("# ")
        text, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}})
        (folder / f"{path.stem}.slides.html").write_text(relink(text), "utf-8")


def shows_picture(cell) -> bool:
    """Whether a cell's outputs hold a figure."""
    return any("image/svg+xml" in o.get("data", {}) for o in cell.get("outputs", []))


def relink(text: str) -> str:
    """Return slides whose links lead to other slides, or are no links."""
    text = re.sub(r'href="(\d\d_\w+)\.ipynb[^"]*"', r'href="\1.slides.html"', text)
    other = r'<a href="(?![a-z]+:|#|\d\d_\w+\.slides)[^"]*">(.*?)</a>'
    return re.sub(other, r"\1", text)


if __name__ == "__main__":
    try:
        write_slides(Path(sys.argv[1]))
    except RuntimeError as problem:
        sys.exit(f"No slides: {problem}")
    print(f"Open {sys.argv[1]}/{CHAPTERS[0].stem}.slides.html; S shows the notes")
