"""The plumbing: mode, augmentation, schedule, training, files, and their faults."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torchvision.transforms import functional as vision

import cifar10
import helpers
import resnet
from helpers import Recipe, TrainingError

QUICK = Recipe(epochs=2, batch_size=50, peak_rate=0.1)


def train(few, recipe=QUICK, **options):
    torch.manual_seed(0)
    model = resnet.build_model("resnet8")
    history = helpers.fit(model, few, recipe, report=lambda line: None, **options)
    return model, history


def same_weights(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values())
    return all(torch.equal(a, b) for a, b in pairs)


# ---------------------------------------------------------------- mode and machine


def test_unknown_mode_names_both(monkeypatch):
    monkeypatch.setenv("BOOK_MODE", "fast")
    with pytest.raises(ValueError, match="'fast': use 'reduced' or 'full'"):
        helpers.mode()


def test_reduced_is_the_default(monkeypatch):
    monkeypatch.delenv("BOOK_MODE")
    assert helpers.mode() == "reduced"
    assert helpers.by_mode(reduced=1, full=2) == 1
    monkeypatch.setenv("BOOK_MODE", "full")
    assert helpers.by_mode(reduced=1, full=2) == 2


def test_setup_seeds_pins_threads_and_says_the_mode(capsys):
    torch.set_num_threads(1)
    helpers.setup(seed=3)
    assert torch.get_num_threads() == 2
    assert "Reduced mode" in capsys.readouterr().out
    drawn = torch.rand(1), np.random.rand()
    helpers.setup(seed=3)
    assert (torch.rand(1), np.random.rand()) == drawn


def test_unknown_device_says_what_there_is():
    with pytest.raises(ValueError, match="no device 'abacus' here: use .*cpu"):
        helpers.choose_device("abacus")
    assert helpers.choose_device("cpu").type == "cpu"


# ---------------------------------------------------------------- data


def test_normalise_agrees_with_torchvision(few):
    images = few[0][:10]
    expected = vision.normalize(
        images.permute(0, 3, 1, 2) / 255, cifar10.MEAN, cifar10.STD
    )
    x = helpers.normalise(images)
    assert torch.allclose(x, expected, atol=1e-6)
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_augmented_image_is_a_crop_of_the_padded_one_perhaps_mirrored(few):
    images = few[0][:120]
    augmented = helpers.augment(images, torch.Generator().manual_seed(0))
    seen = set()
    for image, result in zip(images.numpy(), augmented.numpy()):
        padded = np.empty((40, 40, 3), np.uint8)
        padded[:] = np.round(255 * np.array(cifar10.MEAN))
        padded[4:36, 4:36] = image
        matches = {
            (top, left, mirror)
            for top in range(9)
            for left in range(9)
            for mirror in (1, -1)
            if (padded[top : top + 32, left : left + 32][:, ::mirror] == result).all()
        }
        assert matches
        seen |= matches
    tops, lefts, mirrors = map(set, zip(*seen))
    assert tops == lefts == set(range(9)) and mirrors == {1, -1}
    assert augmented.dtype == torch.uint8 and augmented.shape == images.shape


def test_augmentation_repeats_with_its_generator_only(few):
    one, two, other = (
        helpers.augment(few[0], torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    )
    assert torch.equal(one, two) and not torch.equal(one, other)


# ---------------------------------------------------------------- training


def test_rate_rises_to_its_peak_and_falls_to_zero():
    rates = [helpers.learning_rate(t, 200, peak=0.5, warm_up=0.25) for t in range(200)]
    assert np.argmax(rates) == 49 and max(rates) == pytest.approx(0.5)
    assert (np.diff(rates[:50]) > 0).all() and (np.diff(rates[50:]) < 0).all()
    assert 0 < rates[-1] < 0.01 and 0 < rates[0] <= 0.011


def test_only_layer_weights_are_decayed():
    model = resnet.build_model("resnet8")
    decayed, kept = helpers.make_optimizer(model, QUICK).param_groups
    assert decayed["weight_decay"] == QUICK.weight_decay and kept["weight_decay"] == 0
    assert len(decayed["params"]) == 8
    assert all(p.ndim == 1 for p in kept["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))


def test_an_epoch_shows_every_image_once_at_the_given_rates(few, monkeypatch):
    seen = []

    def note(images, generator):
        seen.append(images)
        return images

    monkeypatch.setattr(helpers, "augment", note)
    model = resnet.build_model("resnet8")
    optimizer = helpers.make_optimizer(model, QUICK)
    rates = iter([0.1, 0.2, 0.3, 0.4, 0.5])
    generator = torch.Generator().manual_seed(0)
    helpers.train_epoch(model, *few, optimizer, rates, QUICK, generator)
    shown = torch.cat(seen).flatten(1).float()
    assert not torch.equal(shown, few[0].flatten(1).float())
    assert torch.equal(
        shown.sum(1).sort()[0], few[0].flatten(1).float().sum(1).sort()[0]
    )
    assert next(rates) == 0.5  # four batches took four rates, and no fifth
    assert {group["lr"] for group in optimizer.param_groups} == {0.4}


def test_an_epoch_agrees_with_pytorch_step_by_step(few, monkeypatch):
    """One batch, no augmentation: the loss, accuracy and weights of the plain way."""
    monkeypatch.setattr(helpers, "augment", lambda images, generator: images)
    recipe = Recipe(epochs=1, batch_size=200, peak_rate=0.1)
    torch.manual_seed(0)
    ours, plain = resnet.build_model("resnet8"), resnet.build_model("resnet8")
    plain.load_state_dict(ours.state_dict())
    optimizer = helpers.make_optimizer(ours, recipe)
    generator = torch.Generator().manual_seed(0)
    loss, accuracy = helpers.train_epoch(
        ours, *few, optimizer, [0.05], recipe, generator
    )

    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    logits = plain(helpers.normalise(few[0][order]))
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    expected = criterion(logits, few[1][order])
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    right = (logits.argmax(1) == few[1][order]).float().mean()
    assert accuracy == pytest.approx(right.item())
    for a, b in zip(ours.parameters(), plain.parameters()):
        decay = recipe.weight_decay if b.ndim > 1 else 0
        gradient = b.grad + decay * b.detach()
        stepped = b.detach() - 0.05 * (gradient + recipe.momentum * gradient)
        assert torch.allclose(a, stepped, atol=1e-5)


def test_evaluation_counts_and_leaves_the_model_alone(few):
    model, _ = train(few)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    scores = helpers.evaluate(model, *few)
    model.eval()
    logits = model(helpers.normalise(few[0]))
    right = int((logits.argmax(1) == few[1]).sum())
    assert scores["correct"] == right and scores["images"] == 200
    assert scores["accuracy"] == right / 200
    expected = torch.nn.functional.cross_entropy(logits, few[1]).item()
    assert scores["loss"] == pytest.approx(expected, rel=1e-5)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    pieces = helpers.predict(model, few[0], batch_size=7)
    assert torch.allclose(pieces, logits, atol=1e-5)


def test_training_learns(few):
    model, history = train(few, Recipe(epochs=8, batch_size=20, peak_rate=0.05))
    assert history[-1]["loss"] < history[0]["loss"] - 0.2
    assert helpers.evaluate(model, *few)["accuracy"] > 0.3


def test_same_seed_same_weights_other_seed_others(few):
    (one, history), (two, again) = train(few), train(few)
    assert same_weights(one, two)
    assert [r["loss"] for r in history] == [r["loss"] for r in again]
    other, _ = train(few, Recipe(**(vars(QUICK) | {"seed": 1})))
    assert not same_weights(one, other)


def test_each_epoch_has_an_order_of_its_own(few, monkeypatch):
    orders = []

    def note(model, images, labels, optimizer, rates, recipe, generator, workers):
        orders.append(torch.randperm(200, generator=generator).tolist())
        return 1.0, 0.1

    monkeypatch.setattr(helpers, "train_epoch", note)
    train(few)
    train(few, Recipe(**(vars(QUICK) | {"seed": 1})))
    assert len(set(map(tuple, orders))) == 4


def but(**changes):
    return Recipe(**(vars(QUICK) | changes))


def test_images_are_shown_as_they_are_without_augmentation(few, monkeypatch):
    monkeypatch.setattr(helpers, "augment", lambda *_: pytest.fail("augmented"))
    train(few, but(augment=False))
    with pytest.raises(pytest.fail.Exception, match="augmented"):
        train(few)


def test_rate_that_does_not_fall_stays_at_its_peak(few):
    rates = [helpers.learning_rate(t, 100, 0.5, 0.1, fall=False) for t in range(100)]
    assert rates[:10] == [helpers.learning_rate(t, 100, 0.5, 0.1) for t in range(10)]
    assert set(rates[9:]) == {0.5}
    _, history = train(few, but(fall=False))
    assert [row["rate"] for row in history] == [0.1, 0.1]


def test_adam_is_used_where_the_recipe_says_so(few):
    recipe = but(optimizer="adam", peak_rate=0.003)
    optimizer = helpers.make_optimizer(resnet.build_model("resnet8"), recipe)
    assert isinstance(optimizer, torch.optim.Adam)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [5e-4, 0]
    _, history = train(few, recipe)
    assert history[1]["loss"] < history[0]["loss"]


def test_averages_are_validated_and_kept(few, tmp_path):
    """Against averages added up by hand: old times 0.8 plus new times 0.2."""
    recipe = but(averaging=0.8)
    by_hand = {}

    def follow(optimizer, arguments, options):
        for group in optimizer.param_groups:
            for p in group["params"]:
                old = by_hand.get(p)
                new = p.detach().clone()
                by_hand[p] = new if old is None else 0.8 * old + 0.2 * new

    hook = register_optimizer_step_post_hook(follow)
    model, history = train(few, recipe, validation=few)
    hook.remove()
    for p in model.parameters():
        assert torch.allclose(p, by_hand[p], atol=1e-6)
    scores = helpers.evaluate(model, *few)
    assert history[-1]["validation_accuracy"] == scores["accuracy"]

    checkpoint = tmp_path / "run.checkpoint"
    stop_after(1, few, recipe, checkpoint)
    resumed = resnet.build_model("resnet8")
    helpers.fit(resumed, few, recipe, checkpoint=checkpoint)
    assert same_weights(model, resumed)


def test_freed_memory_is_kept_where_glibc_is(monkeypatch):
    assert helpers.keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr(helpers.ctypes, "CDLL", lambda name: object())
    assert not helpers.keep_freed_memory()


def test_bf16_trains_to_nearly_the_same(few):
    _, exact = train(few)
    _, halved = train(few, Recipe(**(vars(QUICK) | {"bf16": True})))
    assert exact[-1]["loss"] != halved[-1]["loss"]
    assert exact[-1]["loss"] == pytest.approx(halved[-1]["loss"], abs=0.2)


def test_history_holds_the_validation_and_the_last_rate(few):
    model, history = train(few, validation=few)
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[-1]["rate"] == pytest.approx(helpers.learning_rate(7, 8, 0.1, 0.15))
    scores = helpers.evaluate(model, *few)
    assert history[-1]["validation_accuracy"] == scores["accuracy"]


class Stop(Exception):
    pass


def stop_after(epoch, few, recipe, checkpoint):
    """Train as `train` does, and stop when the epoch has been reported."""

    def report(line):
        if line.startswith(f"epoch {epoch:2}/"):
            raise Stop

    torch.manual_seed(0)
    model = resnet.build_model("resnet8")
    with pytest.raises(Stop):
        helpers.fit(model, few, recipe, checkpoint=checkpoint, report=report)


@pytest.mark.parametrize("epoch", [1, 2])
def test_stopped_run_continues_to_the_same_weights(few, tmp_path, epoch):
    recipe = Recipe(**(vars(QUICK) | {"epochs": 3}))
    whole, expected = train(few, recipe)
    checkpoint = tmp_path / "run.checkpoint"
    stop_after(epoch, few, recipe, checkpoint)
    torch.manual_seed(99)  # the start is forgotten: all comes from the checkpoint
    resumed = resnet.build_model("resnet8")
    history = helpers.fit(resumed, few, recipe, checkpoint=checkpoint)
    assert same_weights(whole, resumed)
    assert [row["loss"] for row in history] == [row["loss"] for row in expected]


def test_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(few, tmp_path):
    checkpoint = tmp_path / "run.checkpoint"
    stop_after(1, few, QUICK, checkpoint)
    good = checkpoint.read_bytes()
    fresh = resnet.build_model("resnet8")

    def poisoned(*arguments):
        return float("nan"), 0.1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(helpers, "train_epoch", poisoned)
        with pytest.raises(
            TrainingError, match="loss is nan in epoch 2 at learning rate"
        ):
            helpers.fit(fresh, few, QUICK, checkpoint=checkpoint)
    assert checkpoint.read_bytes() == good


def test_validation_loss_that_is_no_number_stops_the_run(few, tmp_path, monkeypatch):
    nowhere = {"loss": float("nan"), "accuracy": 0.1, "correct": 20, "images": 200}
    monkeypatch.setattr(helpers, "evaluate", lambda *_: nowhere)
    checkpoint = tmp_path / "run.checkpoint"
    with pytest.raises(TrainingError, match="validation loss is nan in epoch 1 .* 0.1"):
        train(few, validation=few, checkpoint=checkpoint)
    assert not checkpoint.exists()


def test_weight_that_is_no_number_after_the_last_step_stops_the_run(few, tmp_path):
    """Its loss was taken before that step, and is a number still."""
    train_epoch = helpers.train_epoch

    def poisoned(model, *others):
        sums = train_epoch(model, *others)
        model.fc.bias.data[0] = float("inf")
        return sums

    checkpoint = tmp_path / "run.checkpoint"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(helpers, "train_epoch", poisoned)
        with pytest.raises(TrainingError, match="fc.bias is not finite in epoch 1 at"):
            train(few, checkpoint=checkpoint)
    assert not checkpoint.exists()


def test_absurd_rate_is_stopped(few):
    with pytest.raises(TrainingError, match="in epoch 1 at learning rates .*lower"):
        train(few, Recipe(epochs=1, batch_size=10, peak_rate=1e6))


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"warm_up": 0},
        {"optimizer": "sdg"},
        {"averaging": 1.0},
        {"seed": -1},
    ],
)
def test_impossible_recipe_is_refused(wrong):
    with pytest.raises(ValueError, match="a recipe needs .*: Recipe") as caught:
        Recipe(**(vars(QUICK) | wrong))
    assert next(iter(wrong)) in str(caught.value).split("Recipe(")[0]


# ---------------------------------------------------------------- files


def test_weights_survive_the_file(few, tmp_path):
    model, _ = train(few)
    helpers.save_tensors(tmp_path / "w.safetensors", model.state_dict())
    other = resnet.build_model("resnet8")
    helpers.load_weights(other, tmp_path / "w.safetensors")
    assert same_weights(model, other)


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
    helpers.save_tensors(tmp_path / "w.safetensors", tensors)
    with pytest.raises(TrainingError, match=message):
        helpers.load_weights(resnet.build_model("resnet8"), tmp_path / "w.safetensors")


def test_weights_of_another_depth_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    helpers.save_tensors(path, resnet.build_model("resnet14").state_dict())
    with pytest.raises(TrainingError, match="another model: it holds layer1.1"):
        helpers.load_weights(resnet.build_model("resnet8"), path)


@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "text"])
def test_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "w.safetensors"
    helpers.save_tensors(path, resnet.build_model("resnet8").state_dict())
    if damage == "missing":
        path.unlink()
    else:
        cut = {"cut": path.read_bytes()[:1000], "empty": b"", "text": b"hello" * 99}
        path.write_bytes(cut[damage])
    with pytest.raises(TrainingError, match="w.safetensors is missing or damaged"):
        helpers.load_weights(resnet.build_model("resnet8"), path)


def test_checkpoint_of_another_recipe_names_the_difference(few, tmp_path):
    checkpoint = tmp_path / "run.checkpoint"
    train(few, checkpoint=checkpoint)
    other = Recipe(**(vars(QUICK) | {"peak_rate": 0.3}))
    with pytest.raises(TrainingError, match="made with peak_rate = 0.1, not 0.3"):
        train(few, other, checkpoint=checkpoint)


def test_checkpoint_of_another_network_is_refused(few, tmp_path):
    checkpoint = tmp_path / "run.checkpoint"
    train(few, checkpoint=checkpoint, about={"shortcut": "A"})
    with pytest.raises(TrainingError, match="made with shortcut = A, not none"):
        train(few, checkpoint=checkpoint, about={"shortcut": "none"})


def test_sgd_can_do_without_momentum(few):
    _, history = train(few, but(momentum=0.0))
    assert history[1]["loss"] < history[0]["loss"] + 0.1


def test_checkpoint_of_other_images_is_refused(few, tmp_path):
    checkpoint = tmp_path / "run.checkpoint"
    train(few, checkpoint=checkpoint)
    with pytest.raises(TrainingError, match="made with images = 200, not 100"):
        train((few[0][:100], few[1][:100]), checkpoint=checkpoint)


def test_weights_are_no_checkpoint(few, tmp_path):
    path = tmp_path / "w.safetensors"
    helpers.save_tensors(path, resnet.build_model("resnet8").state_dict())
    with pytest.raises(TrainingError, match="is no checkpoint"):
        train(few, checkpoint=path)


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
sys.path.insert(0, sys.argv[1])
import helpers, resnet
from pathlib import Path
try:
    helpers.save_tensors(Path(sys.argv[2]), resnet.build_model("resnet8").state_dict())
except OSError as problem:
    print("refused:", problem)
"""


def test_disk_that_is_full_loses_nothing(tmp_path):
    """A limit on the size of files stands for the full disk: writing fails half-way."""
    path = tmp_path / "w.safetensors"
    path.write_text("what was there")
    book = str(Path(helpers.__file__).parent)
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
        helpers.write_whole(path, fail)
    assert list(path.parent.iterdir()) == []


def test_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/record.json cannot be written .* room"):
        helpers.write_record(tmp_path / "file" / "record.json", {})


def test_files_can_be_read_by_others(tmp_path):
    path = tmp_path / "w.safetensors"
    helpers.save_tensors(path, {"w": torch.ones(1)})
    assert path.stat().st_mode & 0o777 == 0o644


def test_record_without_numbers_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        helpers.write_record(tmp_path / "run.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_record_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(helpers, "RESULTS", tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"name": "run"}))
    assert helpers.read_record("run") == {"name": "run"}


# ---------------------------------------------------------------- plots


def test_image_grid_shows_the_pixels_and_titles(sample, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: None)
    helpers.show_images(sample.train.images[:7], list("abcdefg"), columns=5, title="T")
    axes = plt.gcf().axes
    assert len(axes) == 10 and plt.gcf().get_suptitle() == "T"
    assert [axis.get_title() for axis in axes[:7]] == list("abcdefg")
    shown = axes[6].images[0]
    assert (np.asarray(shown.get_array()) == sample.train.images[6]).all()
    assert shown.get_interpolation() == "nearest"
    assert not axes[7].images
    plt.close("all")


def test_curves_are_labelled_at_their_ends():
    helpers.plot_curves({"a": [1, 2, 3], "b": [3, 2]}, "title", "loss")
    axis = plt.gca()
    assert [line.get_xdata().tolist() for line in axis.lines] == [[1, 2, 3], [1, 2]]
    assert [(t.get_text(), t.xy) for t in axis.texts] == [("a", (3, 3)), ("b", (2, 2))]
    assert (axis.get_title("left"), axis.get_ylabel()) == ("title", "loss")
    plt.close("all")
