"""Drawn weights against their formula, within what chance allows so many numbers."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from torch import Tensor, nn

from featkit.backbones.architectures import build
from featkit.backbones.base import hash_tensors
from featkit.backbones.initialization import initialize

Z = 4.5  # standard errors: beyond them lies one of 150,000
WITHIN = math.erf(1 / math.sqrt(2))  # share of a normal distribution within one deviation


def drawn(module: nn.Module, seed: int = 0) -> nn.Module:
    initialize(module, seed)
    return module


def fill(module: nn.Module, value: float = 7.0) -> nn.Module:
    """Put what no initialisation gives into everything that has a place for it."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.fill_(value)
    return module


def wanted_spread(layer: nn.Module) -> float:
    """Thesis, sec. 4.4.1, from the weight's own shape: (outputs, inputs, height, width)."""
    if isinstance(layer, nn.Linear):
        return 0.01
    outputs, _, height, width = layer.weight.shape
    return math.sqrt(2 / (height * width * outputs))


def check_normal(values: Tensor, spread: float) -> None:
    x = values.detach().double().flatten() / spread
    n = x.numel()
    assert abs(x.mean()) < Z / math.sqrt(n)
    assert abs(x.square().mean() - 1) < Z * math.sqrt(2 / n)  # the variance of a square is 2
    inside = (x.abs() < 1).double().mean()
    assert abs(inside - WITHIN) < Z * math.sqrt(WITHIN * (1 - WITHIN) / n)


@pytest.mark.parametrize("architecture", ["alexnet32", "torchvision:resnet18", "lenet5"])
def test_every_layer_has_its_distribution(architecture: str) -> None:
    net = drawn(fill(build(architecture).module).requires_grad_(True))
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == {"alexnet32": 8, "torchvision:resnet18": 21, "lenet5": 6}[architecture]
    for layer in layers:
        check_normal(layer.weight, wanted_spread(layer))


def test_layers_differ_from_each_other() -> None:
    net = drawn(build("torchvision:resnet18").module)
    first, second = (net.layer1[i].conv1.weight.detach().flatten() for i in (0, 1))
    correlation = torch.corrcoef(torch.stack([first, second]))[0, 1]
    assert abs(correlation) < Z / math.sqrt(first.numel())


def test_normalisations_and_biases_are_reset() -> None:
    net = drawn(fill(build("alexnet32").module))
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 5
    for norm in norms:
        assert bool((norm.weight == 1).all() and (norm.running_var == 1).all())
        assert not norm.running_mean.any()
        assert norm.num_batches_tracked == 0
    biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
    assert len(biases) == 13
    assert not any(bias.any() for bias in biases)


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(4),
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm3d(4, track_running_stats=False),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.GroupNorm(2, 4),
        nn.LayerNorm(4),
        nn.LayerNorm(4, bias=False),
        nn.RMSNorm(4),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_every_kind_of_normalisation(norm: nn.Module) -> None:
    drawn(fill(norm))
    for name, tensor in norm.state_dict().items():
        is_one = name in ("weight", "running_var")
        assert bool((tensor == (1 if is_one else 0)).all()), name


@pytest.mark.parametrize("architecture", ["alexnet32_sobel", "lenet5"])
def test_fixed_filters_stay(architecture: str) -> None:
    net, own = build(architecture).module, build(architecture).module.state_dict()
    fixed = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert {"sobel.0.weight", "sobel.1.weight"} <= fixed or fixed == {"grey.weight", "grey.bias"}
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(7.0 * parameter.requires_grad)
    drawn(net)
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, own[name]) or name not in fixed, name
        assert bool(parameter.mean() < 2), name


def test_what_is_frozen_stays_with_its_statistics() -> None:
    net = fill(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)))
    net[:2].requires_grad_(False)
    net[2].bias.requires_grad_(False)
    drawn(net)
    assert all(bool((t == 7).all()) for t in (*net[:2].state_dict().values(), net[2].bias))
    check_normal(net[2].weight, math.sqrt(2 / 4))


def test_other_parameters_stay() -> None:
    net = fill(timm.create_model("test_vit"))
    drawn(net)
    state = net.state_dict()
    assert bool((state["cls_token"] == 7).all() and (state["pos_embed"] == 7).all())
    check_normal(state["blocks.0.attn.qkv.weight"], 0.01)
    attention = fill(nn.MultiheadAttention(8, 2))
    drawn(attention)
    assert bool((attention.in_proj_weight == 7).all() and (attention.in_proj_bias == 7).all())
    assert not attention.out_proj.bias.any()


def test_convolutions_of_other_dimensions_and_groups() -> None:
    check_normal(drawn(nn.Conv1d(16, 32, 5)).weight, math.sqrt(2 / (5 * 32)))
    check_normal(drawn(nn.Conv3d(8, 16, (1, 2, 3))).weight, math.sqrt(2 / (6 * 16)))
    check_normal(drawn(nn.Conv2d(64, 64, 3, groups=64)).weight, math.sqrt(2 / (9 * 64)))


def test_the_seed_decides_and_nothing_else() -> None:
    first, other = fill(build("alexnet32", seed=1).module), build("alexnet32", seed=2).module
    torch.manual_seed(5)
    state = torch.get_rng_state()
    initialize(first, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    initialize(other, 3)
    digest = hash_tensors(first.state_dict())
    assert hash_tensors(other.state_dict()) == digest
    initialize(other, 4)
    assert hash_tensors(other.state_dict()) != digest
    pairs = zip(first.parameters(), other.parameters(), strict=True)
    assert all(not torch.equal(a, b) for a, b in pairs if a.ndim > 1)


def test_half_precision_has_the_same_numbers_rounded() -> None:
    exact, half = drawn(nn.Conv2d(3, 8, 3)), drawn(nn.Conv2d(3, 8, 3).half())
    assert torch.equal(half.weight, exact.weight.half())


def test_gradients_stay_asked_for() -> None:
    net = drawn(build("lenet5").module)
    net(torch.rand(2, 3, 32, 32)).sum().backward()
    asked = [p for p in net.parameters() if p.requires_grad]
    assert all(p.is_leaf and p.grad is not None for p in asked)
