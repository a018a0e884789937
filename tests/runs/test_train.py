"""The command line: the record it writes, the work it will not lose, its errors."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch

from runs import driver, train
from support import cifar10, epochs, files, machine
from support.precision import bf16_is_fast
from taught import resnet, training

SMALL = shlex.split(
    "resnet8 --sample --batch-size 100 --epochs 3 --threads 1 --name run --device cpu"
)


def start(folder, *more, **options):
    command = [sys.executable, "-m", "runs.train", *SMALL, "--results", folder, *more]
    return subprocess.Popen(
        command,
        cwd=files.BOOK,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background of a script would inherit a Ctrl-C that is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


def run(folder, *more):
    """A small run in this process; returns its record."""
    train.main([*SMALL, "--results", str(folder), *more])
    return json.loads((folder / "run.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a small run that nobody disturbed, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    environment = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"}
    process = start(folder, env=environment)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "60/60" in err and "step/s" in err  # a long run shows a bar
    return folder, out


def test_run_says_what_it_uses_and_how_it_ended(finished):
    folder, out = finished
    assert "resnet8, 75,290 parameters, on 2,000 images; cpu, 1 threads" in out
    assert ("bfloat16 autocast" in out) != ("float32" in out)
    assert "channels_last" in out
    assert f"record in {folder / 'run.json'}" in out


def test_run_leaves_record_weights_and_outputs_only(finished):
    names = sorted(file.name for file in finished[0].iterdir())
    assert names == ["run.json", "run.outputs.safetensors", "run.safetensors"]


def test_record_tells_all_that_the_run_depended_on(finished):
    record = json.loads((finished[0] / "run.json").read_text())
    words = shlex.split(record["command"])
    assert words[:4] == ["python", "-m", "runs.train", "resnet8"]
    assert record["recipe"]["epochs"] == 3 and record["recipe"]["seed"] == 0
    assert record["parameters"] == 75_290
    assert record["data"]["sha256"] == cifar10.digest(cifar10.load_sample())
    assert record["data"]["train_images"] == 2_000
    where = record["machine"]
    assert where["threads"] == 1 and where["processor"] and where["commit"]
    assert set(where["versions"]) == {"python", "torch", "numpy"}
    assert [row["epoch"] for row in record["history"]] == [1, 2, 3]
    total = sum(row["seconds"] for row in record["history"])
    assert record["seconds"] == pytest.approx(total)


def test_commit_is_marked_where_code_changed_but_not_for_new_records(tmp_path):
    def git(*words):
        name = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        command = ["git", "-C", tmp_path, *name, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    code, record = tmp_path / "book/train.py", tmp_path / "book/results/run.json"
    record.parent.mkdir(parents=True)
    code.write_text("1")
    record.write_text("1")
    (tmp_path / "README.md").write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    head = git("rev-parse", "HEAD")[:12]
    record.write_text("2")
    assert machine.commit(tmp_path / "book") == head
    code.write_text("2")
    assert machine.commit(tmp_path / "book") == head + "+"
    git("checkout", "book/train.py")
    (tmp_path / "README.md").write_text("2")
    assert machine.commit(tmp_path / "book") == head + "+"


def test_weights_and_outputs_give_the_recorded_accuracy(finished, sample):
    folder, _ = finished
    record = json.loads((folder / "run.json").read_text())
    model = resnet.build_model("resnet8")
    files.load_weights(model, folder / "run.safetensors")
    images, labels = cifar10.to_tensors(sample.test)
    assert (
        training.evaluate(model, images, labels)["correct"]
        == (record["test"]["correct"])
    )
    outputs, _ = files.load_tensors(folder / "run.outputs.safetensors")
    assert (outputs["labels"].long() == labels).all()
    right = int((outputs["logits"].argmax(1) == labels).sum())
    assert abs(right - record["test"]["correct"]) <= 1  # half precision may tie
    assert record["test"]["images"] == 1_000


def test_images_can_be_set_aside_to_choose_by(tmp_path, sample):
    record = run(tmp_path, "--epochs", "1", "--validation", "200")
    assert record["data"]["train_images"] == 1_800
    assert record["data"]["validation_images"] == 200
    outputs, _ = files.load_tensors(tmp_path / "run.outputs.safetensors")
    right = outputs["validation_logits"].argmax(dim=1) == outputs["validation_labels"]
    shown = record["history"][-1]["validation_accuracy"]
    assert float(right.float().mean()) == pytest.approx(shown, abs=0.01)


def test_some_classes_can_be_trained_on_with_another_stem_and_shortcut(tmp_path):
    words = "--epochs 1 --classes 8 0 9 --stem imagenet --shortcut none"
    record = run(tmp_path, *words.split())
    told = record["classes"], record["stem"], record["shortcut"]
    assert told == ([8, 0, 9], "imagenet", "none")
    assert record["data"]["train_images"] == 600
    assert record["test"]["images"] == 300
    model = resnet.build_model("resnet8", "none", classes=3, stem="imagenet")
    files.load_weights(model, tmp_path / "run.safetensors")


def test_old_record_is_not_overwritten_unasked(finished):
    before = (finished[0] / "run.json").read_bytes()
    with pytest.raises(SystemExit, match="^runs.train: .* choose another --name"):
        run(finished[0])
    assert (finished[0] / "run.json").read_bytes() == before


@pytest.mark.parametrize("delay", [0.1, pytest.param(0.4, marks=pytest.mark.slow)])
def test_killed_run_continues_to_the_same_weights(finished, tmp_path, delay):
    """SIGKILL some time after the first checkpoint, then --resume."""
    process = start(tmp_path)
    while not (tmp_path / "run.checkpoint").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    time.sleep(delay)
    process.kill()
    process.communicate()
    if (tmp_path / "run.json").exists():
        pytest.skip("this machine ended the run before it was killed")
    with pytest.raises(SystemExit, match="--resume goes on from it"):
        run(tmp_path)
    process = start(tmp_path, "--resume")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    weights = "run.safetensors"
    assert (tmp_path / weights).read_bytes() == (finished[0] / weights).read_bytes()
    assert not (tmp_path / "run.checkpoint").exists()


@pytest.mark.slow
def test_run_killed_twenty_times_ends_with_the_same_weights(tmp_path):
    """SIGKILL at random moments after the images are loaded, and --resume each time."""
    words = shlex.split("--classes 0 1 --epochs 60 --threads 1 --batch-size 50")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    reference = start(whole, *words)
    assert "resnet8" in reference.stdout.readline(), reference.stderr.read()
    lines = [(reference.stdout.readline(), time.monotonic()) for _ in range(3)]
    epoch = (lines[2][1] - lines[0][1]) / 2  # seconds, on this machine
    chance = random.Random(0)
    for _ in range(20):
        process = start(killed, *words, "--resume")
        assert "resnet8" in process.stdout.readline(), process.stderr.read()
        for _ in range(chance.randrange(3)):
            process.stdout.readline()
        time.sleep(chance.uniform(0, epoch))
        process.kill()
        process.communicate()
    assert (killed / "run.checkpoint").exists() and not (killed / "run.json").exists()
    for process in (start(killed, *words, "--resume"), reference):
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    weights = "run.safetensors"
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "SIGTERM",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("SIGINT", "SIGHUP")),
    ],
)
def test_run_that_is_told_to_stop_says_how_to_go_on(tmp_path, name):
    """By Ctrl-C, by a batch scheduler, or because its terminal went away."""
    process = start(tmp_path, "--epochs", "30")
    while not (tmp_path / "run.checkpoint").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name)
    assert f"with --resume goes on from {tmp_path / 'run.checkpoint'}." in out
    assert "Traceback" not in err
    files.load_tensors(tmp_path / "run.checkpoint")  # whole


def test_ctrl_c_before_the_first_checkpoint_says_to_start_again(tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(driver, "_run", interrupted)
        train.main([*SMALL, "--results", str(tmp_path)])
    assert "no epoch was finished, so start it again." in capsys.readouterr().out


def interrupted(*_):
    raise KeyboardInterrupt


def test_other_number_of_threads_cannot_go_on(tmp_path):
    """It would end with other weights, and the record would name one number."""
    checkpoint = tmp_path / "run.checkpoint"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(epochs, "epoch_line", interrupted)  # after the checkpoint
        run(tmp_path)
    with pytest.raises(SystemExit, match="made with threads = 1, not 2: use the same"):
        run(tmp_path, "--resume", "--threads", "2")
    assert checkpoint.exists()


@pytest.mark.parametrize(
    "words, message",
    [
        ("resnet19 --sample", "unknown model 'resnet19'"),
        ("resnet8 --sample --classes 2 2", "classes are different numbers from 0 to 9"),
        ("resnet8 --sample --classes 2 10", "classes are different numbers from 0"),
        ("resnet8 --sample --device abacus", "no device 'abacus' here"),
        ("resnet8 --sample --epochs 0", "a recipe needs epochs"),
    ],
)
def test_wrong_option_is_one_sentence(words, message, tmp_path):
    with pytest.raises(SystemExit, match=f"^runs.train: {message}"):
        train.main([*words.split(), "--results", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_folder_that_takes_no_file_is_named_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    words = ["resnet8", "--sample", "--results", str(tmp_path / "file")]
    with pytest.raises(SystemExit, match="nothing can be written there .* another"):
        train.main(words)


def test_no_threads_are_refused(capsys):
    with pytest.raises(SystemExit):
        train.main(["resnet8", "--threads", "0"])
    assert "--threads: 0 is less than 1" in capsys.readouterr().err


def test_help_tells_defaults_that_inform(capsys):
    with pytest.raises(SystemExit):
        train.main(["--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "128 unless given" in out
    assert "(default:" not in out


@pytest.mark.parametrize("word", ["float32", "bfloat16"])
def test_precision_can_be_chosen(word, tmp_path):
    """What is not said is chosen by the processor."""
    small = ("--epochs", "1", "--classes", "0", "1")
    record = run(tmp_path, *small, "--precision", word)
    assert record["recipe"]["bf16"] is (word == "bfloat16")
    assert record["machine"]["precision"].startswith(word)
    if (word == "bfloat16") == bf16_is_fast(torch.device("cpu")):
        record = run(tmp_path, *small, "--overwrite")
        assert record["recipe"]["bf16"] is (word == "bfloat16")


def test_weights_are_halved_only_where_no_answer_changes(few, monkeypatch):
    model = resnet.build_model("resnet8")
    model.bn1.num_batches_tracked.fill_(70_001)  # more than half precision can count
    before = {n: t.clone() for n, t in model.state_dict().items()}
    answers = iter([torch.eye(2), torch.eye(2).flip(0)])
    with monkeypatch.context() as patch:
        patch.setattr(driver, "predict", lambda *_: next(answers))
        assert driver.halve_where_harmless(model, few[0]) == "float32"
    assert all((before[n] == t).all() for n, t in model.state_dict().items())
    assert driver.halve_where_harmless(model, few[0]) == "float16"
    weight = model.conv1.weight
    assert (weight == before["conv1.weight"].half().float()).all()
    assert model.bn1.num_batches_tracked == 70_001
