"""Matrices of many rows, widened to float64 a part at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError

Array: TypeAlias = npt.NDArray[Any]
Doubles: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]

BLOCK_FLOATS = 2**22  # numbers widened at once: 32 MiB
ROUNDING = 1e-12  # of the largest number: more than the mean of equal rows leaves of them


def real_matrix(x: npt.ArrayLike, name: str = "features") -> Array:
    """Return ``x`` as an array, or refuse what is no matrix of real numbers.

    Args:
        x: (n, d), any real dtype, n ≥ 1, d ≥ 1. Memory-mapped arrays stay where they are.
        name: What the rows are, for messages.

    Raises:
        UsageError: It is something else.

    Example:
        >>> real_matrix([[1, 2], [3, 4]]).shape
        (2, 2)
    """
    matrix = np.asarray(x)
    if matrix.ndim != 2 or matrix.dtype.kind not in "biuf" or not matrix.size:
        given = f"{matrix.dtype} {matrix.shape}"
        raise UsageError(f"{name} are {given}: give real numbers in the shape (rows, features)")
    return matrix


def row_numbers(rows: npt.ArrayLike | None, n: int) -> Integers:
    """Return the numbers of some of ``n`` rows, all if None, or raise UsageError.

    Example:
        >>> row_numbers(None, 3)
        array([0, 1, 2])
    """
    if rows is None:
        return np.arange(n)
    order = np.asarray(rows)
    if order.ndim != 1 or order.dtype.kind not in "iu" or not ((order >= 0) & (order < n)).all():
        raise UsageError(f"rows are {order.dtype} {order.shape}: give whole numbers below {n}")
    if len(np.unique(order)) < len(order):
        raise UsageError("rows: some come twice; give each once")
    return order.astype(np.int64)


def wide_blocks(matrix: Array) -> Iterator[tuple[slice, Doubles]]:
    """Yield consecutive rows as float64 copies, some 32 MiB at a time, each with its place.

    Example:
        >>> [(part.start, block.dtype.name) for part, block in wide_blocks(np.ones((2, 3)))]
        [(0, 'float64')]
    """
    step = max(1, BLOCK_FLOATS // matrix.shape[1])
    for start in range(0, len(matrix), step):
        part = slice(start, min(start + step, len(matrix)))
        yield part, matrix[part].astype(np.float64)


def column_means(matrix: Array) -> Doubles:
    """Return the mean row, float64 (d); not finite where the rows (n, d) are not.

    Cost: one pass.

    Example:
        >>> column_means(np.array([[1.0, 5.0], [3.0, 5.0]]))
        array([2., 5.])
    """
    total: Doubles = np.zeros(matrix.shape[1])
    for _, block in wide_blocks(matrix):
        with np.errstate(over="ignore", invalid="ignore"):  # for the caller to refuse
            total += block.sum(axis=0)
    return total / len(matrix)


def refuse_numbers(name: str = "features") -> NoReturn:
    """Raise the UsageError about numbers that have no finite squares."""
    raise UsageError(f"{name} hold NaN, infinity or numbers above 1e150: leave them out")
