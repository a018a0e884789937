"""The benchmark: each loop trains as it says, and the times are those of the steps."""

import json
import re
import subprocess
import sys

import pytest
import torch

import benchmark
import helpers
import resnet


@pytest.fixture
def model():
    torch.manual_seed(0)
    return resnet.build_model("resnet8")


def test_plain_loader_gives_augmented_normalised_batches(sample):
    x, y = next(iter(benchmark.plain_loader(sample.train, batch_size=64)))
    assert x.shape == (64, 3, 32, 32) and x.dtype == torch.float32
    assert x.mean().abs() < 0.5 and 0.7 < x.std() < 1.3 and len(y.unique()) > 5
    dataset = benchmark.plain_loader(sample.train).dataset
    torch.manual_seed(0)
    one, other = dataset[3][0], dataset[3][0]
    assert not torch.equal(one, other)


def test_both_loops_train_and_time_the_steps_asked_for(sample, model, monkeypatch):
    steps = []  # the clock counts them
    model.register_forward_pre_hook(lambda *_: steps.append(1))
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: len(steps))
    before = model.conv1.weight.detach().clone()
    loader = benchmark.plain_loader(sample.train, 20)
    assert benchmark.plain_seconds(model, loader, batches=2, skip=1) == 2
    after = model.conv1.weight.detach().clone()
    assert not torch.equal(before, after)

    seen = []
    train_epoch = helpers.train_epoch

    def note(model, images, *arguments):
        seen.append(len(images))
        return train_epoch(model, images, *arguments)

    monkeypatch.setattr(helpers, "train_epoch", note)
    recipe = helpers.Recipe(epochs=1, batch_size=20)
    data = helpers.to_tensors(sample.train)
    assert benchmark.our_seconds(model, data, recipe, batches=2, skip=1) == 2
    assert seen == [20, 40] and not torch.equal(after, model.conv1.weight)


def test_too_few_images_are_refused(sample, model):
    loader = benchmark.plain_loader(sample.train, 1_000)
    with pytest.raises(ValueError, match="fewer than 5 batches"):
        benchmark.plain_seconds(model, loader, batches=4, skip=1)


def test_matrix_rate_counts_two_operations_a_multiply_add(monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(ticks))
    assert benchmark.matrix_rate(torch.float32, size=8) == 2 * 8**3
    assert next(ticks) == 4  # two products of a second each are enough


def test_measurement_runs_in_a_process_of_its_own_and_names_its_fault():
    assert benchmark.measure("--one", "matrix", "float32") > 1e8
    with pytest.raises(RuntimeError, match="no_such_type"):
        benchmark.measure("--one", "matrix", "no_such_type", processes=2)


def test_recorded_steps_are_those_of_the_benchmark():
    record = helpers.read_record("speed")
    for speeds in record["images_per_second"].values():
        assert list(speeds) == list(benchmark.STEPS)
        assert len({len(rounds) for rounds in speeds.values()}) == 1
        # bfloat16 halves the memory and, here, doubles the arithmetic.
        assert max(speeds["bfloat16"]) > 1.3 * max(speeds["channels last"])
    card = (helpers.RESULTS / "README.md").read_text("utf-8")
    for step in benchmark.STEPS:
        best = [max(record["images_per_second"][n][step]) for n in benchmark.BATCHES]
        numbers = rf"\| {best[0]:,.0f} \| {best[1]:,.0f} \|"
        assert re.search(rf"^\| {step}.* {numbers}$", card, re.MULTILINE), step


def test_options_are_told():
    command = [sys.executable, benchmark.__file__, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--rounds" in done.stdout and json.dumps("--one") not in done.stdout
