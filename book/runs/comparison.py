"""Many short runs that are compared: each is done once, and kept when it ends.

A comparison that was stopped goes on with the runs that are left. What is summed up of
them stands in the program that compares.
"""

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from runs.driver import faults_in_a_sentence
from runs.record import RUNS
from support.files import write_json
from taught.memory import keep_freed_memory

GO_ON = "start it again, and it goes on with the runs that are left"


def compare(program: str, description: str, measure: Callable[[Path], dict]) -> None:
    """Run the command line of a comparison and write its record.

    `measure(folder)` makes the record; it may keep finished runs in `folder`, which is
    emptied when the record is written.
    """
    parser = argparse.ArgumentParser(prog=f"runs.{program}", description=description)
    parser.add_argument(
        "--results", type=Path, default=RUNS, help="folder; book/.runs unless given"
    )
    options = parser.parse_args()
    kept = RUNS / f"{program}-parts"
    with faults_in_a_sentence(program, lambda: GO_ON):
        record = measure(kept)
        write_json(options.results / f"{program}.json", record)
        for path in kept.glob("*.json"):
            path.unlink()
        print(f"record in {options.results / f'{program}.json'}")


def run_jobs(
    jobs: list[dict],
    do: Callable[[dict, Path], dict],
    kept: Path,
    threads: int,
    processes: int = 1,
) -> list[dict]:
    """Do each job, or read what it came to; return the jobs with their outcomes.

    `do(job, checkpoint)` returns an outcome as JSON. Where there are several
    `processes`, it runs in another process, with `threads` threads.
    """
    kept.mkdir(parents=True, exist_ok=True)
    tasks = [(do, job, kept / f"{_name(job)}.json") for job in jobs]
    done = []
    with _mapping(processes, threads) as mapping:
        outcomes = mapping(_do_once, tasks)
        for outcome in tqdm(outcomes, total=len(tasks), unit="run"):
            done.append(outcome)
            tqdm.write(_line(outcome))
    return done


def choose(outcomes: list[dict], by: str, setting: str) -> dict:
    """Return for each value of `by` the `setting` that did best on validation images.

    An outcome whose accuracy is None, since it was stopped, counts as 0.
    """
    best = {}
    for outcome in outcomes:
        score = outcome["validation_accuracy"] or 0.0
        if score > best.get(outcome[by], (0.0, None))[0]:
            best[outcome[by]] = score, outcome[setting]
    return {value: chosen for value, (_, chosen) in best.items()}


def _name(job: dict) -> str:
    return "-".join(f"{value}".replace(" ", "-") for value in job.values())


def _line(outcome: dict) -> str:
    settings = [f"{name} {value}" for name, value in outcome.items() if value]
    return ", ".join(text for text in settings if len(text) < 40)


def _do_once(task: tuple) -> dict:
    do, job, path = task
    if path.exists():
        return json.loads(path.read_text("utf-8"))
    checkpoint = path.with_suffix(".checkpoint")
    outcome = job | do(job, checkpoint)
    write_json(path, outcome)
    checkpoint.unlink(missing_ok=True)
    return outcome


@contextmanager
def _mapping(processes: int, threads: int) -> Iterator[Callable]:
    """Give a function like `map` that works in this process, or in several others."""
    if processes == 1:
        get_ready(threads)
        yield map
        return
    os.environ["TQDM_DISABLE"] = "1"  # in the others: one bar is enough
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, get_ready, [threads]) as pool:
        yield pool.imap


def get_ready(threads: int) -> None:
    """Prepare a process for its runs."""
    torch.set_num_threads(threads)
    keep_freed_memory()
