"""Fine-tuning: what is frozen stays, what is trained moves, and at its own rate."""

import numpy as np
import pytest
import torch
from torch import nn

from support import cifar10
from taught import finetuning, resnet, training

VEHICLES = (0, 1, 8, 9)


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    model = resnet.build_model("resnet20", classes=6)
    model.train()(torch.randn(16, 3, 32, 32))  # statistics that are not 0 and 1
    return {name: t.clone() for name, t in model.state_dict().items()}


@pytest.fixture(scope="module")
def vehicles(sample):
    part = cifar10.only(sample.train, VEHICLES)
    places = finetuning.pick(part.labels, 15, seed=0)
    images, labels = cifar10.to_tensors(part)
    return images[places], labels[places]


def adapted(way, state, vehicles, steps, rate, seed):
    """The network that one of the ways ends with."""
    model = finetuning.start(way, state, classes=4, seed=seed)
    finetuning.adapt(way, model, *vehicles, steps, rate, seed)
    return model


def moved(model, state):
    """The parts of the network in which a parameter or a statistic has changed."""
    pairs = model.state_dict().items()
    return {n.split(".")[0] for n, t in pairs if not torch.equal(t, state[n])}


def test_picked_images_are_balanced_different_and_drawn_by_the_seed(sample):
    part = cifar10.only(sample.train, VEHICLES)
    one, again, other = (finetuning.pick(part.labels, 25, s) for s in (0, 0, 1))
    assert np.bincount(part.labels[one]).tolist() == [25] * 4
    assert len(set(one)) == 100
    assert (one == again).all()
    assert set(one) != set(other)
    with pytest.raises(ValueError, match="larger sample"):
        finetuning.pick(part.labels, 201, seed=0)


def test_backbone_is_carried_over_and_the_head_is_not(state):
    model = resnet.build_model("resnet20", classes=4)
    head = model.fc.weight.detach().clone()
    assert finetuning.carry_over(model, state) is model
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
        finetuning.carry_over(model, state)


def test_probe_moves_nothing_but_the_head(state, vehicles):
    model = adapted("linear probe", state, vehicles, 3, 0.1, seed=0)
    for name, tensor in model.state_dict().items():
        assert name.startswith("fc.") or torch.equal(tensor, state[name]), name
    assert all(p.grad is None for n, p in model.named_parameters() if "fc" not in n)


@pytest.mark.parametrize("way", ["full", "by stage", "gradual"])
def test_the_other_ways_move_every_part(state, vehicles, way):
    model = adapted(way, state, vehicles, 4, 0.1, seed=0)
    for name, p in model.named_parameters():
        assert name.startswith("fc.") or not torch.equal(p, state[name]), name


def test_gradual_starts_from_the_probes_head(state, vehicles):
    """With a rate of nearly 0 afterwards, it ends where a shorter probe does."""
    gradual = adapted("gradual", state, vehicles, 8, 1e-12, seed=0)
    probe = adapted("linear probe", state, vehicles, 2, finetuning.HEAD_RATE, seed=0)
    assert torch.allclose(gradual.fc.weight, probe.fc.weight, atol=1e-6)


@pytest.mark.parametrize("way", finetuning.WAYS)
def test_every_way_spends_the_same_steps_at_its_own_rates(
    state, vehicles, way, monkeypatch
):
    calls = []
    monkeypatch.setattr(
        finetuning,
        "fine_tune",
        lambda model, images, labels, groups, steps, seed: calls.append(
            (steps, [group["lr"] for group in groups])
        ),
    )
    adapted(way, state, vehicles, 8, 0.4, seed=0)
    assert sum(steps for steps, _ in calls) == 8
    everything = [0.4] * 6
    expected = {
        "linear probe": [[0.4]],
        "by stage": [[0.4, 0.2, 0.1, 0.05, 0.025, 0.025]],
        "gradual": [[finetuning.HEAD_RATE], everything],
    }
    assert [rates for _, rates in calls] == expected.get(way, [everything])


def test_scratch_takes_nothing_over(state, vehicles):
    one = adapted("from scratch", state, vehicles, 2, 1e-12, seed=3)
    torch.manual_seed(3)
    fresh = resnet.build_model("resnet20", classes=4)
    assert torch.allclose(one.conv1.weight, fresh.conv1.weight, atol=1e-6)


def test_runs_of_one_seed_are_equal_and_of_two_are_not(state, vehicles):
    one, again, other = (
        adapted("full", state, vehicles, 3, 0.1, seed) for seed in (0, 0, 1)
    )
    assert moved(one, again.state_dict()) == set()
    assert "fc" in moved(one, other.state_dict())


def test_rates_fall_from_the_head_to_the_stem(state):
    model = resnet.build_model("resnet20", classes=4)
    groups = finetuning.stage_groups(model, rate=0.8, factor=0.5)
    rate_of = {p: group["lr"] for group in groups for p in group["params"]}
    expected = {"fc": 0.8, "layer3": 0.4, "layer2": 0.2, "layer1": 0.1}
    for name, p in model.named_parameters():
        assert rate_of[p] == pytest.approx(expected.get(name.split(".")[0], 0.05))
    finetuning.freeze(model.layer2)
    groups = finetuning.stage_groups(model, rate=0.8)
    kept = {p for group in groups for p in group["params"]}
    assert kept == {p for p in model.parameters() if p.requires_grad}
    assert {group["lr"] for group in groups} == {0.8}


def test_what_is_frozen_is_in_evaluation_mode_and_the_rest_in_training_mode():
    model = resnet.build_model("resnet8")
    finetuning.freeze(model.layer1)
    finetuning.train_mode(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training == (not name.startswith("layer1")), name
    finetuning.freeze(model.layer1, False)
    finetuning.train_mode(model)
    assert all(module.training for module in model.modules())


def test_group_of_rate_zero_stays_where_it_is(state, vehicles):
    torch.manual_seed(0)
    model = finetuning.carry_over(resnet.build_model("resnet20", classes=4), state)
    groups = finetuning.stage_groups(model, rate=0.1)
    for group in groups[1:]:
        group["lr"] = 0.0
    finetuning.fine_tune(model, *vehicles, groups, steps=3, seed=0)
    for name, p in model.named_parameters():
        assert torch.equal(p, state[name]) != name.startswith("fc."), name


def test_every_image_is_used_before_one_is_used_again(state, vehicles, monkeypatch):
    seen = []
    monkeypatch.setattr(
        finetuning, "augment", lambda images, generator: seen.append(images) or images
    )
    model = finetuning.carry_over(resnet.build_model("resnet20", classes=4), state)
    groups = finetuning.stage_groups(model, rate=0.01)
    finetuning.fine_tune(model, *vehicles, groups, steps=3, seed=0, batch_size=20)
    used = torch.cat(seen).flatten(1)
    assert len(torch.unique(used, dim=0)) == len(used) == 60


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_features_are_those_of_the_network(state, stem):
    model = resnet.build_model("resnet20", classes=6, stem=stem)
    if stem == "cifar":
        model.load_state_dict(state)
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    found = finetuning.features(model, images)
    sizes = [found[name].shape[1] for name in found]
    assert list(found) == ["stem", "layer1", "layer2", "layer3"]
    assert sizes == [16, 16, 32, 64]
    logits = model.fc(found["layer3"])
    assert torch.allclose(logits, training.predict(model, images), atol=1e-5)


def test_cka_is_the_published_formula():
    """Kornblith et al. (2019): |B'A|² / (|A'A| |B'B|), centred, of Frobenius norms."""
    torch.manual_seed(0)
    a, b = torch.randn(30, 7) + 3, torch.randn(30, 11)
    b[:, :7] += a
    x, y = a - a.mean(dim=0), b - b.mean(dim=0)
    expected = (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    assert finetuning.cka(a, b) == pytest.approx(float(expected), rel=1e-5)
    assert finetuning.cka(a, 5 * a + 2) == pytest.approx(1, abs=1e-6)


def test_another_head_is_put_on_and_taken_off_again(state, vehicles):
    model = resnet.build_model("resnet20", classes=4)
    own, head = model.fc, nn.Linear(64, 4)
    head.weight.data.zero_()
    head.bias.data = torch.tensor([0.0, 1.0, 0.0, 0.0])  # always the second class
    assert finetuning.with_head(model, head, *vehicles) == pytest.approx(0.25)
    assert model.fc is own
