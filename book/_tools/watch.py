"""Run at the start of a kernel: keeps note of the book's files that a notebook reads.

The note is a file that the environment variable BOOK_READ names; a line a path.
"""

import os
import sys
from pathlib import Path

_book = str(Path(__file__).resolve().parent.parent) + os.sep
_note = Path(os.environ["BOOK_READ"])


def _watch(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        path = os.path.abspath(arguments[0])  # exercises import from ".."
        if path.startswith(_book):
            with _note.open("a", encoding="utf-8") as file:  # lies outside the book
                file.write(f"{path}\n")


sys.addaudithook(_watch)
