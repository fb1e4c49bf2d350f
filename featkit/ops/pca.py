"""Principal components of rows that come in blocks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def principal_components(blocks: Iterable[Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Find the directions in which rows vary most.

    Eigenvectors of ``Σ_i (x_i - μ)(x_i - μ)ᵀ``, which is added up block by block in float64.

    Args:
        blocks: Rows, (b, d) each, all of them together at least one.
        count: Components wanted, at most d.

    Returns:
        Mean (d) and components (count, d), float32: orthonormal rows, the most varying first, each
        with its largest entry positive.

    Cost: 2·n·d² operations and an eigendecomposition of d³; memory 8·d².

    Example:
        >>> mean, components = principal_components([torch.tensor([[0.0, 1.0], [4.0, 1.0]])], 1)
        >>> mean, components
        (tensor([2., 1.]), tensor([[1., 0.]]))
    """
    total, products, rows = torch.zeros(()), torch.zeros(()), 0
    shift = None
    for block in blocks:
        values = block.double()
        shift = values.mean(0) if shift is None else shift  # keeps the digits of small variances
        values = values - shift
        total, products = total + values.sum(0), products + values.T @ values
        rows += len(block)
    mean = total / rows
    _, vectors = torch.linalg.eigh(products - rows * torch.outer(mean, mean))
    components = vectors.flip(1)[:, :count].T
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    return (mean + (0 if shift is None else shift)).float(), (components * largest.sign()).float()
