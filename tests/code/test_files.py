"""Files that are whole or not there, and what is said of those that do not fit."""

import subprocess
import sys

import pytest
import torch

from support import files
from support.files import TrainingError
from taught import resnet


def test_weights_survive_the_file(tmp_path):
    model = resnet.build_model("resnet8")
    files.save_tensors(tmp_path / "w.safetensors", model.state_dict())
    other = resnet.build_model("resnet8")
    files.load_weights(other, tmp_path / "w.safetensors")
    pairs = zip(model.state_dict().values(), other.state_dict().values())
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop("fc.bias"), "it lacks fc.bias"),
        (
            lambda t: t.update(extra=torch.ones(1)),
            "holds extra, which this model lacks",
        ),
        (
            lambda t: t.update({"fc.weight": torch.ones(7, 64)}),
            r"fc.weight of shape \(7, 64\), and this model needs \(10, 64\)",
        ),
    ],
)
def test_weights_of_another_model_name_what_differs(tmp_path, change, message):
    tensors = dict(resnet.build_model("resnet8").state_dict())
    change(tensors)
    files.save_tensors(tmp_path / "w.safetensors", tensors)
    with pytest.raises(TrainingError, match=message):
        files.load_weights(resnet.build_model("resnet8"), tmp_path / "w.safetensors")


def test_weights_of_another_depth_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    files.save_tensors(path, resnet.build_model("resnet14").state_dict())
    with pytest.raises(TrainingError, match="another model: it holds layer1.1"):
        files.load_weights(resnet.build_model("resnet8"), path)


@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "text"])
def test_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "w.safetensors"
    files.save_tensors(path, resnet.build_model("resnet8").state_dict())
    if damage == "missing":
        path.unlink()
    else:
        cut = {"cut": path.read_bytes()[:1000], "empty": b"", "text": b"hello" * 99}
        path.write_bytes(cut[damage])
    with pytest.raises(TrainingError, match="w.safetensors is missing or damaged"):
        files.load_weights(resnet.build_model("resnet8"), path)


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
sys.path.insert(0, sys.argv[1])
from support import files
from taught import resnet
from pathlib import Path
try:
    files.save_tensors(Path(sys.argv[2]), resnet.build_model("resnet8").state_dict())
except OSError as problem:
    print("refused:", problem)
"""


def test_disk_that_is_full_loses_nothing(tmp_path):
    """A limit on the size of files stands for the full disk: writing fails half-way."""
    path = tmp_path / "w.safetensors"
    path.write_text("what was there")
    book = str(files.BOOK)
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, book, str(path)],
        capture_output=True,
        text=True,
    )
    assert f"refused: {path} cannot be written (" in result.stdout
    assert "make room there" in result.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]
    assert path.read_text() == "what was there"


def test_write_whole_leaves_nothing_when_the_writer_fails(tmp_path):
    path = tmp_path / "new" / "file.txt"

    def fail(part):
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_whole(path, fail)
    assert list(path.parent.iterdir()) == []


def test_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/record.json cannot be written .* room"):
        files.write_json(tmp_path / "file" / "record.json", {})


def test_files_can_be_read_by_others(tmp_path):
    path = tmp_path / "w.safetensors"
    files.save_tensors(path, {"w": torch.ones(1)})
    assert path.stat().st_mode & 0o777 == 0o644


def test_record_without_numbers_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "run.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []
