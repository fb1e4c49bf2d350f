"""Learning rates and optimisers, against torch's own, timm's and the publication."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from featkit.trainers.optimization import (
    clip_gradients,
    learning_rate,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
    weight_decay,
)
from featkit.trainers.settings import Training


def test_the_learning_rate_is_that_of_torchs_schedulers() -> None:
    training = Training(epochs=7, warmup=2, lr=0.3, final_lr=0.01)
    steps = 5
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.3)
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 9)  # 10 steps, the first 1/10
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 25, 0.01)
    wanted = []
    for step in range(35):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < 9:
            rise.step()
        elif step > 9:
            fall.step()
    ours = [learning_rate(step, steps, training) for step in range(35)]
    assert ours == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(("warmup", "first", "last"), [(0.0, 1.0, 0.0), (4.0, 0.125, 1.0)])
def test_without_a_warm_up_or_with_nothing_else(warmup: float, first: float, last: float) -> None:
    training = Training(epochs=4, warmup=warmup, lr=1.0)
    rates = [learning_rate(step, 2, training) for step in range(8)]
    assert rates[0] == first
    assert rates[-1] == pytest.approx(last, abs=0.05)


def test_a_warm_up_of_parts_of_an_epoch_ends_between_steps() -> None:
    training = Training(epochs=2, warmup=0.5, lr=1.0)
    rates = [learning_rate(step, 5, training) for step in range(10)]
    assert rates[:2] == pytest.approx([0.4, 0.8])
    assert max(rates) <= 1.0
    assert rates[2:] == sorted(rates[2:], reverse=True)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)
    )


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad()
        module(torch.randn(5, 3, 4, 4)).square().mean().backward()
        optimizer.step()


REFERENCES: dict[str, Any] = {
    "adam": lambda groups: torch.optim.Adam(groups, 0.01, foreach=False),
    "adamw": lambda groups: torch.optim.AdamW(groups, 0.01, foreach=False),
    "sgd": lambda groups: torch.optim.SGD(groups, 0.01, 0.9, foreach=False),
}


@pytest.mark.parametrize("name", list(REFERENCES))
def test_fused_optimisers_do_what_torchs_plain_ones_do(name: str) -> None:
    ours, theirs = net(), net()
    training = Training(optimizer=name, lr=0.01, weight_decay=0.1)
    decayed = [p for p in theirs.parameters() if p.ndim > 1]
    others = [p for p in theirs.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    train(ours, make_optimizer(ours.parameters(), training), range(20))
    train(theirs, REFERENCES[name](groups), range(20))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_lars_is_that_of_the_publication() -> None:
    """One step by the formula: λ = η ‖w‖ / (‖∇‖ + β ‖w‖), but not for biases and norms."""
    module, training = net(), Training(optimizer="lars", lr=0.5, weight_decay=0.01)
    before = [p.detach().clone() for p in module.parameters()]
    optimizer = make_optimizer(module.parameters(), training)
    train(module, optimizer, range(1))
    for old, parameter in zip(before, module.parameters(), strict=True):
        gradient = parameter.grad
        assert gradient is not None
        step = gradient
        if old.ndim > 1:
            norm = old.norm()
            trust = 0.001 * norm / (gradient.norm() + 0.01 * norm)
            step = trust * (gradient + 0.01 * old)
        torch.testing.assert_close(parameter.detach(), old - 0.5 * step, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["adam", "adamw", "lars", "sgd"])
def test_a_restored_optimiser_goes_on_to_the_same_bytes(name: str) -> None:
    training = Training(optimizer=name, lr=0.01, weight_decay=0.1)
    whole, parts = (net().to(memory_format=torch.channels_last) for _ in range(2))
    train(whole, make_optimizer(whole.parameters(), training), range(6))
    first = make_optimizer(parts.parameters(), training)
    train(parts, first, range(3))
    # as a file gives them back: without an order in memory of their own
    kept = load(save({name: t.contiguous() for name, t in optimizer_tensors(first)}))
    second = make_optimizer(parts.parameters(), training)
    restore_optimizer(second, kept)
    train(parts, second, range(3, 6))
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_is_frozen_has_no_optimiser() -> None:
    module = net()
    module[0].requires_grad_(requires_grad=False)
    groups = make_optimizer(
        module.parameters(), Training(optimizer="adamw", weight_decay=0.1)
    ).param_groups
    assert [len(group["params"]) for group in groups] == [1, 3]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    module[3].weight.requires_grad_(requires_grad=False)
    (group,) = make_optimizer(module.parameters(), Training(optimizer="adamw")).param_groups
    assert not group["decays"]


def test_the_weight_decay_is_that_of_torchs_schedulers_cosine() -> None:
    """From 0.04 to 0.4, as if it were a learning rate."""
    training = Training(weight_decay=0.04, final_weight_decay=0.4)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.04)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 25, 0.4)
    for step in range(25):
        wanted = optimizer.param_groups[0]["lr"]
        assert weight_decay(step / 25, training) == pytest.approx(wanted, rel=1e-9)
        optimizer.step()
        schedule.step()
    assert {weight_decay(share, Training(weight_decay=0.3)) for share in (0.0, 0.7)} == {0.3}


def test_gradients_are_shortened_each_by_its_own() -> None:
    module = net()
    module(torch.randn(5, 3, 4, 4)).square().mean().backward()
    module[1].bias.grad = None
    for number, parameter in enumerate(module.parameters()):
        if parameter.grad is not None:
            parameter.grad *= 0.3 * 3**number / parameter.grad.norm()  # norms 0.3, 0.9, 2.7, …
    before = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
    clip_gradients(module, 1.0)
    for old, parameter in zip(before, module.parameters(), strict=True):
        if old is None:
            assert parameter.grad is None
        elif old.norm() < 1:
            assert torch.equal(parameter.grad, old)
        else:
            torch.testing.assert_close(parameter.grad, old / old.norm(), rtol=1e-5, atol=1e-7)


def test_the_cosine_is_at_its_half_in_the_middle() -> None:
    training = Training(epochs=10, warmup=0, lr=2.0, final_lr=1.0)
    assert learning_rate(50, 10, training) == pytest.approx(1.5)
    assert math.isclose(learning_rate(0, 10, training), 2.0)
