"""Rows of float32 tensors on any device, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from featkit.errors import UsageError
from featkit.ops.matrices import BLOCK_FLOATS

LARGEST = 1e15  # whose squares float32 can add up


def check_rows(x: Tensor, name: str = "features") -> None:
    """Refuse what is no float32 matrix (n, d) with n ≥ 1 and d ≥ 1.

    Args:
        x: The rows.
        name: What they are, for messages.

    Raises:
        UsageError: It is something else.
    """
    if x.ndim != 2 or x.dtype != torch.float32 or not x.numel():
        given = f"{x.dtype} {tuple(x.shape)}"
        raise UsageError(f"{name} are {given}: give float32 in the shape (rows, features)")


def mean_row(x: Tensor, name: str = "features") -> Tensor:
    """Return the mean row, float32 (d); of equal rows it is the row itself.

    The first row is taken off before rows are added up, a block in float32 and blocks in float64.

    Args:
        x: (n, d), float32.
        name: What the rows are, for messages.

    Raises:
        UsageError: Numbers are not finite, or have squares that float32 cannot add up.

    Cost: one pass.

    Example:
        >>> mean_row(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
        tensor([2., 5.])
    """
    total = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    for part, block in centred_blocks(x, x[0]):
        low, high = torch.aminmax(x[part])
        if not (low > -LARGEST and high < LARGEST):
            raise UsageError(
                f"{name} hold NaN, infinity or numbers above {LARGEST:.0e}: leave them out"
            )
        total += block.sum(0)
    return (x[0] + total / len(x)).float()


def block_rows(width: int) -> int:
    """Return how many rows of some numbers make a block of 16 MiB."""
    return max(1, BLOCK_FLOATS // width)


def centred_blocks(
    x: Tensor, mean: Tensor, step: int | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Yield consecutive rows minus a mean, each block in the memory of the last, with its place.

    Args:
        x: (n, d), float32.
        mean: (d), likewise.
        step: Rows of a block; by default those of 16 MiB.

    Example:
        >>> x = torch.tensor([[1.0], [5.0], [6.0]])
        >>> [(part.start, block.tolist()) for part, block in centred_blocks(x, x[0], 2)]
        [(0, [[0.0], [4.0]]), (2, [[5.0]])]
    """
    step = step or block_rows(x.shape[1])
    held = x.new_empty(min(step, len(x)), x.shape[1])
    for start in range(0, len(x), step):
        rows = x[start : start + step]
        yield slice(start, start + len(rows)), torch.sub(rows, mean, out=held[: len(rows)])
