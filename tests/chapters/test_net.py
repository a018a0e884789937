"""The net itself: what must turn the tests of notebooks and the build red, does."""

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
    shutil.copy(ROOT / "book" / "helpers.py", folder / "book")
    shutil.copytree(ROOT / "book" / "support", folder / "book" / "support")
    return run(*["-m", "pytest", "--nbval", "--nbval-current-env", "book"], cwd=folder)


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
        "-m", "pytest", "tests/chapters/test_form.py", "-k", "run_in", cwd=tmp_path
    )
    assert result.returncode == 1, result.stdout
    assert "1 failed" in result.stdout
