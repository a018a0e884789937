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


def changed_output(cells):
    cells[1].outputs[0].text = "mode full\n"


def stripped_output(cells):
    cells[2].outputs = []


def broken_cell(cells):
    cells[1].source = "import helpers\nprint('mode', helpers.no_such_thing())"


def sound(cells):
    pass


DAMAGES = (sound, changed_output, stripped_output, broken_cell)


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """What the book's notebook command says of small notebooks, damaged and sound."""
    folder = tmp_path_factory.mktemp("net")
    (folder / "book").mkdir()
    for change in DAMAGES:
        notebook = small_notebook()
        change(notebook.cells)
        nbformat.write(notebook, folder / "book" / f"{change.__name__}.ipynb")
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copy(ROOT / "book" / "helpers.py", folder / "book")
    shutil.copytree(ROOT / "book" / "support", folder / "book" / "support")
    words = ["-m", "pytest", "--nbval", "--nbval-current-env", "book"]
    result = run(*words, cwd=folder)
    assert result.returncode == 1 and "3 failed, 5 passed" in result.stdout
    return result.stdout


@pytest.mark.parametrize("change", DAMAGES[1:])
def test_damaged_notebook_is_red(verdicts, change):
    assert f"FAILED book/{change.__name__}.ipynb::Cell" in verdicts


def test_sound_notebook_is_green(verdicts):
    assert "FAILED book/sound.ipynb" not in verdicts


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
