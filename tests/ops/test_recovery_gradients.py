"""Gradients that are written out against automatic differentiation."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from featkit.ops.mappers import Mappers
from featkit.ops.recovery_gradients import RecoveryGradients


def case(outputs, depth, hidden, relus, n=20, width=9, seed=0):
    torch.manual_seed(seed)
    mappers = Mappers(width, outputs, relus, depth, hidden)
    psi = torch.randn(n, width)
    targets = [functional.normalize(torch.randn(n, d)) for d in outputs]
    return mappers, psi, targets


def by_autograd(mappers, psi, targets, scale):
    """The loss and gradients as torch finds them."""
    mappers.zero_grad()
    psi = psi.clone().requires_grad_()
    cosines = torch.stack(
        [functional.cosine_similarity(y, z) for y, z in zip(mappers(psi), targets, strict=True)]
    )
    (scale * (1 - cosines).sum()).backward()
    return cosines.detach(), psi.grad, [p.grad.clone() for p in mappers.parameters()]


@pytest.mark.parametrize("relus", [(True, True, True), (False, True, False)])
@pytest.mark.parametrize("hidden", [None, 5])
@pytest.mark.parametrize("depth", [1, 2, 3, 6])
@pytest.mark.parametrize("outputs", [(7, 7, 7), (4, 11, 7)])
def test_equal_to_automatic_differentiation(outputs, depth, hidden, relus):
    mappers, psi, targets = case(outputs, depth, hidden, relus)
    gradients = RecoveryGradients(mappers, torch.float32, learns=True)
    wanted, slope, of_weights = by_autograd(mappers, psi, targets, 0.3)
    gradients = RecoveryGradients(mappers, torch.float32, learns=True)
    cosines, found = gradients(psi, targets, 0.3, moves=True)
    torch.testing.assert_close(cosines, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found, slope, rtol=1e-4, atol=1e-6)
    for parameter, gradient in zip(mappers.parameters(), of_weights, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_only_what_is_wanted_is_computed():
    mappers, psi, targets = case((6, 6), 2, None, (True, True))
    learning = RecoveryGradients(mappers, torch.float32, learns=True)
    cosines, slope = learning(psi, targets, 1.0, moves=False)
    assert slope is None
    assert all(bool(p.grad.any()) for p in mappers.parameters())
    mappers.zero_grad(set_to_none=True)
    frozen = RecoveryGradients(mappers, torch.float32, learns=False)
    again, slope = frozen(psi, targets, 1.0, moves=True)
    assert torch.equal(again, cosines)
    assert slope.shape == psi.shape
    assert all(p.grad is None for p in mappers.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_changed_weights_are_taken_over(dtype):
    mappers, psi, targets = case((16, 16), 2, None, (True, False), width=16)
    gradients = RecoveryGradients(mappers, dtype, learns=True)
    with torch.no_grad():
        for parameter in mappers.parameters():
            parameter.mul_(-0.7)
    gradients.refresh()
    cosines, slope = gradients(psi, targets, 1.0, moves=True)
    found = [p.grad.clone() for p in mappers.parameters()]
    wanted, wanted_slope, of_weights = by_autograd(mappers, psi, targets, 1.0)
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    for ours, theirs in zip(
        (cosines, slope, *found), (wanted, wanted_slope, *of_weights), strict=True
    ):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


def test_rows_of_zeros_have_no_cosine_and_no_gradient():
    mappers, psi, targets = case((6, 6), 2, None, (True, True))
    mappers.set_last_bias([torch.full((6,), -100.0), torch.ones(6)])
    targets[1][3] = 0
    cosines, slope = RecoveryGradients(mappers, torch.float32, learns=True)(psi, targets, 1.0, True)
    assert not cosines[0].any()
    assert cosines[1, 3] == 0
    assert not slope[3].any()
    assert bool(slope[2].any())
    assert all(bool(p.grad.isfinite().all()) for p in mappers.parameters())
    assert not mappers.last_weights[0].grad[0].any()


def test_no_memory_of_the_size_of_the_weights_is_taken():
    mappers, psi, targets = case((512, 512), 2, None, (True, True), n=4, width=512)
    gradients = RecoveryGradients(mappers, torch.float32, learns=True)
    before = [p.grad.data_ptr() for p in mappers.parameters()]
    with torch.profiler.profile(profile_memory=True) as profile:
        gradients(psi, targets, 1.0, moves=True)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < 512 * 512 * 4
    assert [p.grad.data_ptr() for p in mappers.parameters()] == before
