"""Unit vectors against torch's, and zero vectors, which torch gives a gradient of 1e12."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from featkit.ops.unit_vectors import unit_vectors


def test_values_and_gradients_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(5, 3, 7, generator=generator) * 10).requires_grad_()
    slope = torch.randn(5, 3, 7, generator=generator)
    ours, theirs = unit_vectors(x), functional.normalize(x, dim=-1)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, x, slope), torch.autograd.grad(theirs, x, slope)
    )


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-13])
def test_what_has_no_direction_is_zero_and_stands_still(length: float) -> None:
    x = torch.tensor([[length, 0.0], [0.0, 2.0]], requires_grad=True)
    units = unit_vectors(x)
    assert units.tolist() == [[0.0, 0.0], [0.0, 1.0]]
    (gradient,) = torch.autograd.grad(units.sum(), x)
    assert gradient.tolist() == [[0.0, 0.0], [0.5, 0.0]]


def test_they_are_of_float32() -> None:
    assert unit_vectors(torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.float32
