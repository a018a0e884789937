"""What every chapter calls: the mode, the setup, the devices, records and pictures."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import helpers


def test_unknown_mode_names_both(monkeypatch):
    monkeypatch.setenv("BOOK_MODE", "fast")
    with pytest.raises(ValueError, match="'fast': use 'reduced' or 'full'"):
        helpers.mode()


def test_reduced_is_the_default(monkeypatch):
    monkeypatch.delenv("BOOK_MODE")
    assert helpers.mode() == "reduced"
    assert helpers.by_mode(reduced=1, full=2) == 1
    monkeypatch.setenv("BOOK_MODE", "full")
    assert helpers.by_mode(reduced=1, full=2) == 2


def test_setup_seeds_pins_threads_and_says_the_mode(capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # where two kernels run side by side
    helpers.setup()
    assert torch.get_num_threads() == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    helpers.setup(seed=3)
    assert torch.get_num_threads() == 2
    assert "Reduced mode" in capsys.readouterr().out
    drawn = torch.rand(1), np.random.rand()
    helpers.setup(seed=3)
    assert (torch.rand(1), np.random.rand()) == drawn


def test_unknown_device_says_what_there_is():
    with pytest.raises(ValueError, match="no device 'abacus' here: use .*cpu"):
        helpers.choose_device("abacus")
    assert helpers.choose_device("cpu").type == "cpu"


def test_record_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(helpers, "RESULTS", tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"name": "run"}))
    assert helpers.read_record("run") == {"name": "run"}


def test_image_grid_shows_the_pixels_and_titles(sample, monkeypatch):
    helpers.use_book_style()
    monkeypatch.setattr(plt, "show", lambda: None)
    helpers.show_images(sample.train.images[:7], list("abcdefg"), columns=5, title="T")
    axes = plt.gcf().axes
    assert len(axes) == 10 and plt.gcf().get_suptitle() == "T"
    assert [axis.get_title() for axis in axes[:7]] == list("abcdefg")
    shown = axes[6].images[0]
    assert (np.asarray(shown.get_array()) == sample.train.images[6]).all()
    assert shown.get_interpolation() == "none"
    assert not axes[7].images
    plt.close("all")


def test_curves_are_labelled_at_their_ends():
    helpers.plot_curves({"a": [1, 2, 3], "b": [3, 2]}, "title", "loss")
    axis = plt.gca()
    assert [line.get_xdata().tolist() for line in axis.lines] == [[1, 2, 3], [1, 2]]
    assert [(t.get_text(), t.xy) for t in axis.texts] == [("a", (3, 3)), ("b", (2, 2))]
    assert (axis.get_title("left"), axis.get_ylabel()) == ("title", "loss")
    plt.close("all")
