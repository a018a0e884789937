"""Run the notebooks whose outputs are stale and store the new outputs with small diffs.

    python book/_tools/outputs.py [--all] [NOTEBOOK ...]

Outputs are stale when they, a code cell, or a file of the book that the notebook reads
(a module, a record, the sample) have changed since they were made. The notebook's
metadata keep the names of these files and the checksum of it all.
"""

import argparse
import ast
import hashlib
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)

BOOK = Path(__file__).resolve().parent.parent
WATCH = Path(__file__).with_name("watch.py")
sys.path.insert(0, str(BOOK))

import facts  # noqa: E402

from support.files import write_whole  # noqa: E402


def main() -> None:
    """Refresh the notebooks named, or all of the book's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--all", action="store_true", help="also those that are fresh")
    options = parser.parse_args()
    # As conftest.py does for the tests, so that they see the same outputs.
    os.environ |= {"BOOK_MODE": "reduced", "TQDM_DISABLE": "1"}
    os.environ.pop("MPLBACKEND", None)
    failed = False
    for path in options.notebooks or notebooks():
        before = nbformat.read(path, 4)
        bytes_before = path.read_bytes()
        if not options.all and before.metadata.get("made_from") == checksum(before):
            print(f"{path.name}: fresh")
            continue
        print(f"{path.name}: running", flush=True)
        start = time.perf_counter()
        try:
            after = execute(before, path.resolve().parent)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as problem:
            print(f"{path.name}: left as it was, a cell failed\n{problem}")
            failed = True
            continue
        keep_seconds(after, time.perf_counter() - start)
        if path.read_bytes() != bytes_before:
            print(f"{path.name}: left as it is, it was edited meanwhile")
            failed = True
            continue
        after.metadata["made_from"] = checksum(after)
        write(after, path)
    for path in facts.refresh():
        print(f"{path.name}: brought up to date")
    sys.exit(failed)


def notebooks() -> list[Path]:
    """Return the chapters, exercises and appendices in the order of their names."""
    return sorted(
        path
        for folder in ("", "exercises", "appendix")
        for path in (BOOK / folder).glob("*.ipynb")
    )


def checksum(notebook: nbformat.NotebookNode) -> str:
    """Return a short SHA-256 of the outputs and of all that they depend on."""
    sha = hashlib.sha256()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = [cell.source, cell.execution_count, cell.outputs]
            sha.update(json.dumps(shown, sort_keys=True).encode())
    for name in notebook.metadata.get("reads", []):
        file = BOOK / name
        content = file.read_bytes() if file.exists() else b""
        if file.suffix == ".py":  # comments and layout change nothing
            content = ast.dump(ast.parse(content)).encode()
        sha.update(name.encode() + content)
    return sha.hexdigest()[:16]


def execute(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Run a copy in a fresh kernel that starts in `folder`."""
    copy = nbformat.from_dict(json.loads(json.dumps(notebook)))
    with tempfile.TemporaryDirectory() as place:
        note = Path(place) / "read"
        note.touch()
        client = NotebookClient(
            copy,
            timeout=1200,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
            store_widget_state=False,
            coalesce_streams=True,
            extra_arguments=[f"--IPKernelApp.exec_files={WATCH}"],
        )
        client.execute(env=os.environ | {"BOOK_READ": str(note)})
        read = note.read_text("utf-8").splitlines()
    copy.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
        "reads": sorted(set(map(source_of, read))),
    }
    if "book" in notebook.metadata:
        copy.metadata["book"] = notebook.metadata["book"]
    return copy


def source_of(file: str) -> str:
    """Return the name, below book/, of a file or of the module that it was made from.

    Python opens `__pycache__/helpers.cpython-311.pyc` and means helpers.py.
    """
    path = Path(file).relative_to(BOOK)
    if path.suffix == ".pyc":
        path = path.parent.parent / f"{path.name.partition('.')[0]}.py"
    return path.as_posix()


def keep_seconds(notebook: nbformat.NotebookNode, seconds: float) -> None:
    """Note how long a chapter runs, where that differs much from what it says."""
    facts_of_chapter = notebook.metadata.get("book")
    if facts_of_chapter:
        known = facts_of_chapter.get("seconds", 0)
        if not 0.8 * known <= seconds <= 1.1 * known:
            facts_of_chapter["seconds"] = 5 * math.ceil(seconds / 5)


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write the notebook as JupyterLab does: one space, no escapes, a last newline."""
    nbformat.validate(notebook)
    text = json.dumps(
        nbformat.v4.rwbase.split_lines(notebook), indent=1, ensure_ascii=False
    )
    write_whole(path, lambda part: part.write_text(text + "\n", "utf-8"))


if __name__ == "__main__":
    main()
