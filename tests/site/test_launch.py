"""The chapters where readers run them: a simulated Colab, and a real JupyterLab."""

import ast
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from notebooks import (
    APPENDICES,
    BOOK,
    CHAPTERS,
    EXERCISES,
    MODULES,
    code,
    pictures,
    source,
)

# What the chapters may count on there; its images are renewed several times a year.
COLAB = {"IPython", "PIL", "matplotlib", "numpy", "safetensors", "scipy", "seaborn"} | {
    "sklearn", "torch", "torchvision", "tqdm", "ipywidgets", "matplotlib_inline"
}  # fmt: skip
OURS = {"helpers", "taught", "support", "runs"}
THERE = COLAB | OURS | sys.stdlib_module_names
QUICK = BOOK / "02_neural_network.ipynb"


def needed(text):
    """The packages that a source text imports and cannot do without."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Try):  # it knows what to do without
            for inner in ast.walk(node):
                inner.names, inner.module = [], None
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


NOTEBOOKS = CHAPTERS + EXERCISES + APPENDICES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_needs_no_package_that_colab_lacks(path):
    lines = [source(cell) for cell in code(path)]
    assert needed("\n".join(lines)) <= THERE


@pytest.mark.parametrize("name", MODULES)
def test_module_needs_no_package_that_colab_lacks(name):
    text = (BOOK / f"{name.replace('.', '/')}.py").read_text("utf-8")
    assert needed(text) <= THERE


def test_a_package_that_colab_lacks_is_found():
    assert needed("import nbval.plugin\nfrom optuna import trial") == {
        "nbval",
        "optuna",
    }
    assert needed("try:\n    import optuna\nexcept ImportError:\n    pass") == set()


def copy_book(folder):
    skip = shutil.ignore_patterns(
        "__pycache__", ".runs", ".ipynb_checkpoints", "*.part", "*.checkpoint"
    )
    shutil.copytree(BOOK, folder, ignore=skip)


@pytest.fixture
def colab(tmp_path):
    """An empty folder, the environment of a machine like Colab's, and its /content."""
    repository = tmp_path / "repository"
    copy_book(repository / "book")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", repository]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "book"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    site = tmp_path / "site"
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").touch()
    requirements = (BOOK.parent / "requirements.txt").read_text("utf-8")
    absent = set(re.findall(r"^[a-z][\w-]*", requirements, flags=re.M)) - COLAB
    absent = {name.replace("-", "_") for name in absent}
    (site / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({sorted(absent)}))\n"
    )
    address = re.search(r'"(https://github.com/[^"]+)"', source(code(QUICK)[0])).group(
        1
    )
    empty = tmp_path / "sample_data"
    empty.mkdir()
    environment = os.environ | {
        "PYTHONPATH": str(site),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": address,
    }
    return empty, environment, tmp_path / "content"


def test_chapter_runs_in_a_simulated_colab(colab, monkeypatch):
    folder, environment, content = colab
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(QUICK, as_version=4)
    setup = notebook.cells[1]
    setup.source = setup.source.replace("/content", str(content))
    where = "import helpers; print(helpers.__file__)"
    again = [new_code_cell(setup.source), new_code_cell(where)]
    notebook.cells = [new_code_cell("import google.colab"), *notebook.cells, *again]
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, resources=resources).execute()
    place = notebook.cells[-1].outputs[0].text.strip()
    assert Path(place) == content / "resnet-book" / "book" / "helpers.py"
    assert any(pictures(cell) for cell in notebook.cells)


@pytest.mark.slow
def test_simulated_colab_lacks_what_the_book_needs_for_its_tests(colab):
    _, environment, _ = colab
    command = [sys.executable, "-c", "import google.colab, torch; import nbval"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "import of nbval halted" in done.stderr


# ---------------------------------------------------------------- JupyterLab


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab of its own on a copy of the book; its address and its folder."""
    folder = tmp_path / "book"
    copy_book(folder)
    home = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "HOME")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    settings = [
        "--IdentityProvider.token=",
        "--ServerApp.port=0",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    log = tmp_path / "lab.log"
    with open(log, "w") as file:
        server = subprocess.Popen(
            [*command, *settings], cwd=folder, env=os.environ | home, stderr=file
        )
    for _ in range(300):
        found = re.search(r"http://(?:localhost|127\.0\.0\.1):(\d+)/", log.read_text())
        if found:
            break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{found.group(1)}", folder
    server.terminate()
    server.wait(20)


def test_chapter_runs_in_jupyterlab(lab, browser):
    address, folder = lab
    copy = folder / QUICK.name
    notebook = nbformat.read(copy, as_version=4)
    for cell in notebook.cells:  # so that what is there afterwards was made here
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, copy)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{address}/lab/tree/{QUICK.name}")
    page.locator(".jp-Notebook h1").first.wait_for(timeout=60_000)
    page.get_by_text("| Idle").wait_for(timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    last = len(code(QUICK))
    done = re.compile(rf"^\[{last}\]:$")
    page.get_by_text(done).wait_for(timeout=120_000)
    page.keyboard.press("Control+s")
    page.locator(".jp-RenderedSVG").last.wait_for()
    for _ in range(100):
        with suppress(nbformat.reader.NotJSONError):  # it is being written
            run = nbformat.read(copy, as_version=4)
            counts = [c.execution_count for c in run.cells if c.cell_type == "code"]
            if counts == list(range(1, last + 1)):
                break
        time.sleep(0.1)
    page.close()
    assert counts == list(range(1, last + 1))
    outputs = [o for c in run.cells for o in c.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error"]
    stored = nbformat.read(QUICK, as_version=4)
    count = [sum(len(pictures(c)) for c in n.cells) for n in (run, stored)]
    assert count[0] == count[1] > 0
