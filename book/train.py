"""The command line for full runs: train on CIFAR-10, then write a record.

    python train.py resnet20 --epochs 50 --name my-run
    torchrun --nproc-per-node=2 train.py resnet20 --epochs 50 --name my-run

Here live the options, the record and its files. The training itself is helpers.fit.
"""

import argparse
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import nn

import cifar10
import helpers
import resnet
import workers

RUNS = Path(__file__).parent / "runs"  # not under version control, unlike results/


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; faults end it with one sentence and exit status 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    files = Files(options.results, options.name or options.model)
    try:
        with faults_in_a_sentence("train.py", files.how_to_go_on):
            run(options, files, command(arguments))
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


@contextmanager
def faults_in_a_sentence(program: str, go_on: Callable[[], str]) -> Iterator[None]:
    """End `program` with one sentence and exit status 1 where it cannot go on.

    Where it is stopped by Ctrl-C, it ends with status 130 and what `go_on` returns.
    """
    try:
        yield
    except (RuntimeError, ValueError, OSError) as problem:
        sys.exit(f"{program}: {problem}")
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            print(f"\nStopped: {go_on()}.")
        sys.exit(130)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the options; each field of helpers.Recipe is one, `bf16` by --precision."""
    parser = argparse.ArgumentParser(
        description="Train a CIFAR ResNet on the full set and record the run.",
        allow_abbrev=False,
    )
    parser.add_argument("model", help="resnet20, resnet56, resnet18, preresnet20, …")
    parser.add_argument(
        "--shortcut", choices=["A", "B", "none"], help="in place of the family's own"
    )
    parser.add_argument("--stem", default="cifar", choices=["cifar", "imagenet"])
    parser.add_argument(
        "--no-norm", action="store_true", help="biases in place of normalisation"
    )
    for field in fields(helpers.Recipe):
        flag = "--" + field.name.replace("_", "-")
        if field.name == "bf16":
            continue
        if field.type is bool:
            flag = "--no-" + field.name.replace("_", "-")
            parser.add_argument(
                flag, dest=field.name, action="store_false", help="leave it out"
            )
        else:
            default = 50 if field.name == "epochs" else field.default
            parser.add_argument(
                flag, type=field.type, default=default, help="%(default)s unless given"
            )
    parser.add_argument(
        "--sync-norm", action="store_true", help="batch statistics of all workers"
    )
    parser.add_argument(
        "--compile", action="store_true", help="needs a C++ compiler and a minute"
    )
    parser.add_argument(
        "--classes", type=int, nargs="+", help="train on some of the ten, by number"
    )
    parser.add_argument("--sample", action="store_true", help="train on the sample")
    add_common_options(parser)
    return parser.parse_args(arguments)


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that fast.py has as well: machine, validation and files."""

    def at_least_one(text: str) -> int:
        if int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text} is less than 1")
        return int(text)

    parser.add_argument(
        "--precision",
        choices=["bfloat16", "float32"],
        help="bfloat16 where it is fast, unless given",
    )
    parser.add_argument("--device", help="cpu, cuda, mps, …; the fastest, unless given")
    parser.add_argument("--threads", type=at_least_one, help="for the CPU")
    parser.add_argument(
        "--validation", type=int, default=0, help="training images to set aside"
    )
    parser.add_argument("--name", help="of the record; the model's, unless given")
    parser.add_argument("--results", type=Path, default=RUNS, help="folder")
    parser.add_argument("--resume", action="store_true", help="go on from a checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="replace a record")


def run(options: argparse.Namespace, files: "Files", typed: str) -> None:
    """Train, judge once on the test set, and write the record with its files."""
    helpers.keep_freed_memory()
    device = helpers.choose_device(options.device)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    recipe = make_recipe(options, device)
    team = workers.join(device, options.sync_norm)
    torch.manual_seed(recipe.seed)
    classes = options.classes or [*range(len(cifar10.CLASSES))]
    model = resnet.build_model(
        options.model, options.shortcut, len(classes), options.stem
    ).to(device)
    if options.no_norm:
        resnet.without_normalisation(model)
    if options.compile:
        model.compile()
    files.refuse_to_lose_work(options)

    data = cifar10.load_sample() if options.sample else cifar10.load_full()
    kept, held_out = set_aside(cifar10.only(data.train, classes), options.validation)
    train, validation = (helpers.to_tensors(p, device) for p in (kept, held_out))
    test = helpers.to_tensors(cifar10.only(data.test, classes), device)
    if team.rank == 0:
        print(
            f"{options.model}, {resnet.count_parameters(model):,} parameters, on "
            f"{len(train[0]):,} images; {device.type}, {torch.get_num_threads()} "
            f"threads, {'bfloat16 autocast' if recipe.bf16 else 'float32'}, "
            f"channels_last; {team.count} worker{'s' * (team.count > 1)}",
            flush=True,
        )
    about = {
        "model": options.model,
        "shortcut": model.shortcut,
        "stem": options.stem,
        "normalised": not options.no_norm,
        "compiled": options.compile,
        "workers": team.count,
        "sync_norm": team.sync_norm,
        "classes": classes,
    }
    machine = describe_machine(device, recipe.bf16)  # now: the commit may change
    history = helpers.fit(
        model,
        train,
        recipe,
        validation if options.validation else None,
        checkpoint=files.checkpoint,
        workers=team,
        about=about | repeats_on(machine),
    )
    if team.rank > 0:
        return

    precision = halve_where_harmless(model, test[0])
    scores = helpers.evaluate(model, *test)
    record = {
        "name": files.name,
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": typed,
        **about,
        "parameters": resnet.count_parameters(model),
        "recipe": asdict(recipe),
        "data": describe_data(data, train, validation, test),
        "protocol": "test set used once, after the last epoch, without augmentation",
        "machine": machine,
        "seconds": sum(row["seconds"] for row in history),
        "weights_precision": precision,
        "test": scores,
        "history": history,
    }
    write_results(files, record, model, test, validation)
    print(
        f"test accuracy {scores['accuracy']:.2%} ({scores['correct']:,} of "
        f"{scores['images']:,}) after {record['seconds'] / 60:.1f} minutes; "
        f"record in {files.record}"
    )


def set_aside(part: cifar10.Images, count: int) -> tuple[cifar10.Images, ...]:
    """Split off `count` images, the same ones in every run; return the rest and them.

    Raises ValueError if that would leave nothing to train on.
    """
    if not 0 <= count < len(part.labels):
        raise ValueError(
            f"--validation {count}: set aside from 0 to {len(part.labels) - 1:,} images"
        )
    order = np.random.default_rng(0).permutation(len(part.labels))
    places = np.sort(order[count:]), order[:count]
    return tuple(cifar10.Images(*(a[some] for a in part)) for some in places)


def make_recipe(options: argparse.Namespace, device: torch.device) -> helpers.Recipe:
    """Turn the options into a recipe."""
    values = {f.name: getattr(options, f.name, None) for f in fields(helpers.Recipe)}
    return helpers.Recipe(**values | {"bf16": in_bf16(options, device)})


def in_bf16(options: argparse.Namespace, device: torch.device) -> bool:
    """Tell whether to compute in bfloat16: where it is fast, unless the options say."""
    if options.precision:
        return options.precision == "bfloat16"
    return helpers.bf16_is_fast(device)


class Files:
    """Where a run keeps its checkpoint, record, weights and test outputs."""

    def __init__(self, folder: Path, name: str):
        self.folder = folder
        self.name = name
        self.checkpoint = folder / f"{name}.checkpoint"
        self.record = folder / f"{name}.json"
        self.weights = folder / f"{name}.safetensors"
        self.outputs = folder / f"{name}.outputs.safetensors"

    def refuse_to_lose_work(self, options: argparse.Namespace) -> None:
        """Raise ValueError before old work would be lost, or new work find no place."""
        if self.record.exists() and not options.overwrite:
            raise ValueError(
                f"{self.record} exists: choose another --name, or --overwrite it"
            )
        if self.checkpoint.exists() and not options.resume:
            raise ValueError(
                f"{self.checkpoint} exists: --resume goes on from it; delete it to "
                "start anew"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as problem:
            raise ValueError(
                f"--results {self.folder}: nothing can be written there "
                f"({problem.strerror}); choose another folder"
            ) from problem

    def how_to_go_on(self) -> str:
        """Return what to do after the run was stopped."""
        if self.checkpoint.exists():
            return f"the same command with --resume goes on from {self.checkpoint}"
        return "no epoch was finished, so start it again"


def halve_where_harmless(model: nn.Module, images: torch.Tensor) -> str:
    """Round the weights to half precision if no answer on `images` changes."""
    before = helpers.predict(model, images).argmax(dim=1)
    exact = {name: t.clone() for name, t in model.state_dict().items()}
    rounded = {n: t.half().float() for n, t in exact.items() if t.is_floating_point()}
    model.load_state_dict(exact | rounded)
    if torch.equal(helpers.predict(model, images).argmax(dim=1), before):
        return "float16"
    model.load_state_dict(exact)
    return "float32"


def write_results(
    files: Files,
    record: dict,
    model: nn.Module,
    test: tuple,
    validation: tuple,
    others: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write weights, outputs, and last the record; then drop the checkpoint.

    `others` are logits (N, classes) to be kept with those of `test` and `validation`.
    """
    dtype = getattr(torch, record["weights_precision"])
    weights = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }
    logits, outputs = dict(others or {}), {}
    for prefix, (images, labels) in (("", test), ("validation_", validation)):
        if len(images):
            logits[f"{prefix}logits"] = helpers.predict(model, images)
            outputs[f"{prefix}labels"] = labels.to(torch.uint8)
    for name, z in logits.items():
        # Less the greatest: half precision then tells the first two apart.
        outputs[name] = (z - z.max(dim=1, keepdim=True).values).half()
    helpers.save_tensors(files.weights, weights)
    helpers.save_tensors(files.outputs, outputs)
    helpers.write_record(files.record, record)
    files.checkpoint.unlink(missing_ok=True)


def command(arguments: list[str], program: str = "train.py") -> str:
    """Return the command that makes this run again, as it was typed."""
    once = {"--resume", "--overwrite"}
    start = ["python"]
    if torch.distributed.is_torchelastic_launched():
        start = ["torchrun"]
        if os.environ["GROUP_WORLD_SIZE"] != "1":
            start.append(f"--nnodes={os.environ['GROUP_WORLD_SIZE']}")
        start.append(f"--nproc-per-node={os.environ['LOCAL_WORLD_SIZE']}")
    return shlex.join(
        [*start, f"book/{program}", *(a for a in arguments if a not in once)]
    )


def describe_data(data: cifar10.Cifar10, *parts: tuple) -> dict:
    """Return where the images come from and how many train, validate and test."""
    counts = [len(images) for images, _ in parts]
    names = ("train_images", "validation_images", "test_images")
    known = {"source": data.source, "sha256": cifar10.digest(data)}
    return known | dict(zip(names, counts))


def repeats_on(machine: dict) -> dict:
    """Return what must be the same for a run to go on to the same weights."""
    return {key: machine[key] for key in ("device", "threads")}


def describe_machine(device: torch.device, bf16: bool) -> dict:
    """Return what the seconds and the last digits of a run depend on."""
    return {
        "device": device.type,
        "processor": processor_name(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "precision": "bfloat16 autocast" if bf16 else "float32",
        "memory_format": "channels_last",
        "system": platform.system(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "commit": commit(),
    }


def processor_name(device: torch.device) -> str:
    """Return the accelerator's name, or the processor's as the system tells it."""
    module = torch.get_device_module(device)
    if hasattr(module, "get_device_name"):
        return module.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()


def commit() -> str:
    """Return the commit of the code that runs, with "+" if files were changed.

    New records change nothing that runs, so that several runs can follow each other.
    """
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        status = [*git, "status", "--porcelain", "-uno", "--", ":/", ":^results"]
        changed = subprocess.run(status, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip()[:12] + ("+" if changed.stdout else "")


if __name__ == "__main__":
    main()
