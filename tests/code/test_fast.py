"""The fast network: its filters, its steps, its pictures, and its rates."""

import numpy as np
import pytest
import torch

from taught import fast, training

SMALL = (8, 16, 16)  # widths


def test_whitened_patches_do_not_correlate(sample):
    x = training.normalise(torch.tensor(sample.train.images[:500]))
    filters = fast.whitening_filters(x)
    assert torch.equal(filters[12:], -filters[:12])
    answers = torch.nn.functional.conv2d(x, filters[:12]).transpose(0, 1).flatten(1)
    products = answers @ answers.T / answers.shape[1]
    assert (products - torch.diag(products.diag())).abs().max() < 1e-3
    assert products.diag().max() < 1.001  # the least ones are held down
    assert products.diag().median() > 0.9


def test_shortcut_doubles_what_reaches_the_head(sample):
    torch.manual_seed(0)
    model = fast.FastResNet()
    x = training.normalise(torch.tensor(sample.train.images[:500]))
    model.stem.weight.copy_(fast.whitening_filters(x))
    reached = []
    for part in (model.stages[2].bn2, model.stages[2]):
        part.register_forward_hook(lambda part, given, out: reached.append(out))
    with torch.no_grad():
        logits = model(x)
        without = torch.nn.functional.gelu(reached[0]).amax(dim=(2, 3))
        alone = model.head(without) / without.shape[1]
    ratio = float(reached[1].amax(dim=(2, 3)).mean() / without.mean())
    assert ratio == pytest.approx(2, abs=0.1)
    assert float(logits.norm() / alone.norm()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("shape", [(20, 50), (50, 20)])
def test_orthogonalise_keeps_singular_vectors_and_evens_out_values(shape):
    G = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    U, s, V = torch.linalg.svd(G, full_matrices=False)
    s = s / s.square().sum().sqrt()
    for _ in range(3):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    assert torch.allclose(fast.orthogonalise(G), U @ torch.diag(s) @ V, atol=1e-6)
    assert s.min() > 0.6 and s.max() < 1.3


def test_muon_takes_pytorchs_steps_where_it_moves_no_filters():
    start = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    ours, theirs = (start.clone().requires_grad_() for _ in range(2))
    group = {"lr": 0.1, "momentum": 0.85, "weight_decay": 0.01}
    optimizers = [
        fast.Muon([{"params": [ours], **group}]),
        torch.optim.SGD([theirs], nesterov=True, **group),
    ]
    for _ in range(5):
        for p, optimizer in zip((ours, theirs), optimizers):
            optimizer.zero_grad()
            (p**3).sum().backward()
            optimizer.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_muon_scales_filters_and_moves_them_along_an_orthogonal_matrix():
    p = torch.randn(6, 4, 3, 3).requires_grad_()
    optimizer = fast.Muon([{"params": [p], "lr": 0.5, "momentum": 0.6}])
    before = p.detach() * 6**0.5 / p.detach().norm()
    (p**2).sum().backward()
    optimizer.step()
    move = (before - p.detach()).flatten(1) / 0.5
    assert torch.allclose(move, fast.orthogonalise(p.grad.flatten(1)), atol=1e-4)


def test_view_moves_mirrors_and_reflects_at_the_border():
    images = torch.randint(256, (3, 32, 32, 3)).to(torch.uint8)
    top, left = torch.tensor([2, 0, -1]), torch.tensor([0, -2, 1])
    mirror = torch.tensor([False, True, False])
    seen = fast.shift_and_mirror(images, top, left, mirror).numpy()
    for image, t, x, flip, one in zip(images.numpy(), top, left, mirror, seen):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
        expected = padded[2 + t : 34 + t, 2 + x : 34 + x]
        assert (one == (expected[:, ::-1] if flip else expected)).all()


def test_six_views_are_three_places_and_their_mirror_images(few):
    model = fast.FastResNet(SMALL)
    images = few[0][:8]
    logits = fast.predict_views(model, images)
    alike = torch.full_like(images, 90)  # moved or not
    assert torch.allclose(
        fast.predict_views(model, alike), training.predict(model, alike), atol=1e-5
    )
    padded = np.pad(images.numpy(), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    shares = {(1, 1): 0.5, (2, 2): 0.25, (0, 0): 0.25}
    expected = 0
    for (row, column), share in shares.items():
        place = torch.tensor(padded[:, row : row + 32, column : column + 32])
        for seen in (place, place.flip(2)):
            expected += share / 2 * training.predict(model, seen)
    assert torch.allclose(logits, expected, atol=1e-4)


def test_image_is_mirrored_in_every_other_epoch(few, monkeypatch):
    shown = []
    monkeypatch.setattr(
        fast,
        "shift_and_mirror",
        lambda images, *where: shown.append(where[2]) or images,
    )
    recipe = fast.FastRecipe(epochs=2, batch_size=100)
    model = fast.FastResNet(SMALL)
    optimizer = fast.make_optimizer(model, recipe)
    orders = []
    for epoch in (0, 1):
        generator = torch.Generator().manual_seed(epoch)
        orders.append(torch.randperm(200, generator=generator))
        fast.train_fast_epoch(model, *few, optimizer, recipe, epoch)
    flags = [
        torch.cat(shown[2 * epoch :][:2])[orders[epoch].argsort()] for epoch in (0, 1)
    ]
    assert torch.equal(flags[0], ~flags[1])
    assert 60 < flags[0].sum() < 140


def test_rates_fall_to_zero_and_the_stem_stops_learning(few):
    torch.manual_seed(0)
    model = fast.FastResNet(SMALL)
    recipe = fast.FastRecipe(epochs=2, batch_size=100, stem_epochs=1)
    optimizer = fast.make_optimizer(model, recipe)
    rates = []
    optimizer.register_step_post_hook(
        lambda *_: rates.append([group["lr"] for group in optimizer.param_groups])
    )
    filters = model.stem.weight.clone()
    biases = []
    for epoch in (0, 1):
        biases.append(model.stem.bias.clone())
        fast.train_fast_epoch(model, *few, optimizer, recipe, epoch)
    assert torch.equal(model.stem.weight, filters)
    assert not torch.equal(biases[0], biases[1])
    assert torch.equal(biases[1], model.stem.bias)
    for group in optimizer.param_groups[1:]:
        assert group["weight_decay"] * group["peak"] == pytest.approx(recipe.decay)
    expected = [[peak * (1 - t / 4) for peak in (0.24, 0.053, 0.67)] for t in range(4)]
    assert torch.allclose(torch.tensor(rates), torch.tensor(expected))


def test_each_kind_of_parameter_has_its_momentum():
    recipe = fast.FastRecipe(momentum=0.1, filter_momentum=0.2)
    optimizer = fast.make_optimizer(fast.FastResNet(SMALL), recipe)
    assert [g["momentum"] for g in optimizer.param_groups] == [0.2, 0.1, 0.1]
