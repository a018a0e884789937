"""The comparison of fine-tuning: its runs, and what its record sums up."""

import numpy as np
import pytest

import helpers
from runs import finetune
from taught import finetuning


def test_every_way_is_run_with_every_number_of_labels_and_every_seed():
    chosen = dict.fromkeys(finetuning.WAYS, 0.1)
    jobs = finetune.jobs_to_compare(chosen)
    assert len({tuple(job.values()) for job in jobs}) == len(jobs)
    usual = [job for job in jobs if job["times"] == 1 and not job["swept"]]
    assert len(usual) == 5 * 3 * len(finetune.SEEDS)
    swept = {job["rate"] for job in jobs if job["swept"]}
    assert swept == set(finetune.GENTLE_TO_ROUGH)
    assert all(job["test"] for job in jobs)


def test_rates_are_chosen_on_validation_images_and_another_seed():
    jobs = finetune.jobs_to_choose()
    assert len(jobs) == len(finetuning.WAYS) * len(finetune.RATES)
    assert not any(job["test"] for job in jobs)
    assert {job["seed"] for job in jobs}.isdisjoint(finetune.SEEDS)


def test_record_is_summed_up_again_from_its_runs():
    """As the program would sum them up today."""
    record = helpers.read_record("finetune")
    longer = f", {finetune.LONGER} times the steps"
    runs = [
        run
        | {"way": run["way"].removesuffix(longer)}
        | {"times": finetune.LONGER if run["way"].endswith(longer) else 1}
        for run in record["runs"]
    ]
    pilots = [
        {"way": way, "rate": float(rate), "validation_accuracy": accuracy}
        for way, tried in record["rates"].items()
        for rate, accuracy in tried["validation_accuracy"].items()
    ]
    again = finetune.sum_up(pilots, runs)
    for way, by_labels in record["test_accuracy"].items():
        for labels, summary in by_labels.items():
            assert again["test_accuracy"][way][labels] == pytest.approx(summary)
    for rate, both in record["forgetting"].items():
        for name, summary in both.items():
            assert again["forgetting"][rate][name] == pytest.approx(summary)
    rates = {way: found["rate"] for way, found in record["rates"].items()}
    assert {way: found["rate"] for way, found in again["rates"].items()} == rates


def test_record_sums_up_five_seeds():
    record = helpers.read_record("finetune")
    for way, by_labels in record["test_accuracy"].items():
        for labels, summary in by_labels.items():
            runs = [
                run["test_accuracy"]
                for run in record["runs"]
                if (run["way"], str(run["labels"])) == (way, labels)
                and not run["swept"]
            ]
            assert summary["n"] == len(runs) == len(finetune.SEEDS)
            assert summary["mean"] == pytest.approx(np.mean(runs))
            assert summary["sd"] == pytest.approx(np.std(runs, ddof=1))


def test_order_that_the_chapter_teaches_holds_in_four_of_five_seeds():
    record = helpers.read_record("finetune")
    for labels in finetune.STEPS:
        right = {
            (run["way"], run["seed"]): run["test_accuracy"]
            for run in record["runs"]
            if run["labels"] == labels and not run["swept"]
        }
        for worse, better in (
            ("from scratch", "linear probe"),
            ("linear probe", "full"),
            ("linear probe", "gradual"),
        ):
            wins = [right[better, s] > right[worse, s] for s in finetune.SEEDS]
            assert sum(wins) >= 4, (labels, worse, better)
