"""Fine-tuning: what is frozen stays, what is trained moves, and at its own rate."""

import numpy as np
import pytest
import torch
from torch import nn

import cifar10
import finetune
import helpers
import resnet


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    model = resnet.build_model("resnet20", classes=6)
    model.train()(torch.randn(16, 3, 32, 32))  # statistics that are not 0 and 1
    return {name: t.clone() for name, t in model.state_dict().items()}


@pytest.fixture(scope="module")
def vehicles(sample):
    part = cifar10.only(sample.train, finetune.VEHICLES)
    return helpers.to_tensors(finetune.pick(part, 15, seed=0))


def moved(model, state):
    """The parts of the network in which a parameter or a statistic has changed."""
    pairs = model.state_dict().items()
    return {n.split(".")[0] for n, t in pairs if not torch.equal(t, state[n])}


def test_picked_images_are_balanced_different_and_drawn_by_the_seed(sample):
    part = cifar10.only(sample.train, finetune.VEHICLES)
    one, again, other = (finetune.pick(part, 25, seed) for seed in (0, 0, 1))
    assert np.bincount(one.labels).tolist() == [25] * 4
    assert len(set(one.indices)) == 100
    assert (one.indices == again.indices).all()
    assert set(one.indices) != set(other.indices)
    places = {index: k for k, index in enumerate(part.indices)}
    for image, label, index in zip(*one):
        assert (part.images[places[index]] == image).all()
        assert part.labels[places[index]] == label
    with pytest.raises(ValueError, match="larger sample"):
        finetune.pick(part, 201, seed=0)


def test_backbone_is_carried_over_and_the_head_is_not(state):
    model = resnet.build_model("resnet20", classes=4)
    head = model.fc.weight.detach().clone()
    assert finetune.carry_over(model, state) is model
    assert torch.equal(model.fc.weight, head) and len(head) == 4
    for name, tensor in model.state_dict().items():
        assert name.startswith("fc.") or torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("change", ["depth", "lost", "more", "shape"])
def test_another_backbone_is_refused_by_name(state, change):
    model = resnet.build_model("resnet14" if change == "depth" else "resnet20")
    state, name = dict(state), "layer2.0.conv1.weight"
    if change == "lost":
        state.pop(name)
    if change == "more":
        state[name := "layer9.weight"] = torch.zeros(1)
    if change == "shape":
        state[name] = torch.zeros(1, 1, 3, 3)
    if change == "depth":
        name = "layer1.2.conv1.weight"
    with pytest.raises(RuntimeError, match=name):
        finetune.carry_over(model, state)


def test_probe_moves_nothing_but_the_head(state, vehicles):
    model = finetune.adapt("linear probe", state, *vehicles, 3, 0.1, seed=0)
    for name, tensor in model.state_dict().items():
        assert name.startswith("fc.") or torch.equal(tensor, state[name]), name
    assert all(p.grad is None for n, p in model.named_parameters() if "fc" not in n)


@pytest.mark.parametrize("way", ["full", "by stage", "gradual"])
def test_the_other_ways_move_every_part(state, vehicles, way):
    model = finetune.adapt(way, state, *vehicles, 4, 0.1, seed=0)
    for name, p in model.named_parameters():
        assert name.startswith("fc.") or not torch.equal(p, state[name]), name


def test_gradual_starts_from_the_probes_head(state, vehicles):
    """With a rate of nearly 0 afterwards, it ends where a shorter probe does."""
    gradual = finetune.adapt("gradual", state, *vehicles, 8, 1e-12, seed=0)
    probe = finetune.adapt(
        "linear probe", state, *vehicles, 2, finetune.HEAD_RATE, seed=0
    )
    assert torch.allclose(gradual.fc.weight, probe.fc.weight, atol=1e-6)


@pytest.mark.parametrize("way", finetune.WAYS)
def test_every_way_spends_the_same_steps_at_its_own_rates(
    state, vehicles, way, monkeypatch
):
    calls = []
    monkeypatch.setattr(
        finetune,
        "fine_tune",
        lambda model, images, labels, groups, steps, seed: calls.append(
            (steps, [group["lr"] for group in groups])
        ),
    )
    finetune.adapt(way, state, *vehicles, 8, 0.4, seed=0)
    assert sum(steps for steps, _ in calls) == 8
    everything = [0.4] * 6
    expected = {
        "linear probe": [[0.4]],
        "by stage": [[0.4, 0.2, 0.1, 0.05, 0.025, 0.025]],
        "gradual": [[finetune.HEAD_RATE], everything],
    }
    assert [rates for _, rates in calls] == expected.get(way, [everything])


def test_scratch_takes_nothing_over(state, vehicles):
    one = finetune.adapt("from scratch", state, *vehicles, 2, 1e-12, seed=3)
    torch.manual_seed(3)
    fresh = resnet.build_model("resnet20", classes=4)
    assert torch.allclose(one.conv1.weight, fresh.conv1.weight, atol=1e-6)


def test_runs_of_one_seed_are_equal_and_of_two_are_not(state, vehicles):
    one, again, other = (
        finetune.adapt("full", state, *vehicles, 3, 0.1, seed) for seed in (0, 0, 1)
    )
    assert moved(one, again.state_dict()) == set()
    assert "fc" in moved(one, other.state_dict())


def test_rates_fall_from_the_head_to_the_stem(state):
    model = resnet.build_model("resnet20", classes=4)
    groups = finetune.stage_groups(model, rate=0.8, factor=0.5)
    rate_of = {p: group["lr"] for group in groups for p in group["params"]}
    expected = {"fc": 0.8, "layer3": 0.4, "layer2": 0.2, "layer1": 0.1}
    for name, p in model.named_parameters():
        assert rate_of[p] == pytest.approx(expected.get(name.split(".")[0], 0.05))
    finetune.freeze(model.layer2)
    groups = finetune.stage_groups(model, rate=0.8)
    kept = {p for group in groups for p in group["params"]}
    assert kept == {p for p in model.parameters() if p.requires_grad}
    assert {group["lr"] for group in groups} == {0.8}


def test_what_is_frozen_is_in_evaluation_mode_and_the_rest_in_training_mode():
    model = resnet.build_model("resnet8")
    finetune.freeze(model.layer1)
    finetune.train_mode(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training == (not name.startswith("layer1")), name
    finetune.freeze(model.layer1, False)
    finetune.train_mode(model)
    assert all(module.training for module in model.modules())


def test_group_of_rate_zero_stays_where_it_is(state, vehicles):
    torch.manual_seed(0)
    model = finetune.carry_over(resnet.build_model("resnet20", classes=4), state)
    groups = finetune.stage_groups(model, rate=0.1)
    for group in groups[1:]:
        group["lr"] = 0.0
    finetune.fine_tune(model, *vehicles, groups, steps=3, seed=0)
    for name, p in model.named_parameters():
        assert torch.equal(p, state[name]) != name.startswith("fc."), name


def test_every_image_is_used_before_one_is_used_again(state, vehicles, monkeypatch):
    seen = []
    monkeypatch.setattr(
        helpers, "augment", lambda images, generator: seen.append(images) or images
    )
    model = finetune.carry_over(resnet.build_model("resnet20", classes=4), state)
    groups = finetune.stage_groups(model, rate=0.01)
    finetune.fine_tune(model, *vehicles, groups, steps=3, seed=0, batch_size=20)
    used = torch.cat(seen).flatten(1)
    assert len(torch.unique(used, dim=0)) == len(used) == 60


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_features_are_those_of_the_network(state, stem):
    model = resnet.build_model("resnet20", classes=6, stem=stem)
    if stem == "cifar":
        model.load_state_dict(state)
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    found = finetune.features(model, images)
    sizes = [found[name].shape[1] for name in found]
    assert list(found) == ["stem", "layer1", "layer2", "layer3"]
    assert sizes == [16, 16, 32, 64]
    logits = model.fc(found["layer3"])
    assert torch.allclose(logits, helpers.predict(model, images), atol=1e-5)


def test_cka_is_the_published_formula():
    """Kornblith et al. (2019): |B'A|² / (|A'A| |B'B|), centred, of Frobenius norms."""
    torch.manual_seed(0)
    a, b = torch.randn(30, 7) + 3, torch.randn(30, 11)
    b[:, :7] += a
    x, y = a - a.mean(dim=0), b - b.mean(dim=0)
    expected = (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    assert finetune.cka(a, b) == pytest.approx(float(expected), rel=1e-5)
    assert finetune.cka(a, 5 * a + 2) == pytest.approx(1, abs=1e-6)


def test_another_head_is_put_on_and_taken_off_again(state, vehicles):
    model = resnet.build_model("resnet20", classes=4)
    own, head = model.fc, nn.Linear(64, 4)
    head.weight.data.zero_()
    head.bias.data = torch.tensor([0.0, 1.0, 0.0, 0.0])  # always the second class
    assert finetune.with_head(model, head, *vehicles) == pytest.approx(0.25)
    assert model.fc is own


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
