"""Several processes train one model: the same weights, every image once, no orphans."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch

from runs import recipe as full
from support import epochs, files, workers
from taught import resnet

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
WORDS = shlex.split(
    "resnet8 --sample --batch-size 250 --epochs 2 --threads 1 --device cpu "
    "--precision float32 --name run"
)

# One small training, alone or with others; every worker leaves what it ended with.
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from runs.recipe import FullRecipe, fit
from support import cifar10, files, workers
from taught import resnet

torch.set_num_threads(1)
team = workers.join(torch.device("cpu"), sync_norm=True)
images, labels = cifar10.to_tensors(cifar10.load_sample().train)
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:252]
part = images[order], labels[order]
recipe = FullRecipe(epochs=2, batch_size=76, peak_rate=0.005)
for dtype in (torch.float32, torch.float64):
    shown = []

    def note(model, given):
        x = given[0].to(dtype)
        if model.training:
            shown.append(x)
        return x

    torch.manual_seed(0)
    model = resnet.build_model("resnet8").to(dtype)
    model.register_forward_pre_hook(note)
    history = fit(model, part, recipe, part, team=team)
    path = Path(sys.argv[1]) / f"{team.count}-{team.rank}-{str(dtype)[-2:]}"
    told = {"shown": torch.cat(shown).sum(dim=(1, 2, 3)).double()}
    files.save_tensors(path, model.state_dict() | told)
    path.with_suffix(".json").write_text(json.dumps(history))
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
"""


def run(command, **options):
    environment = os.environ | {"PYTHONPATH": str(files.BOOK), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The weights and history with which each worker ended, and what it was shown."""
    folder = tmp_path_factory.mktemp("workers")
    script = folder / "small.py"
    script.write_text(SCRIPT)
    finish(run([sys.executable, script, folder]))
    finish(run([*TORCHRUN, "--nproc-per-node=2", script, folder]))

    def ended(name):
        tensors, _ = files.load_tensors(folder / name)
        history = json.loads((folder / f"{name}.json").read_text())
        return tensors, tensors.pop("shown"), history

    def ended_all(bits):
        return [ended(f"{who}-{bits}") for who in ("1-0", "2-0", "2-1")]

    return ended_all


@pytest.mark.parametrize("bits, tolerance", [(32, 1e-5), (64, 1e-7)])
def test_two_workers_end_with_the_weights_of_one(trained, bits, tolerance):
    (alone, _, _), (first, _, _), (second, _, _) = trained(bits)
    for name, tensor in alone.items():
        assert torch.equal(first[name], second[name]), name
        allowed = tolerance * tensor.abs().max().clamp(min=1)
        if "running" in name:  # one process adds up 150,000 numbers in a row
            allowed *= 10
        assert (tensor - first[name]).abs().max() <= allowed, name
    torch.manual_seed(0)
    start = resnet.build_model("resnet8").conv1.weight
    moved = (alone["conv1.weight"] - start).abs().max()
    assert moved > 1e-3  # equal because trained equally, not because untouched


def test_workers_agree_on_loss_and_accuracy(trained):
    (_, _, alone), (_, _, first), (_, _, second) = trained(64)
    for a, b, c in zip(alone, first, second):
        for key in ("loss", "accuracy", "validation_loss", "validation_accuracy"):
            assert b[key] == c[key]
            assert a[key] == pytest.approx(b[key], abs=1e-6)


def test_workers_share_every_image_once_an_epoch(trained):
    (_, alone, _), (_, first, _), (_, second, _) = trained(64)
    assert len(alone) == 2 * 252 and len(first) == len(second) == 252
    first, second = first[:126], second[:126]  # of batches of 76, 76, 76 and 24
    assert len(set(alone[:252].tolist())) == 252
    assert torch.equal(torch.cat([first, second]).sort()[0], alone[:252].sort()[0])


def test_training_by_two_leaves_one_record(tmp_path):
    command = [*TORCHRUN, "--nproc-per-node=2", "-m", "runs.train", *WORDS]
    out = finish(run([*command, "--results", tmp_path]))
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["run.json", "run.outputs.safetensors", "run.safetensors"]
    for once in ("2 workers", "epoch  1/2", "epoch  2/2", "test accuracy"):
        assert out.count(once) == 1, once
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["workers"] == 2
    assert record["command"].startswith("torchrun --nproc-per-node=2 -m runs.train")


@pytest.mark.slow
def test_two_that_were_stopped_go_on_to_the_same_weights(tmp_path):
    more = shlex.split("--epochs 12 --validation 250 --averaging 0.9")
    command = [*TORCHRUN, "--nproc-per-node=2", "-m", "runs.train", *WORDS, *more]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    finish(run([*command, "--results", whole]))
    process = run(
        [*command, "--results", stopped],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (stopped / "run.checkpoint").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode != 0 and out.count("Stopped") <= 1
    assert not (stopped / "run.json").exists()
    finish(run([*command, "--results", stopped, "--resume"]))
    name = "run.safetensors"
    assert (stopped / name).read_bytes() == (whole / name).read_bytes()


def test_dying_worker_ends_the_run_and_leaves_a_checkpoint(tmp_path):
    command = [*TORCHRUN, "--nproc-per-node=2", "-m", "runs.train", *WORDS]
    command += ["--results", tmp_path, "--epochs", "200"]
    process = run(command)
    while not (tmp_path / "run.checkpoint").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(children) == 2
    os.kill(int(children[1]), signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0 and "SIGKILL" in err
    assert not (tmp_path / "run.json").exists()
    files.load_tensors(tmp_path / "run.checkpoint")  # whole


@pytest.mark.parametrize(
    "images, batch_size, size", [(21, 10, 1), (20, 9, 9), (7, 100, 7)]
)
def test_batch_that_does_not_divide_among_the_workers_is_refused(
    images, batch_size, size
):
    part = torch.zeros(images, 32, 32, 3, dtype=torch.uint8), torch.zeros(images).long()
    recipe = full.FullRecipe(epochs=1, batch_size=batch_size)
    team = workers.Workers(0, 2)
    with pytest.raises(ValueError, match=f"a batch of {size} images does not divide"):
        full.fit(resnet.build_model("resnet8"), part, recipe, team=team)
    workers.Workers(0, 2).check_batches(20, 10)


def test_workers_with_different_checkpoints_are_refused(monkeypatch):
    monkeypatch.setattr(workers.Workers, "mean", lambda self, *numbers: [0.5])
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters())
    with pytest.raises(files.TrainingError, match="give all of them one folder"):
        epochs.run_epochs(model, optimizer, None, 1, 1, {}, team=workers.Workers(0, 2))


def test_rank_without_torchrun_is_alone(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert workers.join(torch.device("cpu")) == workers.ALONE


def test_alone_a_worker_changes_nothing():
    model = resnet.build_model("resnet8")
    alone = workers.join(torch.device("cpu"))
    assert alone == workers.Workers(0, 1)
    assert alone.wrap(model) is model and alone.mean(1.5, 2) == [1.5, 2]
