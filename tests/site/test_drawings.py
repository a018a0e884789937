"""The drawings: the files are what the code draws, and say what they show."""

import re

import drawings
import numpy as np
import pytest

from notebooks import CHAPTERS, code, source
from support.figures import DRAWINGS

each_drawing = pytest.mark.parametrize(
    "make", drawings.DRAWN, ids=lambda make: make.__name__
)


@each_drawing
def test_file_is_what_the_code_draws(make, tmp_path, monkeypatch):
    kept = (DRAWINGS / f"{make.__name__}.svg").read_bytes()
    monkeypatch.setattr(drawings, "DRAWINGS", tmp_path / "drawings")
    drawings.main()
    assert (tmp_path / "drawings" / f"{make.__name__}.svg").read_bytes() == kept


def test_every_drawing_is_shown_and_no_other_file_lies_there():
    names = {make.__name__ for make in drawings.DRAWN}
    assert {path.stem for path in DRAWINGS.iterdir()} == names
    text = "\n".join(source(cell) for path in CHAPTERS for cell in code(path))
    assert set(re.findall(r'show_drawing\("(\w+)"\)', text)) == names


def test_the_convolution_is_that_of_chapter_5():
    cells = {cell["id"]: cell for cell in code(CHAPTERS[4])}
    place = {"np": np, "convolve_loops": lambda x, W: np.zeros((1, 5, 5, 1)) + 6}
    text = source(cells["by-hand"]).replace("print(", "(")
    exec(text, place)
    assert (place["picture"] == drawings.PICTURE).all()
    assert (place["kernel"] == drawings.KERNEL).all()
    drawn = drawings.convolution().as_svg()
    printed = "".join(cells["by-hand"]["outputs"][0]["text"])
    for number in re.findall(r"\d+", printed):
        assert f">{number}</text>" in drawn
    assert ">= 6</text>" in drawn
