"""Chapter 7's training as a full run does it: stopped, resumed, averaged, checked."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from runs import recipe as full
from runs.recipe import FullRecipe
from support import files
from support.files import TrainingError
from support.precision import train_in_bf16
from taught import resnet, training

QUICK = FullRecipe(epochs=2, batch_size=50, peak_rate=0.1)


def train(few, recipe=QUICK, **options):
    torch.manual_seed(0)
    model = resnet.build_model("resnet8")
    history = full.fit(model, few, recipe, report=lambda line: None, **options)
    return model, history


def same_weights(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values())
    return all(torch.equal(a, b) for a, b in pairs)


def test_it_ends_with_the_weights_of_the_lesson(few):
    """The driver, its checkpoint and its reports change no digit."""
    torch.manual_seed(0)
    plain = resnet.build_model("resnet8").to(memory_format=torch.channels_last)
    lesson = training.Recipe(**{k: getattr(QUICK, k) for k in vars(LESSON)})
    expected = training.fit(plain, few, lesson, report=lambda line: None)
    model, history = train(few)
    assert same_weights(plain, model)
    assert [row["loss"] for row in history] == [row["loss"] for row in expected]


LESSON = training.Recipe(epochs=1)


def test_switches_choose_other_functions_of_the_lesson(few, monkeypatch):
    monkeypatch.setattr(training, "augment", lambda *_: pytest.fail("augmented"))
    train(few, replace(QUICK, augment=False))
    with pytest.raises(pytest.fail.Exception, match="augmented"):
        train(few)


def test_rate_that_does_not_fall_stays_at_its_peak(few):
    _, history = train(few, replace(QUICK, fall=False))
    assert [row["rate"] for row in history] == [0.1, 0.1]


def test_adam_is_used_where_the_recipe_says_so(few):
    recipe = replace(QUICK, optimizer="adam", peak_rate=0.003)
    optimizer = full._make_optimizer(resnet.build_model("resnet8"), recipe)
    assert isinstance(optimizer, torch.optim.Adam)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [5e-4, 0]
    _, history = train(few, recipe)
    assert history[1]["loss"] < history[0]["loss"]


def test_averages_are_validated_and_kept(few, tmp_path):
    """Against averages added up by hand: old times 0.8 plus new times 0.2."""
    recipe = replace(QUICK, averaging=0.8)
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
    scores = training.evaluate(model, *few)
    assert history[-1]["validation_accuracy"] == scores["accuracy"]

    checkpoint = tmp_path / "run.checkpoint"
    stop_after(1, few, recipe, checkpoint)
    resumed = resnet.build_model("resnet8")
    full.fit(resumed, few, recipe, checkpoint=checkpoint)
    assert same_weights(model, resumed)


def test_bf16_trains_to_nearly_the_same(few):
    _, exact = train(few)
    _, halved = train(few, replace(QUICK, bf16=True))
    assert exact[-1]["loss"] != halved[-1]["loss"]
    assert exact[-1]["loss"] == pytest.approx(halved[-1]["loss"], abs=0.2)


def test_history_holds_the_validation_and_the_last_rate(few):
    model, history = train(few, validation=few)
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[-1]["rate"] == pytest.approx(training.learning_rate(7, 8, 0.1, 0.15))
    scores = training.evaluate(model, *few)
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
        full.fit(model, few, recipe, checkpoint=checkpoint, report=report)


@pytest.mark.parametrize("epoch", [1, 2])
def test_stopped_run_continues_to_the_same_weights(few, tmp_path, epoch):
    recipe = replace(QUICK, epochs=3)
    whole, expected = train(few, recipe)
    checkpoint = tmp_path / "run.checkpoint"
    stop_after(epoch, few, recipe, checkpoint)
    torch.manual_seed(99)  # the start is forgotten: all comes from the checkpoint
    resumed = resnet.build_model("resnet8")
    history = full.fit(resumed, few, recipe, checkpoint=checkpoint)
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
        patch.setattr(training, "train_epoch", poisoned)
        with pytest.raises(
            TrainingError, match="loss is nan in epoch 2 at learning rate"
        ):
            full.fit(fresh, few, QUICK, checkpoint=checkpoint)
    assert checkpoint.read_bytes() == good


def test_validation_loss_that_is_no_number_stops_the_run(few, tmp_path, monkeypatch):
    nowhere = {"loss": float("nan"), "accuracy": 0.1, "correct": 20, "images": 200}
    monkeypatch.setattr(training, "evaluate", lambda *_: nowhere)
    checkpoint = tmp_path / "run.checkpoint"
    with pytest.raises(TrainingError, match="validation loss is nan in epoch 1 .* 0.1"):
        train(few, validation=few, checkpoint=checkpoint)
    assert not checkpoint.exists()


def test_weight_that_is_no_number_after_the_last_step_stops_the_run(few, tmp_path):
    """Its loss was taken before that step, and is a number still."""
    train_epoch = training.train_epoch

    def poisoned(model, *others):
        sums = train_epoch(model, *others)
        model.fc.bias.data[0] = float("inf")
        return sums

    checkpoint = tmp_path / "run.checkpoint"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train_epoch", poisoned)
        with pytest.raises(TrainingError, match="fc.bias is not finite in epoch 1 at"):
            train(few, checkpoint=checkpoint)
    assert not checkpoint.exists()


def test_absurd_rate_is_stopped(few):
    with pytest.raises(TrainingError, match="in epoch 1 at learning rates .*lower"):
        train(few, FullRecipe(epochs=1, batch_size=10, peak_rate=1e6))


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
    with pytest.raises(ValueError, match="a recipe needs .*, not ") as caught:
        replace(QUICK, **wrong)
    assert next(iter(wrong)) in str(caught.value)


def test_checkpoint_of_another_recipe_names_the_difference(few, tmp_path):
    checkpoint = tmp_path / "run.checkpoint"
    train(few, checkpoint=checkpoint)
    other = replace(QUICK, peak_rate=0.3)
    with pytest.raises(TrainingError, match="made with peak_rate = 0.1, not 0.3"):
        train(few, other, checkpoint=checkpoint)


def test_checkpoint_of_another_network_is_refused(few, tmp_path):
    checkpoint = tmp_path / "run.checkpoint"
    train(few, checkpoint=checkpoint, known_as={"shortcut": "A"})
    with pytest.raises(TrainingError, match="made with shortcut = A, not none"):
        train(few, checkpoint=checkpoint, known_as={"shortcut": "none"})


def test_sgd_can_do_without_momentum(few):
    _, history = train(few, replace(QUICK, momentum=0.0))
    assert history[1]["loss"] < history[0]["loss"] + 0.1


def test_checkpoint_of_other_images_is_refused(few, tmp_path):
    checkpoint = tmp_path / "run.checkpoint"
    train(few, checkpoint=checkpoint)
    with pytest.raises(TrainingError, match="made with images = 200, not 100"):
        train((few[0][:100], few[1][:100]), checkpoint=checkpoint)


def test_weights_are_no_checkpoint(few, tmp_path):
    path = tmp_path / "w.safetensors"
    files.save_tensors(path, resnet.build_model("resnet8").state_dict())
    with pytest.raises(TrainingError, match="is no checkpoint"):
        train(few, checkpoint=path)


def test_copy_of_a_network_in_bf16_uses_its_own_weights(few):
    """Averages are a copy: were its call the original's, they would judge that."""
    model = resnet.build_model("resnet8")
    train_in_bf16(model)
    copied = copy.deepcopy(model).eval()
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert not copied(training.normalise(few[0][:2])).any()


def test_bf16_is_for_training_only_and_logits_are_float32(few):
    model, x = resnet.build_model("resnet8"), training.normalise(few[0][:8])
    exact = model.eval()(x)
    train_in_bf16(model)
    assert torch.equal(model(x), exact)
    model.train()
    found = []
    model.fc.register_forward_hook(lambda layer, given, out: found.append(out.dtype))
    assert model(x).dtype == torch.float32 and found == [torch.bfloat16]
