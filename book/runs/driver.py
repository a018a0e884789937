"""The one driver of recorded runs: it seeds, resumes, judges once and writes.

A program hands it an Experiment: a network, a recipe, how to fit and how to judge it.
The driver does the rest, the same for all: options, machine, images, files, faults.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from runs.record import (
    RUNS,
    RunFiles,
    command,
    describe_data,
    make_record,
    write_network,
)
from support import cifar10, download, workers
from support.machine import choose_device, describe_machine, describe_training
from support.precision import bf16_is_fast
from taught.memory import keep_freed_memory
from taught.resnet import count_parameters
from taught.training import evaluate, predict


@dataclass
class Experiment:
    """What a program hands to the driver.

    `recipe` is a dataclass with `seed` and `bf16`. `build()` makes the network, after
    the seed was set. `fit` takes the network, training images and labels, the recipe,
    and, by name, `validation`, `checkpoint`, `team` and `known_as`, and returns the
    history. `judge(model, test images, test labels)` is called once, after the last
    epoch; it may round the weights, and returns the record's scores and any logits to
    be kept beside those of the test images. `about` stands in the record, and the run
    is known again by it.
    """

    recipe: object
    build: Callable[[], nn.Module]
    fit: Callable[..., list[dict]]
    judge: Callable[[nn.Module, Tensor, Tensor], tuple[dict, dict]]
    protocol: str
    about: dict = field(default_factory=dict)
    classes: list[int] = field(default_factory=lambda: [*range(10)])


def drive(
    program: str,
    arguments: list[str] | None,
    parser: argparse.ArgumentParser,
    prepare: Callable[[argparse.Namespace, bool], Experiment],
) -> None:
    """Run the command line of a program; faults end it with one sentence.

    `prepare(options, bf16)` makes the experiment; it raises ValueError for options
    that do not fit together.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    files = RunFiles(options.results, options.name or options.model)
    try:
        with faults_in_a_sentence(program, files.how_to_go_on):
            _run(options, files, command(program, arguments), prepare)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _run(
    options: argparse.Namespace,
    files: RunFiles,
    typed: str,
    prepare: Callable[[argparse.Namespace, bool], Experiment],
) -> None:
    keep_freed_memory()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    bf16 = bf16_is_fast(device)
    if options.precision:
        bf16 = options.precision == "bfloat16"
    experiment = prepare(options, bf16)
    recipe = experiment.recipe
    team = workers.join(device, options.sync_norm)
    torch.manual_seed(recipe.seed)
    model = experiment.build().to(device)
    files.refuse_to_lose_work(options.resume, options.overwrite)

    data = cifar10.load_sample() if options.sample else download.load_full()
    part = cifar10.only(data.train, experiment.classes)
    kept, held_out = cifar10.set_aside(part, options.validation)
    judged_on = cifar10.only(data.test, experiment.classes)
    train, validation, test = (
        cifar10.to_tensors(part, device) for part in (kept, held_out, judged_on)
    )
    parameters = count_parameters(model)
    if team.rank == 0:
        print(
            f"{options.model}, {parameters:,} parameters, on {len(train[0]):,} images; "
            f"{device.type}, {torch.get_num_threads()} threads, "
            f"{'bfloat16 autocast' if bf16 else 'float32'}, channels_last; "
            f"{team.count} worker{'s' * (team.count > 1)}",
            flush=True,
        )
    machine = describe_machine(device)  # now: the commit may change
    repeats_on = {"device": machine["device"], "threads": machine["threads"]}
    about = experiment.about | {"workers": team.count, "sync_norm": team.sync_norm}
    history = experiment.fit(
        model,
        train,
        recipe,
        validation=validation if options.validation else None,
        checkpoint=files.checkpoint,
        team=team,
        known_as=about | repeats_on,
    )
    if team.rank > 0:
        return

    scores, others = experiment.judge(model, *test)
    counts = [len(labels) for _, labels in (train, validation, test)]
    names = ("train_images", "validation_images", "test_images")
    record = make_record(
        files.name,
        typed,
        machine | describe_training(bf16),
        **about,
        parameters=parameters,
        recipe=asdict(recipe),
        data=describe_data(data) | dict(zip(names, counts)),
        protocol=experiment.protocol,
        seconds=sum(row["seconds"] for row in history),
        **scores,
        history=history,
    )
    logits, labels = {"logits": predict(model, test[0])}, {"labels": test[1]}
    if options.validation:
        logits["validation_logits"] = predict(model, validation[0])
        labels["validation_labels"] = validation[1]
    write_network(files, record, model, logits | others, labels)
    told = [
        f"{name.replace('_', ' ')} accuracy {found['accuracy']:.2%} "
        f"({found['correct']:,} of {found['images']:,})"
        for name, found in scores.items()
        if isinstance(found, dict)
    ]
    print(
        f"{', '.join(told)} after {record['seconds'] / 60:.1f} minutes; "
        f"record in {files.record}"
    )


def judge(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[dict, dict]:
    """Judge a network as it will be kept: in half precision where no answer changes."""
    precision = halve_where_harmless(model, images)
    scores = evaluate(model, images, labels)
    return {"weights_precision": precision, "test": scores}, {}


def halve(model: nn.Module) -> None:
    """Round the weights and running statistics to half precision."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())


def halve_where_harmless(model: nn.Module, images: Tensor) -> str:
    """Round the weights to half precision if no answer on `images` changes.

    Returns the name of their precision.
    """
    before = predict(model, images).argmax(dim=1)
    exact = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    halve(model)
    if torch.equal(predict(model, images).argmax(dim=1), before):
        return "float16"
    model.load_state_dict(exact)
    return "float32"


# ---------------------------------------------------------------- the command line


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all programs share, grouped by what they concern."""

    def at_least_one(text: str) -> int:
        if int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text} is less than 1")
        return int(text)

    images = parser.add_argument_group("images")
    images.add_argument(
        "--sample", action="store_true", help="train on the embedded sample"
    )
    images.add_argument(
        "--validation",
        type=int,
        default=0,
        metavar="N",
        help="set N training images aside and judge each epoch by them",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", help="cpu, cuda, mps, …; the fastest unless given")
    machine.add_argument(
        "--precision",
        choices=["bfloat16", "float32"],
        help="bfloat16 where it is fast, unless given",
    )
    machine.add_argument("--threads", type=at_least_one, help="of a processor")
    machine.add_argument(
        "--sync-norm",
        action="store_true",
        help="take the statistics of a batch over all workers of torchrun",
    )
    files = parser.add_argument_group("files")
    files.add_argument("--name", help="of the record; the model's unless given")
    files.add_argument(
        "--results", type=Path, default=RUNS, help="folder; book/.runs unless given"
    )
    files.add_argument("--resume", action="store_true", help="go on from a checkpoint")
    files.add_argument("--overwrite", action="store_true", help="replace a record")


class Stopped(KeyboardInterrupt):
    """A signal asked the run to stop; its number is the argument."""


@contextmanager
def faults_in_a_sentence(program: str, go_on: Callable[[], str]) -> Iterator[None]:
    """End `program` with one sentence and exit status 1 where it cannot go on.

    Where Ctrl-C, SIGTERM or SIGHUP stops it, it ends with what `go_on` returns and
    status 128 + the signal's number, as shells expect.
    """
    names = [n for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
    signals = [getattr(signal, name) for name in names]

    def stop(number: int, frame) -> None:
        for each in signals:  # one request is enough
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    before = [signal.signal(each, stop) for each in signals]
    try:
        yield
    except (RuntimeError, ValueError, OSError) as problem:
        sys.exit(f"runs.{program}: {problem}")
    except KeyboardInterrupt as problem:
        if os.environ.get("RANK", "0") == "0":
            print(f"\nStopped: {go_on()}.", flush=True)
        number = problem.args[0] if isinstance(problem, Stopped) else signal.SIGINT
        sys.exit(128 + int(number))
    finally:
        for each, handler in zip(signals, before):
            signal.signal(each, handler)
