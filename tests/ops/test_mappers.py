"""Perceptrons side by side against ``torch.nn`` one by one."""

from __future__ import annotations

import math
from operator import attrgetter

import pytest
import torch
from torch import nn

from featkit.ops.mappers import Mappers

OUTPUTS = {"equal": [12, 12, 12], "different": [12, 7, 30], "single": [9]}


def layers(mappers, j, of=attrgetter("data")):
    """Weights (inputs, outputs) and biases (outputs) of one perceptron, or their gradients."""
    group, k = (0, j) if len(mappers.last_weights) == 1 else (j, 0)
    shared = [(of(w)[j], of(b)[j, 0]) for w, b in zip(mappers.weights, mappers.biases, strict=True)]
    return [*shared, (of(mappers.last_weights[group])[k], of(mappers.last_biases[group])[k, 0])]


def perceptron(mappers, j):
    """The same one of ``torch.nn``."""
    parts = []
    for weight, bias in layers(mappers, j):
        linear = nn.Linear(*weight.shape, dtype=weight.dtype)
        linear.load_state_dict({"weight": weight.T, "bias": bias})
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts if mappers.relus[j] else parts[:-1])


def assert_near(ours, theirs, tolerance):
    assert ours.shape == theirs.shape
    assert (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("relus", [[True, False, True], [False, True, False]], ids=str)
@pytest.mark.parametrize("hidden", [None, 24])
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("outputs", OUTPUTS.values(), ids=OUTPUTS)
def test_outputs_and_gradients_against_torch(outputs, depth, hidden, relus, dtype, tolerance):
    torch.manual_seed(0)
    mappers = Mappers(16, outputs, relus[: len(outputs)], depth, hidden).to(dtype)
    ours = torch.randn(40, 16, dtype=dtype, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    slopes = [torch.randn(40, d, dtype=dtype) for d in outputs]
    found = mappers(ours)
    sum((y * slope).sum() for y, slope in zip(found, slopes, strict=True)).backward()
    for j, (y, slope) in enumerate(zip(found, slopes, strict=True)):
        alone = perceptron(mappers, j)
        expected = alone(theirs)
        (expected * slope).sum().backward()
        assert_near(y, expected, tolerance)
        assert bool((y < 0).any()) == (not relus[j])
        linears = [part for part in alone if isinstance(part, nn.Linear)]
        assert len(linears) == depth
        gradients = layers(mappers, j, attrgetter("grad"))
        for linear, (weight, bias) in zip(linears, gradients, strict=True):
            assert weight.any()
            assert_near(weight, linear.weight.grad.T, tolerance)
            assert_near(bias, linear.bias.grad, tolerance)
    assert_near(ours.grad, theirs.grad, tolerance)


def test_there_are_as_many_parameters_as_in_perceptrons_of_their_own():
    for outputs in OUTPUTS.values():
        mappers = Mappers(16, outputs, [False] * len(outputs), depth=3, hidden=24)
        alone = [perceptron(mappers, j) for j in range(len(outputs))]
        counts = [
            sum(p.numel() for p in net.parameters()) for net in (mappers, nn.ModuleList(alone))
        ]
        assert counts[0] == counts[1]
        assert all(p.requires_grad for p in mappers.parameters())


def assert_uniform(values, inputs):
    """Within ±1/√inputs, with that distribution's mean and standard deviation."""
    bound, n = 1 / math.sqrt(inputs), values.numel()
    assert values.abs().max() <= bound
    assert values.max() > bound * (1 - 20 / n)
    assert values.min() < -bound * (1 - 20 / n)
    assert abs(values.mean()) < 5 * bound / math.sqrt(3 * n)
    assert values.std() == pytest.approx(bound / math.sqrt(3), rel=5 / math.sqrt(n))


@pytest.mark.parametrize("outputs", [[2000, 2000], [2000, 1500]], ids=str)
def test_weights_are_drawn_as_those_of_linear_layers(outputs):
    torch.manual_seed(1)
    mappers = Mappers(100, outputs, [True, True], depth=3, hidden=500)
    first = [p.detach().clone() for p in mappers.parameters()]
    mappers.reset()
    assert not any(map(torch.equal, first, mappers.parameters()))
    for j, d in enumerate(outputs):
        sizes = [100, 500, 500, d]
        for (weight, bias), inputs, width in zip(
            layers(mappers, j), sizes, sizes[1:], strict=False
        ):
            linear = nn.Linear(inputs, width)
            for ours, theirs in ((weight, linear.weight.data), (bias, linear.bias.data)):
                assert_uniform(ours, inputs)
                assert_uniform(theirs, inputs)
    ours, other = layers(mappers, 0), layers(mappers, 1)
    assert not any(torch.equal(a[0][:, :9], b[0][:, :9]) for a, b in zip(ours, other, strict=True))


@pytest.mark.parametrize("outputs", OUTPUTS.values(), ids=OUTPUTS)
def test_the_last_biases_can_be_the_means_of_the_features(outputs):
    torch.manual_seed(2)
    mappers = Mappers(16, outputs, [False] * len(outputs))
    before = [p.detach().clone() for p in mappers.parameters()]
    means = [torch.randn(d) for d in outputs]
    mappers.set_last_bias(means)
    for j, mean in enumerate(means):
        assert torch.equal(layers(mappers, j)[-1][1], mean)
    kept = len(before) - len(mappers.last_biases)
    assert all(map(torch.equal, before[:kept], list(mappers.parameters())[:kept]))
    assert all(bias.requires_grad for bias in mappers.last_biases)
    with torch.no_grad():
        for weight in mappers.last_weights:
            weight.zero_()
    for y, mean in zip(mappers(torch.randn(5, 16)), means, strict=True):
        assert torch.equal(y, mean.expand(5, -1))
