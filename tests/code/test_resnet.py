"""The networks: sizes as published, arithmetic as written, errors with a cause."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models

from taught.resnet import (
    BasicBlock,
    build_model,
    count_parameters,
    without_normalisation,
)

PUBLISHED = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}


@pytest.mark.parametrize("depth, parameters", PUBLISHED.items())
def test_parameter_counts_are_exact(depth, parameters):
    assert count_parameters(build_model(f"resnet{depth}")) == parameters


def test_projection_adds_its_parameters():
    assert count_parameters(build_model("resnet20", shortcut="B")) == 272_474


@pytest.mark.parametrize("depth", [8, 20, 56])
def test_depth_counts_the_layers_with_weights(depth):
    model = build_model(f"resnet{depth}")
    assert sum(p.ndim > 1 for p in model.parameters()) == depth


IMAGENET = {  # of torchvision's documentation
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
}


@pytest.mark.parametrize("name, parameters", IMAGENET.items())
def test_imagenet_family_is_torchvisions(name, parameters):
    theirs = models.get_model(name).eval()
    ours = build_model(name, classes=1000, stem="imagenet").eval()
    assert count_parameters(ours) == parameters
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "preresnet20"])
def test_cifar_stem_keeps_the_resolution(name):
    model = build_model(name, classes=7)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    assert model.pool(model.conv1(torch.zeros(1, 3, 32, 32))).shape[2:] == (32, 32)
    assert model.conv1.kernel_size == (3, 3)


def test_imagenet_stem_leaves_a_sixteenth_of_the_pixels():
    model = build_model("resnet8", stem="imagenet")
    assert model.pool(model.conv1(torch.zeros(1, 3, 32, 32))).shape == (1, 16, 8, 8)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_plain_network_has_the_same_layers_and_adds_nothing():
    model = build_model("resnet20", shortcut="none")
    assert count_parameters(model) == PUBLISHED[20]
    block, x = model.layer1[0].eval(), torch.randn(2, 16, 8, 8)
    body = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
    assert torch.equal(block(x), F.relu(body))


def test_preactivation_keeps_a_clean_path_through_a_stage():
    torch.manual_seed(0)
    model = build_model("preresnet20")
    assert count_parameters(model) == PUBLISHED[20] + 2 * (64 - 16) - 2 * (16 + 32)
    for block in model.layer1:
        torch.nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(model.layer1(x), x)  # negative numbers, too
    block = build_model("preresnet8").layer2[0].eval()
    body = block.conv1(F.relu(block.bn1(x)))
    body = block.conv2(F.relu(block.bn2(body)))
    assert torch.equal(block(x), body + block.downsample(x))


def test_preactivation_ends_with_normalisation_and_relu():
    model, seen = build_model("preresnet8"), {}
    model.bn1.register_forward_hook(lambda m, i, o: seen.update(bn=o))
    model.fc.register_forward_hook(lambda m, i, o: seen.update(fc=i[0]))
    model(torch.randn(4, 3, 32, 32))
    assert torch.allclose(seen["fc"], F.relu(seen["bn"]).mean(dim=(2, 3)))


def test_unknown_stem_is_named():
    with pytest.raises(ValueError, match="'cifar' or 'imagenet', got 'big'"):
        build_model("resnet18", stem="big")


def test_counts_only_what_is_trained():
    model = build_model("resnet8")
    model.fc.requires_grad_(False)
    assert count_parameters(model) == 75_290 - 650


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_stages_halve_the_resolution_and_double_the_width(shortcut):
    model = build_model("resnet8", shortcut)
    x = torch.randn(2, 16, 32, 32)
    shapes = []
    for stage in (model.layer1, model.layer2, model.layer3):
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def by_the_paper(block, x, shortcut):
    """F(x) + shortcut, with plain functions; batch statistics, as in training."""

    def normalise(y, bn):
        return F.batch_norm(y, None, None, bn.weight, bn.bias, training=True)

    stride = block.conv1.stride
    y = F.conv2d(x, block.conv1.weight, stride=stride, padding=1)
    y = normalise(y, block.bn1).clamp(min=0)
    y = normalise(F.conv2d(y, block.conv2.weight, padding=1), block.bn2)
    return (y + shortcut(x)).clamp(min=0)


def test_identity_block_adds_its_input():
    block, x = BasicBlock(4, 4), torch.randn(3, 4, 8, 8)
    expected = by_the_paper(block, x, lambda x: x)
    assert torch.allclose(block(x), expected, atol=1e-6)


def test_shortcut_a_takes_every_other_pixel_and_appends_zeros():
    block, x = BasicBlock(4, 8, stride=2), torch.randn(3, 4, 8, 8)

    def padded(x):
        out = torch.zeros(3, 8, 4, 4)
        out[:, :4] = x[:, :, ::2, ::2]
        return out

    assert torch.allclose(block(x), by_the_paper(block, x, padded), atol=1e-6)


def test_shortcut_b_is_linear_up_to_its_normalisation():
    block, x = BasicBlock(4, 8, stride=2, shortcut="B"), torch.randn(3, 4, 8, 8)
    conv, bn = block.downsample

    def projected(x):
        y = F.conv2d(x, conv.weight, stride=2)
        return F.batch_norm(y, None, None, bn.weight, bn.bias, training=True)

    assert torch.allclose(block(x), by_the_paper(block, x, projected), atol=1e-6)


def test_signal_keeps_its_size_through_56_layers():
    torch.manual_seed(0)
    model = build_model("resnet56")
    x = torch.randn(16, 3, 32, 32)
    first = F.relu(model.bn1(model.conv1(x)))
    last = model.layer3(model.layer2(model.layer1(first)))
    assert 0.2 < (last.std() / first.std()).item() < 20


@pytest.mark.parametrize(
    "name",
    [
        "resnet19",
        "resnet2",
        "resnet9",
        "resnet",
        "resnet-20",
        "vgg20",
        "resnet²0",
        "20",
    ],
)
def test_unknown_name_says_which_exist(name):
    with pytest.raises(ValueError, match=f"unknown model '{name}'.*resnet20.*6n"):
        build_model(name)


def test_unknown_shortcut_is_named():
    with pytest.raises(ValueError, match="'A', 'B' or 'none', got 'C'"):
        build_model("resnet8", shortcut="C")


@pytest.mark.parametrize("name", ["resnet8", "preresnet8"])
def test_without_normalisation_biases_remain(name):
    model = without_normalisation(build_model(name))
    layers = list(model.modules())
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in layers)
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    widths = [layer.out_channels for layer in convolutions]
    assert [len(layer.bias) for layer in convolutions] == widths
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
