"""The NumPy network: its gradients by two independent ways, and its errors."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import scratch
from scratch import (
    GELU,
    MSE,
    SGD,
    Adam,
    LeakyReLU,
    Linear,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
)
from scratch import SoftmaxCrossEntropy as CrossEntropy

settings.register_profile("book", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("book")

ACTIVATIONS = {
    Sigmoid: torch.sigmoid,
    Tanh: torch.tanh,
    ReLU: torch.relu,
    LeakyReLU: F.leaky_relu,
    GELU: lambda z: F.gelu(z, approximate="tanh"),
}
sizes = st.integers(1, 6)
seeds = st.integers(0, 2**32 - 1)


def network(generator, inputs=5, classes=4):
    return Sequential(
        Linear(inputs, 7, generator),
        ReLU(),
        Linear(7, 6, generator),
        Tanh(),
        Linear(6, classes, generator),
    )


def twin(model):
    """The same network in PyTorch, on the same weights."""
    kinds = {ReLU: torch.nn.ReLU, Tanh: torch.nn.Tanh, Sigmoid: torch.nn.Sigmoid}
    layers = []
    for layer in model.layers:
        if isinstance(layer, Linear):
            W, b = layer.params["W"], layer.params["b"]
            linear = torch.nn.Linear(*W.shape, dtype=torch.float64)
            with torch.no_grad():
                linear.weight.copy_(torch.tensor(W.T))
                linear.bias.copy_(torch.tensor(b))
            layers.append(linear)
        else:
            layers.append(kinds[type(layer)]())
    return torch.nn.Sequential(*layers)


# ---------------------------------------------------------------- gradients


@given(n=sizes, inputs=sizes, outputs=sizes, seed=seeds)
def test_linear_agrees_with_differences_and_pytorch(n, inputs, outputs, seed):
    generator = np.random.default_rng(seed)
    layer = Linear(inputs, outputs, generator)
    layer.params["b"] += generator.standard_normal(outputs)
    x = generator.standard_normal((n, inputs))
    assert max(scratch.check_gradients(layer, x).values()) < 1e-6

    tensors = [torch.tensor(a, requires_grad=True) for a in (x, *layer.params.values())]
    z = tensors[0] @ tensors[1] + tensors[2]
    dz = generator.standard_normal(z.shape)
    z.backward(torch.tensor(dz))
    assert np.allclose(layer.forward(x), z.detach(), rtol=0, atol=1e-10)
    found = [layer.backward(dz), layer.grads["W"], layer.grads["b"]]
    for a, b in zip(found, tensors):
        assert a.shape == b.shape
        assert np.allclose(a, b.grad, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ACTIVATIONS)
@given(n=sizes, width=sizes, seed=seeds)
def test_activations_agree_with_differences_and_pytorch(kind, n, width, seed):
    generator = np.random.default_rng(seed)
    z = generator.uniform(0.01, 4, (n, width)) * generator.choice([-1, 1], (n, width))
    layer = kind()
    assert scratch.check_gradients(layer, z)["x"] < 1e-6
    da = generator.standard_normal(z.shape)
    t = torch.tensor(z, requires_grad=True)
    a = ACTIVATIONS[kind](t)
    a.backward(torch.tensor(da))
    assert np.allclose(layer.forward(z), a.detach(), rtol=0, atol=1e-10)
    assert np.allclose(layer.backward(da), t.grad, rtol=0, atol=1e-10)


@given(n=sizes, classes=st.integers(2, 8), seed=seeds, scale=st.sampled_from([1, 30]))
def test_cross_entropy_agrees_with_differences_and_pytorch(n, classes, seed, scale):
    generator = np.random.default_rng(seed)
    z = scale * generator.standard_normal((n, classes))
    labels = generator.integers(0, classes, n)
    loss = CrossEntropy()
    if scale == 1:
        assert scratch.check_gradients(loss, z, labels)["x"] < 1e-6
    t = torch.tensor(z, requires_grad=True)
    expected = F.cross_entropy(t, torch.tensor(labels))
    expected.backward()
    assert loss.forward(z, labels) == pytest.approx(expected.item(), abs=1e-10)
    assert np.allclose(loss.backward(), t.grad, rtol=0, atol=1e-10)


@given(n=sizes, width=sizes, seed=seeds)
def test_mse_agrees_with_differences_and_pytorch(n, width, seed):
    generator = np.random.default_rng(seed)
    y, target = generator.standard_normal((2, n, width))
    loss = MSE()
    assert scratch.check_gradients(loss, y, target)["x"] < 1e-6
    t = torch.tensor(y, requires_grad=True)
    expected = F.mse_loss(t, torch.tensor(target))
    expected.backward()
    assert loss.forward(y, target) == pytest.approx(expected.item(), abs=1e-10)
    assert np.allclose(loss.backward(), t.grad, rtol=0, atol=1e-10)


@given(seed=seeds)
def test_whole_network_agrees_with_pytorch(seed):
    generator = np.random.default_rng(seed)
    model = network(generator)
    x, labels = generator.standard_normal((8, 5)), generator.integers(0, 4, 8)
    loss, other = CrossEntropy(), twin(model)
    value = loss.forward(model.forward(x), labels)
    model.backward(loss.backward())
    expected = F.cross_entropy(other(torch.tensor(x)), torch.tensor(labels))
    expected.backward()
    assert value == pytest.approx(expected.item(), abs=1e-10)
    for i in (0, 2, 4):
        for name, theirs in (("W", other[i].weight.grad.T), ("b", other[i].bias.grad)):
            ours = model.grads[f"{i}.{name}"]
            assert np.allclose(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_logits_give_no_overflow(size):
    z = np.array([[size, 0.0, -size], [size, size, size]])
    loss = CrossEntropy()
    with np.errstate(all="raise", under="ignore"):
        value = loss.forward(z, np.array([1, 2]))
        gradient = loss.backward()
        Sigmoid().forward(z)
    expected = F.cross_entropy(torch.tensor(z), torch.tensor([1, 2]))
    assert value == pytest.approx(expected.item())
    assert np.isfinite(gradient).all()


def test_gradient_check_sees_a_wrong_sign_and_leaves_the_layer_alone():
    class Wrong(Linear):
        def backward(self, dz):
            dx = super().backward(dz)
            self.grads["W"] *= -1
            return dx

    generator = np.random.default_rng(0)
    layer, x = Wrong(3, 2, generator), generator.standard_normal((4, 3))
    kept = layer.params["W"].copy(), x.copy()
    errors = scratch.check_gradients(layer, x)
    assert errors["W"] > 0.9 and errors["b"] < 1e-6 and errors["x"] < 1e-6
    assert (layer.params["W"] == kept[0]).all() and (x == kept[1]).all()


def test_gradient_check_refuses_float32():
    layer = Linear(3, 2, np.random.default_rng(0), dtype=np.float32)
    with pytest.raises(ValueError, match="needs float64"):
        scratch.check_gradients(layer, np.zeros((1, 3), np.float32))


# ---------------------------------------------------------------- optimisers


PAIRS = {
    "sgd": (lambda m: SGD(m, 0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (
        lambda m: SGD(m, 0.1, momentum=0.9, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
    ),
    "nesterov": (
        lambda m: SGD(m, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        lambda p: torch.optim.SGD(
            p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01
        ),
    ),
    "adam": (lambda m: Adam(m, 0.01), lambda p: torch.optim.Adam(p, 0.01)),
}


@pytest.mark.parametrize("ours, theirs", PAIRS.values(), ids=PAIRS)
def test_optimisers_agree_with_pytorch_over_twenty_steps(ours, theirs):
    generator = np.random.default_rng(0)
    model, loss = network(generator), CrossEntropy()
    other = twin(model)
    optimiser, reference = ours(model), theirs(other.parameters())
    for _ in range(20):
        x, labels = generator.standard_normal((8, 5)), generator.integers(0, 4, 8)
        loss.forward(model.forward(x), labels)
        model.backward(loss.backward())
        optimiser.step()
        reference.zero_grad()
        F.cross_entropy(other(torch.tensor(x)), torch.tensor(labels)).backward()
        reference.step()
    for i in (0, 2, 4):
        W, b = model.params[f"{i}.W"], model.params[f"{i}.b"]
        assert np.allclose(W, other[i].weight.detach().T, rtol=0, atol=1e-6)
        assert np.allclose(b, other[i].bias.detach(), rtol=0, atol=1e-6)


def test_float32_stays_float32():
    generator = np.random.default_rng(0)
    layers = [kind() for kind in ACTIVATIONS]
    model = Sequential(Linear(4, 3, generator, np.float32), *layers)
    for optimiser in (SGD(model, 0.1, 0.9, True, 0.01), Adam(model)):
        x = generator.standard_normal((5, 4)).astype(np.float32)
        assert model.forward(x).dtype == np.float32
        assert model.backward(np.ones((5, 3), np.float32)).dtype == np.float32
        optimiser.step()
        assert {p.dtype for p in model.params.values()} == {np.dtype(np.float32)}


def test_weights_start_with_hes_deviation():
    layer = Linear(1000, 500, np.random.default_rng(0))
    assert layer.params["W"].std() == pytest.approx(np.sqrt(2 / 1000), rel=0.01)
    assert (layer.params["b"] == 0).all()


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "x, message",
    [
        (np.ones(3), r"shape \(N, width\), not \(3,\)"),
        (np.ones((2, 3, 1)), r"not \(2, 3, 1\)"),
        ([[1.0, 2.0, 3.0]], "shape"),
        (np.ones((2, 4)), "4 columns, the layer 3 inputs"),
        (np.ones((2, 3), int), "floats, not int64"),
        (np.ones((0, 3)), "batch is empty"),
        (np.array([[1, np.nan, 2.0]]), "NaN or infinity"),
        (np.array([[1, np.inf, 2.0]]), "NaN or infinity"),
    ],
)
def test_wrong_batch_is_named(x, message):
    layer = Linear(3, 2, np.random.default_rng(0))
    with pytest.raises(ValueError, match=message):
        layer.forward(x)
    if "columns" not in message:
        for kind in ACTIVATIONS:
            with pytest.raises(ValueError, match=message):
                kind().forward(x)


@pytest.mark.parametrize(
    "labels, message",
    [
        (np.array([0, 3]), "from 0 to 2; these from 0 to 3"),
        (np.array([-1, 0]), "these from -1 to 0"),
        (np.array([0.0, 1.0]), "integers, not float64"),
        (np.array([0, 1, 2]), r"shape \(2,\), not \(3,\)"),
        (np.array([[0], [1]]), r"not \(2, 1\)"),
    ],
)
def test_wrong_labels_are_named(labels, message):
    with pytest.raises(ValueError, match=message):
        CrossEntropy().forward(np.zeros((2, 3)), labels)


def test_target_that_would_broadcast_is_refused():
    with pytest.raises(ValueError, match=r"target has shape \(4,\), and y \(4, 1\)"):
        MSE().forward(np.zeros((4, 1)), np.zeros(4))
