"""The net itself: what must turn the tests of notebooks and the build red, does."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]


def run(*words, cwd):
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


# ---------------------------------------------------------------- notebooks


def small_notebook():
    """Two cells as `make outputs` stores them: one prints, one draws."""
    first = new_code_cell(
        "import helpers\nprint('mode', helpers.mode())",
        execution_count=1,
        outputs=[
            nbformat.v4.new_output("stream", name="stdout", text="mode reduced\n")
        ],
    )
    second = new_code_cell(
        "1 + 1",
        execution_count=2,
        outputs=[
            nbformat.v4.new_output(
                "execute_result", {"text/plain": "2"}, execution_count=2
            )
        ],
    )
    return new_notebook(cells=[new_markdown_cell("# Small"), first, second])


def nbval(folder, change=None):
    """Run the book's notebook command on one small notebook, changed or not."""
    notebook = small_notebook()
    if change:
        change(notebook.cells)
    (folder / "book").mkdir()
    nbformat.write(notebook, folder / "book" / "01_small.ipynb")
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("helpers.py", "cifar10.py", "workers.py"):
        shutil.copy(ROOT / "book" / name, folder / "book")
    words = re.search(r"python -m (pytest --nbval .*)", (ROOT / "Makefile").read_text())
    return run("-m", *words.group(1).split(), cwd=folder)


def test_sound_notebook_is_green(tmp_path):
    result = nbval(tmp_path)
    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout


def changed_output(cells):
    cells[1].outputs[0].text = "mode full\n"


def stripped_output(cells):
    cells[2].outputs = []


def broken_cell(cells):
    cells[1].source = "import helpers\nprint('mode', helpers.no_such_thing())"


@pytest.mark.parametrize("change", [changed_output, stripped_output, broken_cell])
def test_damaged_notebook_is_red(tmp_path, change):
    result = nbval(tmp_path, change)
    assert result.returncode == 1, result.stdout
    assert "1 failed, 1 passed" in result.stdout


def test_fully_stripped_notebook_is_red(tmp_path):
    """nbval passes a cell without a count over; the test of the form does not."""
    shutil.copytree(ROOT / "tests", tmp_path / "tests")
    shutil.copytree(
        ROOT / "book", tmp_path / "book", ignore=shutil.ignore_patterns("*.safetensors")
    )
    for name in ("conftest.py", "pyproject.toml", "_toc.yml", "_config.yml"):
        shutil.copy(ROOT / name, tmp_path)
    path = next(tmp_path.glob("book/[0-9]*.ipynb"))
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)
    result = run(
        "-m", "pytest", "tests/test_notebooks.py", "-k", "run_in", cwd=tmp_path
    )
    assert result.returncode == 1, result.stdout
    assert "1 failed" in result.stdout


# ---------------------------------------------------------------- the build


def build(folder, change):
    """Build a copy of the book's text with the book's command, changed first."""
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "book", folder / "book")
    change(folder / "book")
    words = re.search(r"jupyter-book (build .*)", (ROOT / "Makefile").read_text())
    code = "from jupyter_book.cli.main import main; main()"
    return run("-c", code, *words.group(1).split(), cwd=folder)


def append(file, text):
    def change(book):
        path = book / file
        path.write_text(path.read_text("utf-8") + text, "utf-8")

    return change


def broken_link_in_a_chapter(book):
    path = next(book.glob("[0-9]*.ipynb"))
    notebook = json.loads(path.read_text("utf-8"))
    notebook["cells"][0]["source"] += ["\n\nSee [nothing](99_nothing.ipynb)."]
    path.write_text(json.dumps(notebook), "utf-8")


@pytest.mark.parametrize(
    "change, cause",
    [
        (broken_link_in_a_chapter, "99_nothing"),
        (append("index.md", "\n{cite}`nobody1999`\n"), "nobody1999"),
        (append("index.md", "\n```{image} _static/none.png\n```\n"), "none.png"),
    ],
    ids=["link", "citation", "picture"],
)
def test_broken_reference_fails_the_build(tmp_path, change, cause):
    result = build(tmp_path, change)
    assert result.returncode != 0
    assert cause in result.stderr
