"""Chapter 7's lesson: images, rates, one epoch, and what the whole run gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as vision

from taught import resnet, training
from taught.training import Recipe

QUICK = Recipe(epochs=2, batch_size=50, peak_rate=0.1)


def train(few, recipe=QUICK, **options):
    torch.manual_seed(0)
    model = resnet.build_model("resnet8")
    history = training.fit(model, few, recipe, report=lambda line: None, **options)
    return model, history


def same_weights(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values())
    return all(torch.equal(a, b) for a, b in pairs)


def test_normalise_agrees_with_torchvision(few):
    images = few[0][:10]
    expected = vision.normalize(
        images.permute(0, 3, 1, 2) / 255, training.MEAN, training.STD
    )
    x = training.normalise(images)
    assert torch.allclose(x, expected, atol=1e-6)
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_augmented_image_is_a_crop_of_the_padded_one_perhaps_mirrored(few):
    images = few[0][:120]
    augmented = training.augment(images, torch.Generator().manual_seed(0))
    seen = set()
    for image, result in zip(images.numpy(), augmented.numpy()):
        padded = np.empty((40, 40, 3), np.uint8)
        padded[:] = np.round(255 * np.array(training.MEAN))
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
        training.augment(few[0], torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    )
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_rate_rises_to_its_peak_and_falls_to_zero():
    rates = [training.learning_rate(t, 200, peak=0.5, warm_up=0.25) for t in range(200)]
    assert np.argmax(rates) == 49 and max(rates) == pytest.approx(0.5)
    assert (np.diff(rates[:50]) > 0).all() and (np.diff(rates[50:]) < 0).all()
    assert 0 < rates[-1] < 0.01 and 0 < rates[0] <= 0.011


def test_only_layer_weights_are_decayed():
    model = resnet.build_model("resnet8")
    decayed, kept = training.make_optimizer(model, QUICK).param_groups
    assert decayed["weight_decay"] == QUICK.weight_decay and kept["weight_decay"] == 0
    assert len(decayed["params"]) == 8
    assert all(p.ndim == 1 for p in kept["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))


def test_rate_that_stays_rises_as_the_other_and_keeps_its_peak():
    stays = [training.constant_rate(t, 100, 0.5, 0.1) for t in range(100)]
    falls = [training.learning_rate(t, 100, 0.5, 0.1) for t in range(100)]
    assert stays[:10] == falls[:10] and set(stays[9:]) == {0.5}


def test_batches_show_every_image_once_with_its_label(few):
    images, labels = few
    batches = training.shuffled_batches(*few, QUICK, 0, training.as_they_are)
    x, y = map(torch.cat, zip(*batches))
    expected = training.normalise(images)
    assert not torch.equal(x, expected)
    place = {row.sum().item(): i for i, row in enumerate(expected)}
    found = [place[row.sum().item()] for row in x]
    assert sorted(found) == list(range(200))
    assert torch.equal(y, labels[found])


def test_images_are_augmented_unless_another_function_is_named(few, monkeypatch):
    plain = list(training.shuffled_batches(*few, QUICK, 0, training.as_they_are))
    usual = list(training.shuffled_batches(*few, QUICK, 0))
    assert not torch.equal(plain[0][0], usual[0][0])
    assert torch.equal(plain[0][1], usual[0][1])


def test_an_epoch_takes_a_step_a_batch_at_the_given_rates(few):
    model = resnet.build_model("resnet8")
    optimizer = training.make_optimizer(model, QUICK)
    rates, taken = iter([0.1, 0.2, 0.3, 0.4, 0.5]), []
    optimizer.register_step_post_hook(
        lambda *_: taken.append({group["lr"] for group in optimizer.param_groups})
    )
    batches = training.shuffled_batches(*few, QUICK, 0)
    training.train_epoch(model, batches, optimizer, rates, 0.05)
    assert taken == [{0.1}, {0.2}, {0.3}, {0.4}]
    assert next(rates) == 0.5  # four batches took four rates, and no fifth


def test_an_epoch_agrees_with_pytorch_step_by_step(few):
    """One batch, no augmentation: the loss, accuracy and weights of the plain way."""
    recipe = Recipe(epochs=1, batch_size=200, peak_rate=0.1)
    torch.manual_seed(0)
    ours, plain = resnet.build_model("resnet8"), resnet.build_model("resnet8")
    plain.load_state_dict(ours.state_dict())
    optimizer = training.make_optimizer(ours, recipe)
    batches = training.shuffled_batches(*few, recipe, 0, training.as_they_are)
    loss, accuracy = training.train_epoch(
        ours, batches, optimizer, [0.05], recipe.label_smoothing
    )

    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    logits = plain(training.normalise(few[0][order]))
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
    scores = training.evaluate(model, *few)
    model.eval()
    logits = model(training.normalise(few[0]))
    right = int((logits.argmax(1) == few[1]).sum())
    assert scores["correct"] == right and scores["images"] == 200
    assert scores["accuracy"] == right / 200
    expected = torch.nn.functional.cross_entropy(logits, few[1]).item()
    assert scores["loss"] == pytest.approx(expected, rel=1e-5)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    pieces = training.predict(model, few[0], batch_size=7)
    assert torch.allclose(pieces, logits, atol=1e-5)


def test_training_learns(few):
    model, history = train(few, Recipe(epochs=8, batch_size=20, peak_rate=0.05))
    assert history[-1]["loss"] < history[0]["loss"] - 0.2
    assert training.evaluate(model, *few)["accuracy"] > 0.3


def test_same_seed_same_weights_other_seed_others(few):
    (one, history), (two, again) = train(few), train(few)
    assert same_weights(one, two)
    assert [r["loss"] for r in history] == [r["loss"] for r in again]
    other, _ = train(few, replace(QUICK, seed=1))
    assert not same_weights(one, other)


def test_each_epoch_and_each_seed_has_an_order_of_its_own(few):
    orders = set()
    for seed in (0, 1):
        for epoch in (0, 1):
            recipe = replace(QUICK, seed=seed)
            batches = training.shuffled_batches(*few, recipe, epoch)
            orders.add(tuple(torch.cat([y for _, y in batches]).tolist()))
    assert len(orders) == 4


def test_history_holds_the_validation_of_each_epoch(few):
    model, history = train(few, validation=few)
    assert [row["epoch"] for row in history] == [1, 2]
    scores = training.evaluate(model, *few)
    assert history[-1]["validation_accuracy"] == scores["accuracy"]
    assert history[-1]["validation_loss"] == scores["loss"]
