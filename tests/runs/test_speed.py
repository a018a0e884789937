"""The measurements of speed: each loop trains as it says, the clock counts steps."""

import platform
import subprocess
import sys

import pytest
import torch

import helpers
from runs import speed
from support import cifar10, download, files
from taught import memory, resnet, training
from taught import speed as lesson


@pytest.fixture
def model():
    torch.manual_seed(0)
    return resnet.build_model("resnet8")


def test_plain_loader_gives_augmented_normalised_batches(sample):
    x, y = next(iter(lesson.plain_loader(sample.train.images, sample.train.labels, 64)))
    assert x.shape == (64, 3, 32, 32) and x.dtype == torch.float32
    assert x.mean().abs() < 0.5 and 0.7 < x.std() < 1.3 and len(y.unique()) > 5
    dataset = lesson.plain_loader(sample.train.images, sample.train.labels).dataset
    torch.manual_seed(0)
    one, other = dataset[3][0], dataset[3][0]
    assert not torch.equal(one, other)


def test_both_loops_train_and_time_the_steps_asked_for(sample, model, monkeypatch):
    steps = []  # the clock counts them
    model.register_forward_pre_hook(lambda *_: steps.append(1))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: len(steps))
    before = model.conv1.weight.detach().clone()
    loader = lesson.plain_loader(sample.train.images, sample.train.labels, 20)
    assert speed.plain_seconds(model, loader, batches=2, skip=1) == 2
    after = model.conv1.weight.detach().clone()
    assert not torch.equal(before, after)

    steps.clear()
    recipe = training.Recipe(epochs=1, batch_size=20)
    data = cifar10.to_tensors(sample.train)
    assert speed.our_seconds(model, data, recipe, batches=2, skip=1) == 2
    assert len(steps) == 3 and not torch.equal(after, model.conv1.weight)


def test_too_few_images_are_refused(sample, model):
    loader = lesson.plain_loader(sample.train.images, sample.train.labels, 1_000)
    with pytest.raises(ValueError, match="fewer than 5 batches"):
        speed.plain_seconds(model, loader, batches=4, skip=1)


def test_matrix_rate_counts_two_operations_a_multiply_add(monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr(lesson.time, "perf_counter", lambda: next(ticks))
    assert lesson.matrix_rate(torch.float32, size=8) == 2 * 8**3
    assert next(ticks) == 4  # two products of a second each are enough


def test_measurement_runs_in_a_process_of_its_own_and_names_its_fault():
    assert speed.apart("matrix", "float32") > 1e8
    with pytest.raises(RuntimeError, match="no_such_type"):
        speed.apart("matrix", "no_such_type")


def test_loops_have_one_switch_more_each_and_train(sample, monkeypatch):
    """All but the compiled one, which would take a minute."""
    monkeypatch.setattr(download, "load_full", lambda: sample)
    monkeypatch.setattr(speed, "BATCHES", {"resnet8": 2})
    monkeypatch.setattr(speed, "SKIP", 1)
    kept, in_bf16 = [], []
    monkeypatch.setattr(speed, "keep_freed_memory", lambda: kept.append(1))
    monkeypatch.setattr(speed, "train_in_bf16", lambda model: in_bf16.append(1))
    for loop in speed.LOOPS[:-1]:
        assert speed.images_per_second("resnet8", loop, batch_size=20) > 0
    assert len(kept) == 1 and len(in_bf16) == 2


def test_recorded_loops_are_those_of_the_program():
    record = helpers.read_record("speed")
    assert list(record["images_per_second"]) == list(speed.BATCHES)
    for speeds in record["images_per_second"].values():
        assert list(speeds) == list(speed.LOOPS)
        assert len({len(rounds) for rounds in speeds.values()}) == 1
        # bfloat16 halves the memory and, here, doubles the arithmetic.
        assert max(speeds["bfloat16"]) > 1.3 * max(speeds["channels last"])


def test_options_are_told():
    command = [sys.executable, "-m", "runs.speed", "--help"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=files.BOOK
    )
    assert "--rounds" in done.stdout and "workers" in done.stdout


def test_freed_memory_is_kept_where_glibc_is(monkeypatch):
    assert memory.keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert not memory.keep_freed_memory()
