"""The ablations: each changes one thing, is done once, and is summed up as it was."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

import helpers
from runs import ablations, comparison
from runs.recipe import FullRecipe
from support import cifar10, download
from taught import resnet


@pytest.fixture
def handed(monkeypatch):
    """What `fit` would have trained: model and recipe of each call."""
    calls = []

    def fit(model, images, recipe, **others):
        calls.append((model, recipe))
        return [{"accuracy": 0.25, "loss": 2.0}]

    monkeypatch.setattr(ablations, "fit", fit)
    return calls


def differences(one, other):
    return {name for name, value in asdict(one).items() if value != asdict(other)[name]}


def test_whole_recipe_is_that_of_the_full_run(handed, few):
    ablations.train_variant(ablations.WHOLE, few, epochs=4, seed=0)
    record = helpers.read_record("resnet20")
    (model, recipe), full = handed[0], FullRecipe(**record["recipe"])
    assert differences(recipe, full) <= {"epochs", "bf16"} and recipe.epochs == 4
    assert model.shortcut == record["shortcut"]
    assert resnet.count_parameters(model) == record["parameters"]


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("no augmentation", {"augment": False}),
        ("no batch normalisation", {}),
        ("no shortcut", {}),
        ("constant rate", {"fall": False}),
        ("Adam", {"optimizer": "adam"}),
        ("no weight decay", {"weight_decay": 0.0}),
        ("no label smoothing", {"label_smoothing": 0.0}),
    ],
)
def test_variant_changes_one_thing(handed, few, variant, expected):
    for name in (ablations.WHOLE, variant):
        ablations.train_variant(name, few, epochs=4, seed=2)
    (whole, recipe), (model, changed) = handed
    assert differences(recipe, changed) == set(expected)
    assert all(getattr(changed, name) == value for name, value in expected.items())
    plain = variant == "no shortcut"
    assert model.shortcut == ("none" if plain else whole.shortcut)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert bool(norms) == (variant != "no batch normalisation")
    for name, weight in whole.named_parameters():
        if weight.ndim > 1:  # the start is the same
            assert torch.equal(weight, model.get_parameter(name)), name


def test_every_variant_is_run_once_with_every_seed():
    jobs = ablations.jobs_to_compare({"Adam": 0.003, "no batch normalisation": 0.01})
    pairs = [(job["variant"], job["seed"]) for job in jobs]
    assert len(set(pairs)) == len(pairs) == 8 * len(ablations.SEEDS)
    rates = {job["variant"]: job["rate"] for job in jobs}
    assert rates.pop("Adam") == 0.003 and rates.pop("no batch normalisation") == 0.01
    assert set(rates.values()) == {None}  # the recipe's
    assert len({comparison._name(job) for job in jobs}) == len(jobs)
    assert all(job["test"] for job in jobs)


def test_rate_and_seed_reach_the_recipe(handed, few):
    ablations.train_variant("Adam", few, epochs=1, seed=7, rate=0.003)
    assert (handed[0][1].peak_rate, handed[0][1].seed) == (0.003, 7)


@pytest.fixture
def small(monkeypatch, tmp_path, sample):
    """The sample in place of the full set, and fewer images set aside."""
    monkeypatch.setattr(download, "load_full", lambda: sample)
    monkeypatch.setattr(cifar10, "set_aside", parted)
    return tmp_path


def parted(part, count):
    """All images but the last of each hundred, and those."""
    last = np.arange(len(part.labels)) % 100 == 99
    return tuple(cifar10.Images(*(a[some] for a in part)) for some in (~last, last))


JOB = {"variant": "no shortcut", "rate": None, "epochs": 1, "seed": 0, "test": True}


@pytest.fixture
def judged(monkeypatch):
    """How many images were judged by each call; the outcome tells how many, too."""
    counts = []

    def evaluate(model, images, labels):
        counts.append(len(labels))
        return {"accuracy": len(labels) / 10_000}

    monkeypatch.setattr(ablations, "evaluate", evaluate)
    return counts


def do(job, folder):
    (outcome,) = comparison.run_jobs([job], ablations.do, folder, threads=1)
    return outcome


def test_run_is_done_once_and_kept(handed, small, judged):
    outcome = do(JOB, small)
    again = do(JOB, small)
    assert len(handed) == 1 and again == outcome == outcome | JOB
    assert outcome["train_accuracy"] == 0.25 and judged == [20, 1000]
    assert outcome["validation_accuracy"] == 0.002 and outcome["test_accuracy"] == 0.1
    (file,) = small.glob("*.json")
    assert json.loads(file.read_text("utf-8")) == outcome


def test_rates_are_chosen_without_a_look_at_the_test_set(handed, small, judged):
    for job in ablations.jobs_to_choose():
        assert "test_accuracy" not in do(job, small)
    assert judged == [20] * 6
    assert {job["seed"] for job in ablations.jobs_to_choose()}.isdisjoint(
        ablations.SEEDS
    )


def test_run_that_leaves_the_finite_is_told_of(small):
    outcome = do(JOB | {"variant": "no batch normalisation", "rate": 1e6}, small)
    assert outcome["validation_accuracy"] is None
    assert "lower the rate" in outcome["stopped"]


def test_interrupted_run_goes_on(small, few, monkeypatch):
    """Its checkpoint is the one that the driver is handed, and is gone in the end."""
    fit, paths = ablations.fit, []

    def quick(model, images, recipe, checkpoint, **others):
        paths.append(checkpoint)
        history = fit(model, few, recipe, checkpoint=checkpoint, **others)
        assert checkpoint.exists()
        return history

    monkeypatch.setattr(ablations, "fit", quick)
    do(JOB, small)
    assert [path.suffix for path in paths] == [".checkpoint"]
    assert not paths[0].exists()


def test_best_rate_is_chosen_and_a_stopped_run_never():
    scores = {0.1: 0.3, 0.2: 0.5, 0.3: 0.4, 0.4: None}
    outcomes = [
        {"variant": "Adam", "rate": rate, "validation_accuracy": score}
        for rate, score in scores.items()
    ]
    assert comparison.choose(outcomes, "variant", "rate") == {"Adam": 0.2}
    assert comparison.choose(outcomes[3:], "variant", "rate") == {}


def test_several_processes_give_what_one_gives(tmp_path):
    jobs = [{"number": n} for n in range(4)]
    one = comparison.run_jobs(jobs, square, tmp_path / "1", threads=1)
    two = comparison.run_jobs(jobs, square, tmp_path / "2", threads=1, processes=2)
    assert one == two == [{"number": n, "square": n * n} for n in range(4)]


def square(job, checkpoint):
    return {"square": job["number"] ** 2}


def test_command_writes_the_record_and_clears_up(handed, small, monkeypatch):
    right = iter(np.linspace(0.2, 0.8, 1000))
    monkeypatch.setattr(ablations, "evaluate", lambda *_: {"accuracy": next(right)})
    monkeypatch.setattr(ablations, "PROCESSES", 1)
    monkeypatch.setattr(comparison, "RUNS", small / "runs")
    monkeypatch.setattr("sys.argv", ["ablations", "--results", str(small)])
    ablations.main()
    record = json.loads((small / "ablations.json").read_text("utf-8"))
    check(record)
    assert record["machine"]["threads"] == 1
    assert list((small / "runs").rglob("*.json")) == []


def check(record):
    """The sums must be those of the runs."""
    by_variant = {}
    for run in record["runs"]:
        by_variant.setdefault(run["variant"], {})[run["seed"]] = run["test_accuracy"]
    assert set(by_variant) == set(ablations.VARIANTS)
    whole = by_variant[ablations.WHOLE]
    for variant, scores in by_variant.items():
        assert list(scores) == list(ablations.SEEDS)
        values = np.array([*scores.values()])
        summary = record["test_accuracy"][variant]
        assert summary["n"] == len(values)
        assert summary["mean"] == pytest.approx(values.mean())
        assert summary["sd"] == pytest.approx(values.std(ddof=1))
        if variant != ablations.WHOLE:
            less = np.array([whole[seed] - scores[seed] for seed in scores])
            summary = record["less_than_whole"][variant]
            assert summary["mean"] == pytest.approx(less.mean())
            assert summary["sd"] == pytest.approx(less.std(ddof=1))


def test_record_sums_up_its_runs():
    record = helpers.read_record("ablations")
    check(record)
    assert all(len(run["history"]) == ablations.EPOCHS for run in record["runs"])
    chosen = comparison.choose(record["choice"], "variant", "rate")
    assert {
        run["variant"]: run["rate"] for run in record["runs"] if run["rate"]
    } == chosen
