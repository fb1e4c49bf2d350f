"""What steps show of a Hessian, against scipy's L-BFGS matrices and exact solutions."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import LbfgsInvHessProduct
from torch import Tensor

from featkit.ops.logistic_secants import REMEMBERED, Secants

P, C, D = 3, 2, 5


def positive(rng: np.random.Generator) -> np.ndarray:
    """Return a matrix as large as one problem, symmetric and positive definite."""
    root = rng.standard_normal((C * D, C * D))
    return root @ root.T + np.eye(C * D)


def test_solutions_are_those_of_scipy_from_the_same_steps() -> None:
    """More steps than are remembered; some are of some problems only."""
    rng = np.random.default_rng(0)
    hessians = np.stack([positive(rng) for _ in range(P)])
    secants = Secants(P)
    steps: list[list[np.ndarray]] = [[] for _ in range(P)]
    for i in range(REMEMBERED + 4):
        live = torch.tensor([0, 2] if i % 3 == 2 else [0, 1, 2])
        step = torch.from_numpy(rng.standard_normal((len(live), C, D)))
        change = torch.stack(
            [
                torch.from_numpy(hessians[one] @ own.flatten().numpy()).view(C, D)
                for one, own in zip(live.tolist(), step, strict=True)
            ]
        )
        secants.add(live, step, change)
        for one in range(P):
            at = torch.nonzero(live == one).flatten()
            nothing = np.zeros(C * D)
            steps[one].append(step[at[0]].flatten().numpy() if len(at) else nothing)
    target = torch.from_numpy(rng.standard_normal((P, C, D)))
    found = secants.solve(torch.arange(P), target, lambda x: x)
    for one in range(P):
        known = np.stack([s for s in steps[one][-REMEMBERED:] if s.any()])
        inverse = LbfgsInvHessProduct(known, known @ hessians[one])
        np.testing.assert_allclose(found[one].flatten(), inverse @ target[one].flatten().numpy())
    alone = secants.solve(torch.tensor([1]), target[[1]], lambda x: x)
    torch.testing.assert_close(alone, found[[1]])


def test_a_step_that_did_not_bend_says_nothing() -> None:
    secants = Secants(1)
    step = torch.ones(1, C, D)
    for change in (torch.zeros(1, C, D), -step):
        secants.add(torch.tensor([0]), step, change)
    target = torch.arange(C * D, dtype=torch.float32).view(1, C, D)
    torch.testing.assert_close(
        secants.solve(torch.tensor([0]), target, lambda x: 2 * x), 2 * target
    )


def test_a_wrong_hessian_is_mended_by_few_steps() -> None:
    """Newton's steps by it alone do not end; here the directions that are wrong are few."""
    rng = np.random.default_rng(0)
    true = torch.eye(C * D, dtype=torch.float64)
    for large in (30.0, 100.0):
        v = torch.from_numpy(rng.standard_normal(C * D))
        true += large * torch.outer(v, v) / v.square().sum()
    wanted = torch.from_numpy(rng.standard_normal(C * D))

    def gradient(x: Tensor) -> Tensor:
        return (true @ (x.flatten() - wanted)).view(1, C, D)

    left = {}
    for remembers in (True, False):
        at, secants = torch.zeros(1, C, D, dtype=torch.float64), Secants(1)
        for _ in range(6):
            slope = gradient(at)
            if slope.norm() < 1e-12:
                break
            step = secants.solve(torch.tensor([0]), -slope, lambda x: x)
            bend = (step * (gradient(at + step) - slope)).sum()
            step *= (-slope * step).sum() / bend  # as far as is best
            if remembers:
                secants.add(torch.tensor([0]), step, gradient(at + step) - slope)
            at += step
        left[remembers] = float(gradient(at).norm())
    assert left[True] < 1e-8 < 1e-2 < left[False]
