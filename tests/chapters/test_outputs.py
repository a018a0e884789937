"""Outputs: made from what a notebook reads, and stale when that has changed."""

import json

import nbformat
import outputs
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from notebooks import APPENDICES, BOOK, CHAPTERS, EXERCISES

each_notebook = pytest.mark.parametrize(
    "path",
    CHAPTERS + EXERCISES + APPENDICES,
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)


@each_notebook
def test_stored_outputs_are_fresh(path):
    notebook = nbformat.read(path, 4)
    assert notebook.metadata["made_from"] == outputs.checksum(notebook), (
        "run `make outputs`"
    )


@each_notebook
def test_notebook_lists_what_it_reads(path):
    reads = json.loads(path.read_text("utf-8"))["metadata"]["reads"]
    assert {"helpers.py", "support/files.py"} <= set(reads)
    assert all((BOOK / name).exists() for name in reads)


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book of one module, one record, and another module that nobody reads."""
    monkeypatch.setattr(outputs, "BOOK", tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "run.json").write_text("{}")
    (tmp_path / "used.py").write_text("x = 1  # a comment\n")
    (tmp_path / "other.py").write_text("y = 1\n")
    return tmp_path


def checksum(source="import used"):
    cell = new_code_cell(source, id="one")
    reads = ["used.py", "results/run.json"]
    return outputs.checksum(new_notebook(cells=[cell], metadata={"reads": reads}))


def test_what_it_reads_makes_a_notebook_stale_and_nothing_else_does(book):
    before = checksum()
    (book / "other.py").write_text("y = 2\n")
    (book / "used.py").write_text("x = 1  # another comment\n")
    assert checksum() == before
    (book / "used.py").write_text("x = 2\n")
    changed = checksum()
    assert changed != before
    (book / "results" / "run.json").write_text('{"a": 1}')
    assert checksum() != changed
    assert checksum("import used, sys") != checksum()
    (book / "used.py").unlink()
    assert checksum() not in (before, changed)


def test_a_run_notes_the_modules_and_records_that_it_read():
    source = (
        "from taught import memory\nimport helpers\nhelpers.read_record('speed')\n"
        "_ = helpers.load_tensors(helpers.RESULTS / 'resnet8-0.safetensors')"
    )
    notebook = outputs.execute(new_notebook(cells=[new_code_cell(source)]), BOOK)
    reads = notebook.metadata["reads"]
    assert {"helpers.py", "taught/memory.py", "support/files.py"} <= set(reads)
    assert {"results/speed.json", "results/resnet8-0.safetensors"} <= set(reads)
    assert "taught/scratch.py" not in reads and "results/mlp.json" not in reads


def test_seconds_of_a_chapter_follow_its_run_but_not_every_breath_of_the_machine():
    notebook = new_notebook(metadata={"book": {"seconds": 40}})
    for seconds, expected in ((38, 40), (43, 40), (47, 50), (49, 50), (31, 35)):
        outputs.keep_seconds(notebook, seconds)
        assert notebook.metadata["book"]["seconds"] == expected, seconds
