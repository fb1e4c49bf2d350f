"""Sizes of networks by hand, and as published."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from featkit.backbones.architectures import build
from featkit.backbones.base import Network
from featkit.backbones.size import NetworkSize, network_size
from featkit.data.preprocessing import Preprocessing

RECIPE = Preprocessing((9, 12), None, "bilinear", (0.5,) * 3, (0.5,) * 3)


def test_convolutions_and_linear_layers_by_hand() -> None:
    """2 operations for each weight and place; biases, norms and ReLUs cost none."""
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),  # (9, 12) to (7, 10)
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 2, stride=2, groups=2),  # to (3, 5)
        nn.Flatten(),
        nn.Linear(60, 7),
        nn.Linear(7, 1000),
    )
    whole = network_size(Network("mine", module, RECIPE))
    flops = [2 * 27 * 8 * 70, 2 * 4 * 4 * 4 * 15, 2 * 60 * 7, 2 * 7 * 1000]
    outputs = [8 * 70, 4 * 15, 7, 1000]
    parameters = [27 * 8, 16, 4 * 4 * 4 + 4, 60 * 7 + 7, 7 * 1000 + 1000]
    assert whole == NetworkSize(sum(parameters), sum(flops), sum(outputs))
    headless = network_size(Network("mine", module, RECIPE, head="6"))
    assert headless == NetworkSize(sum(parameters[:4]), sum(flops[:3]), sum(outputs[:3]))


@pytest.mark.parametrize("join", ["average", "dense", "attention"])
def test_a_tree_by_its_channels(join: str) -> None:
    m, shape = 4, (8, 16, 32, 48, 64)
    network = build(f"treenet(leaves={m},join={join})")
    network = replace(network, preprocessing=network.preprocessing.resized(16), head="head")
    places = [(16 - n) ** 2 for n in range(1, 6)]
    pairs = list(zip((3, *shape), shape, places, strict=False))
    flops = m * (sum(2 * 4 * i * o * p for i, o, p in pairs) + 2 * 2 * 64 * 64)
    outputs = m * (sum(o * p for _, o, p in pairs) + 2 * 64)
    if join == "dense":
        flops += 2 * (m * 64 * 256 + 2 * 256 * 256)
        outputs += 3 * 256
    elif join == "attention":  # three projections and one, scores of 4 heads, and their means
        flops += 2 * m * 4 * 64 * 64 + 2 * 2 * m * m * 64
        outputs += m * 4 * 64 + 4 * m * m + m * 64
    size = network_size(network)
    assert (size.flops, size.activations) == (flops, outputs)
    head = sum(p.numel() for p in network.module.head.parameters())
    assert size.parameters == sum(p.numel() for p in network.module.parameters()) - head


@pytest.mark.parametrize(
    ("name", "millions", "billions", "activations"),
    [
        # github.com/huggingface/pytorch-image-models at 5c33776a, results/benchmark-infer-amp-nhwc-
        # pt240-cu124-rtx3090.csv: parameters, multiply-accumulates (norms too), activations
        ("timm:resnet18", 11.69, 1.82, 2.48),
        ("timm:vit_tiny_patch16_224", 5.72, 1.26, 5.97),
    ],
)
def test_published_networks(
    name: str, millions: float, billions: float, activations: float
) -> None:
    size = network_size(build(name))
    assert size.parameters / 1e6 == pytest.approx(millions, abs=0.005)
    assert size.flops / 2e9 == pytest.approx(billions, abs=0.01)
    assert size.activations / 1e6 == pytest.approx(activations, abs=0.006)


def test_the_network_is_left_as_it_is() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(432, 2))
    module.train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    network_size(Network("mine", module, RECIPE, head="3"))
    assert module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert isinstance(module[3], nn.Linear)
