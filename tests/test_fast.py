"""The fast network: its filters, its steps, its pictures, and a run that is cut off."""

import numpy as np
import pytest
import torch
from safetensors import safe_open

import cifar10
import fast
import helpers

SMALL = (8, 16, 16)  # widths


def small_run(few):
    torch.manual_seed(0)
    model = fast.FastResNet(SMALL)
    recipe = fast.Recipe(epochs=3, batch_size=40, stem_epochs=1)
    fast.fit(model, few, recipe, report=lambda line: None)
    return model


def test_whitened_patches_do_not_correlate(sample):
    x = helpers.normalise(torch.tensor(sample.train.images[:500]))
    filters = fast.whitening_filters(x)
    assert torch.equal(filters[12:], -filters[:12])
    answers = torch.nn.functional.conv2d(x, filters[:12]).transpose(0, 1).flatten(1)
    products = answers @ answers.T / answers.shape[1]
    assert (products - torch.diag(products.diag())).abs().max() < 1e-3
    assert products.diag().max() < 1.001  # the least ones are held down
    assert products.diag().median() > 0.9


def test_training_starts_from_whitened_patches(few):
    filters = fast.whitening_filters(helpers.normalise(few[0]))
    assert torch.equal(small_run(few).stem.weight, filters)


def test_shortcut_doubles_what_reaches_the_head(sample):
    torch.manual_seed(0)
    model = fast.FastResNet()
    x = helpers.normalise(torch.tensor(sample.train.images[:500]))
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
    seen = fast.view(images, top, left, mirror).numpy()
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
        fast.predict_views(model, alike), helpers.predict(model, alike), atol=1e-5
    )
    padded = np.pad(images.numpy(), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    shares = {(1, 1): 0.5, (2, 2): 0.25, (0, 0): 0.25}
    expected = 0
    for (row, column), share in shares.items():
        place = torch.tensor(padded[:, row : row + 32, column : column + 32])
        for seen in (place, place.flip(2)):
            expected += share / 2 * helpers.predict(model, seen)
    assert torch.allclose(logits, expected, atol=1e-4)


def test_image_is_mirrored_in_every_other_epoch(few, monkeypatch):
    shown = []
    monkeypatch.setattr(
        fast, "view", lambda images, *where: shown.append(where[2]) or images
    )
    recipe = fast.Recipe(epochs=2, batch_size=100)
    model = fast.FastResNet(SMALL)
    optimizer = fast.make_optimizer(model, recipe)
    orders = []
    for epoch in (0, 1):
        generator = torch.Generator().manual_seed(epoch)
        orders.append(torch.randperm(200, generator=generator))
        fast.train_epoch(model, *few, optimizer, epoch, recipe)
    flags = [
        torch.cat(shown[2 * epoch :][:2])[orders[epoch].argsort()] for epoch in (0, 1)
    ]
    assert torch.equal(flags[0], ~flags[1])
    assert 60 < flags[0].sum() < 140


def test_rates_fall_to_zero_and_the_stem_stops_learning(few):
    torch.manual_seed(0)
    model = fast.FastResNet(SMALL)
    recipe = fast.Recipe(epochs=2, batch_size=100, stem_epochs=1)
    optimizer = fast.make_optimizer(model, recipe)
    rates = []
    optimizer.register_step_post_hook(
        lambda *_: rates.append([group["lr"] for group in optimizer.param_groups])
    )
    filters = model.stem.weight.clone()
    biases = []
    for epoch in (0, 1):
        biases.append(model.stem.bias.clone())
        fast.train_epoch(model, *few, optimizer, epoch, recipe)
    assert torch.equal(model.stem.weight, filters)
    assert not torch.equal(biases[0], biases[1])
    assert torch.equal(biases[1], model.stem.bias)
    for group in optimizer.param_groups[1:]:
        assert group["weight_decay"] * group["peak"] == pytest.approx(recipe.decay)
    expected = [[peak * (1 - t / 4) for peak in (0.24, 0.053, 0.67)] for t in range(4)]
    assert torch.allclose(torch.tensor(rates), torch.tensor(expected))


def test_each_kind_of_parameter_has_its_momentum():
    recipe = fast.Recipe(momentum=0.1, filter_momentum=0.2)
    optimizer = fast.make_optimizer(fast.FastResNet(SMALL), recipe)
    assert [g["momentum"] for g in optimizer.param_groups] == [0.2, 0.1, 0.1]


def test_it_learns(few):
    torch.manual_seed(0)
    recipe = fast.Recipe(epochs=8, batch_size=20, stem_epochs=1)
    history = fast.fit(fast.FastResNet(SMALL), few, recipe, few, report=lambda _: None)
    assert history[-1]["accuracy"] > history[0]["accuracy"] + 0.2
    assert history[-1]["validation_accuracy"] > 0.45


def test_run_that_is_cut_off_ends_with_the_same_weights(few, tmp_path):
    whole = small_run(few)
    path = tmp_path / "run.checkpoint"

    class CutOff(Exception):
        pass

    def cut(line):
        if line.startswith("epoch  2/3  loss "):
            raise CutOff

    torch.manual_seed(0)
    recipe = fast.Recipe(epochs=3, batch_size=40, stem_epochs=1)
    with pytest.raises(CutOff):
        fast.fit(fast.FastResNet(SMALL), few, recipe, checkpoint=path, report=cut)
    assert path.exists()
    torch.manual_seed(1)  # nothing may hang on how the network starts
    resumed = fast.FastResNet(SMALL)
    history = fast.fit(resumed, few, recipe, checkpoint=path, report=lambda line: None)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_too_few_images_are_named(few):
    with pytest.raises(ValueError, match="200 images fill no batch of 2000"):
        fast.fit(fast.FastResNet(SMALL), few, fast.Recipe())


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch_size": 0}, {"head_rate": 0}, {"seed": -1}]
)
def test_impossible_recipe_is_refused(wrong):
    with pytest.raises(ValueError, match="a recipe needs .*: Recipe"):
        fast.Recipe(**wrong)


def test_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(few, tmp_path):
    recipe = fast.Recipe(epochs=2, batch_size=40, head_rate=1e30, bias_rate=1e30)
    checkpoint = tmp_path / "run.checkpoint"
    model = fast.FastResNet(SMALL)
    optimizer = fast.make_optimizer(model, recipe)
    run = vars(recipe) | {"images": len(few[0])}
    first = {"epoch": 1, "loss": 2.3}
    helpers.save_checkpoint(checkpoint, model, optimizer, run, [first])
    good = checkpoint.read_bytes()
    with pytest.raises(helpers.TrainingError, match="in epoch 2 at .* 0.24: lower"):
        fast.fit(model, few, recipe, checkpoint=checkpoint, report=lambda line: None)
    assert checkpoint.read_bytes() == good


def test_checkpoint_of_another_run_is_refused(few, tmp_path):
    checkpoint = tmp_path / "run.checkpoint"
    recipe, model = fast.Recipe(epochs=1, batch_size=40), fast.FastResNet(SMALL)
    quiet = {"checkpoint": checkpoint, "report": lambda line: None}
    fast.fit(model, few, recipe, about={"threads": 2}, **quiet)
    with pytest.raises(helpers.TrainingError, match="made with threads = 2, not 1"):
        fast.fit(model, few, recipe, about={"threads": 1}, **quiet)


def test_command_line_writes_a_record(tmp_path, monkeypatch, sample):
    monkeypatch.setattr(cifar10, "load_full", lambda: sample)
    monkeypatch.setattr(fast.FastResNet, "__init__", narrow(fast.FastResNet.__init__))
    arguments = ["--epochs", "1", "--device", "cpu", "--name", "small"]
    arguments += ["--threads", "2", "--precision", "float32"]
    fast.main([*arguments, "--results", str(tmp_path)])
    with safe_open(tmp_path / "small.outputs.safetensors", "pt") as outputs:
        names = "logits", "labels", "six_views_logits"
        logits, labels, views = map(outputs.get_tensor, names)
    record = helpers.read_record(tmp_path / "small")
    model = fast.FastResNet()
    helpers.load_weights(model, tmp_path / "small.safetensors")
    again = helpers.predict(model, helpers.to_tensors(sample.test)[0])
    again -= again.max(dim=1, keepdim=True).values
    assert torch.equal(again.half(), logits)
    for z, key in ((logits, "test"), (views, "six_views")):
        right = int((z.float().argmax(dim=1) == labels).sum())
        assert record[key]["correct"] == right and record[key]["images"] == 1000
    assert record["command"].startswith("python book/fast.py --epochs 1")
    assert record["recipe"]["bf16"] is False
    assert record["machine"]["precision"] == "float32"
    with pytest.raises(SystemExit, match="exists: choose another --name"):
        fast.main([*arguments, "--results", str(tmp_path)])


def test_run_that_ctrl_c_stopped_goes_on(tmp_path, monkeypatch, sample, capsys):
    monkeypatch.setattr(cifar10, "load_full", lambda: sample)
    monkeypatch.setattr(fast.FastResNet, "__init__", narrow(fast.FastResNet.__init__))
    arguments = ["--epochs", "2", "--device", "cpu", "--results", str(tmp_path)]
    train_epoch = fast.train_epoch

    def stopped_in_the_second(model, images, labels, optimizer, epoch, recipe):
        if epoch == 1:
            raise KeyboardInterrupt
        return train_epoch(model, images, labels, optimizer, epoch, recipe)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(fast, "train_epoch", stopped_in_the_second)
        fast.main(arguments)
    checkpoint = tmp_path / "fast.checkpoint"
    assert f"with --resume goes on from {checkpoint}." in capsys.readouterr().out
    fast.main([*arguments, "--resume"])
    assert len(helpers.read_record(tmp_path / "fast")["history"]) == 2
    assert not checkpoint.exists()


def test_wrong_option_is_one_sentence(tmp_path, monkeypatch):
    folder = ["--results", str(tmp_path)]
    with pytest.raises(SystemExit, match="^fast.py: a recipe needs epochs"):
        fast.main(["--epochs", "0", *folder])
    with pytest.raises(SystemExit, match="^fast.py: no device 'abacus' here: use cpu"):
        fast.main(["--device", "abacus", *folder])
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="^fast.py: it trains in one process"):
        fast.main(folder)
    assert list(tmp_path.iterdir()) == []


def narrow(build):
    return lambda self: build(self, SMALL)
