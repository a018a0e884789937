"""Run the notebooks whose outputs are stale and store the new outputs with small diffs.

    python book/_tools/outputs.py [--all] [NOTEBOOK ...]

Outputs are stale when they, a code cell, a module, the sample or a record have changed
since they were made: their common checksum is kept in the notebook's metadata.
"""

import argparse
import ast
import base64
import hashlib
import io
import json
import os
import sys
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient
from nbclient.exceptions import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)
from PIL import Image

BOOK = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BOOK))

import helpers  # noqa: E402


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
        try:
            after = execute(before, path.resolve().parent)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as problem:
            print(f"{path.name}: left as it was, a cell failed\n{problem}")
            failed = True
            continue
        if path.read_bytes() != bytes_before:
            print(f"{path.name}: left as it is, it was edited meanwhile")
            failed = True
            continue
        keep_equal_pictures(before, after)
        after.metadata["made_from"] = checksum(after)
        write(after, path)
    sys.exit(failed)


def notebooks() -> list[Path]:
    """Return the chapters and exercises in the order of their names."""
    found = [*BOOK.glob("*.ipynb"), *BOOK.glob("exercises/*.ipynb")]
    return sorted(found)


def checksum(notebook: nbformat.NotebookNode) -> str:
    """Return a short SHA-256 of the outputs and of all that they depend on."""
    sha = hashlib.sha256()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = [cell.source, cell.execution_count, cell.outputs]
            sha.update(json.dumps(shown, sort_keys=True).encode())
    for module in sorted(BOOK.glob("*.py")):
        sha.update(ast.dump(ast.parse(module.read_text("utf-8"))).encode())
    for file in sorted([*BOOK.glob("data/*.json"), *BOOK.glob("results/*.json")]):
        sha.update(file.read_bytes())
    return sha.hexdigest()[:16]


def execute(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Run a copy in a fresh kernel that starts in `folder`."""
    copy = nbformat.from_dict(json.loads(json.dumps(notebook)))
    client = NotebookClient(
        copy,
        timeout=1200,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
    )
    client.execute()
    copy.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    return copy


def keep_equal_pictures(before, after) -> None:
    """Keep an old picture where the new one has the same pixels but other bytes."""
    old = {cell.id: cell for cell in before.cells}
    for cell in after.cells:
        if cell.cell_type != "code" or cell.id not in old:
            continue
        for new, former in zip(cell.outputs, old[cell.id].get("outputs", [])):
            pictures = [o.get("data", {}).get("image/png") for o in (new, former)]
            if all(pictures) and np.array_equal(*map(pixels, pictures)):
                new["data"]["image/png"] = former["data"]["image/png"]


def pixels(picture: str) -> np.ndarray:
    """Decode a base64 PNG to an array of pixels."""
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        return np.asarray(image.convert("RGBA"))


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write the notebook as JupyterLab does: one space, no escapes, a last newline."""
    nbformat.validate(notebook)
    text = json.dumps(
        nbformat.v4.rwbase.split_lines(notebook), indent=1, ensure_ascii=False
    )
    helpers.write_whole(path, lambda part: part.write_text(text + "\n", "utf-8"))


if __name__ == "__main__":
    main()
