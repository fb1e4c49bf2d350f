"""How similar rows are to each other: on average, to the nearest, and in two sets of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from featkit.errors import UsageError
from featkit.ops.neighbors import BLOCK, Integers, Rows, UnitRows, nearest_neighbors, unit_rows

Doubles: TypeAlias = npt.NDArray[np.float64]

POSITIVE = 1e-6  # float32 rows of length 1 leave less than this where the mean is 0


def mean_pairwise_similarity(x: Rows) -> float:
    """Return the mean cosine of two different rows.

    ``(‖Σ_i u_i‖² - Σ_i ‖u_i‖²) / (n (n - 1))``, ``u_i = x_i / ‖x_i‖``, 0 for rows of zeros.

    Args:
        x: (n, d), n ≥ 2, any real dtype, finite. Memory-mapped arrays are read block by block.

    Returns:
        In [-1 / (n - 1), 1].

    Raises:
        UsageError: There are fewer than two rows, or they are no finite real numbers.

    Cost: one pass over ``x``.

    Example:
        >>> round(mean_pairwise_similarity(np.array([[1.0, 0.0], [0.0, 3.0], [2.0, 2.0]])), 4)
        0.4714
    """
    n, total, squares = _unit_sums(x, "features")
    if n < 2:
        raise UsageError(f"mean similarity of {n} rows: give two or more")
    return float((total @ total - squares) / (n * (n - 1)))


def normalised_maximum_similarity(queries: Rows, bank: Rows) -> Doubles:
    """Return how much more similar each query's nearest neighbour is than an average row.

    ``max_j cos(q_i, b_j) / mean_ij cos(q_i, b_j)``

    Args:
        queries: (q, d), any real dtype, finite.
        bank: (n, d), likewise.

    Returns:
        float64 (q), at most 1 / mean.

    Raises:
        UsageError: The mean is not positive; shapes or values cannot be used.

    Cost: that of :func:`featkit.ops.neighbors.nearest_neighbors`; the mean takes one pass.

    Source: Wallace et al. 2021, arXiv:2110.10293, appendix B, figure 15.

    Example:
        >>> bank = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> normalised_maximum_similarity(np.array([[5.0, 0.0], [3.0, 3.0]]), bank).round(4)
        array([1.6569, 1.1716])
    """
    nearest, _ = nearest_neighbors(queries, bank, 1)
    q, of_queries, _ = _unit_sums(queries, "queries")
    n, of_bank, _ = _unit_sums(bank, "bank")
    if not q:
        raise UsageError("maximum similarity of 0 queries: give one or more")
    mean = of_queries @ of_bank / (q * n)
    if mean < POSITIVE:
        raise UsageError(
            f"the mean similarity of queries and bank is {mean:.3g}, and ratios to it mean nothing"
            " unless it is positive: the features look centred, give them as the network made them"
        )
    return nearest[:, 0] / mean


def changed_neighbors(before: Rows, after: Rows, k: int = 20) -> Doubles:
    """Return the share of each row's nearest neighbours that are no longer among them.

    ``1 - |N_k(before_i) ∩ N_k(after_i)| / k``, neighbours by cosine, no row its own.

    Args:
        before: (n, d), any real dtype, finite.
        after: (n, d'), of the same samples.
        k: Neighbours, 1 ≤ k ≤ n - 1.

    Returns:
        float64 (n) in [0, 1].

    Raises:
        UsageError: The numbers of rows differ, or ``k`` or values cannot be used.

    Cost: two searches of :func:`featkit.ops.neighbors.nearest_neighbors`, 4·n·d bytes.

    Example:
        >>> before = np.array([[0.0, 9.0], [1.0, 9.0], [9.0, 0.0], [9.0, 2.0]])
        >>> after = np.array([[0.0, 9.0], [1.0, 9.0], [1.0, 8.0], [9.0, 2.0]])
        >>> changed_neighbors(before, after, k=1)
        array([0., 1., 1., 0.])
    """
    one, other = unit_rows(before, name="features before"), unit_rows(after, name="features after")
    if len(one.array) != len(other.array):
        raise UsageError(
            f"{len(one.array)} rows before and {len(other.array)} after: give the same samples"
        )
    found = [nearest_neighbors(x, x, k, exclude_self=True)[1] for x in (one, other)]
    return 1 - _common(*found) / k


def neighbor_overlap(features: Sequence[Rows], k: int = 10) -> Doubles:
    """Return the share of nearest neighbours that every two sets of features have in common.

    ``mean_i |N_k(x_i) ∩ N_k(y_i)| / k``, neighbours by cosine, no row its own; k / (n - 1) where
    chance alone decides. It falls as n grows, so compare only overlaps of the same n.

    Args:
        features: m arrays (n, d_j) of the same samples in the same order, any real dtype, finite.
        k: Neighbours, 1 ≤ k ≤ n - 1.

    Returns:
        float64 (m, m) in [0, 1], symmetric, 1 on the diagonal.

    Raises:
        UsageError: The numbers of rows differ, or ``k`` or values cannot be used.

    Cost: m searches of :func:`featkit.ops.neighbors.nearest_neighbors`; memory 8·m·n·k bytes and
    4·n·d.

    Source: Huh et al. 2024, arXiv:2405.07987, appendix A (mutual k-NN, k = 10; by inner products
    of normalised features).

    Example:
        >>> x = np.array([[0.0, 9.0], [1.0, 9.0], [9.0, 0.0], [9.0, 2.0]])
        >>> y = np.array([[0.0, 9.0], [1.0, 9.0], [1.0, 8.0], [9.0, 2.0]])
        >>> neighbor_overlap([x, y], k=1)
        array([[1. , 0.5],
               [0.5, 1. ]])
    """
    found: list[Integers] = []
    for number, x in enumerate(features):
        unit = unit_rows(x, name=f"features {number}")
        if found and len(unit.array) != len(found[0]):
            raise UsageError(
                f"features {number} have {len(unit.array)} rows and features 0 {len(found[0])}:"
                " give the same samples"
            )
        found.append(nearest_neighbors(unit, unit, k, exclude_self=True)[1])
    overlap: Doubles = np.eye(len(found))
    for i, one in enumerate(found):
        for j, other in enumerate(found[:i]):
            overlap[i, j] = overlap[j, i] = _common(one, other).mean() / k
    return overlap


def _common(one: Integers, other: Integers) -> Integers:
    """Count the numbers that two rows (n, k) have in common, (n); no row has one twice."""
    both = np.sort(np.concatenate([one, other], axis=1), axis=1)
    counts: Integers = (both[:, 1:] == both[:, :-1]).sum(axis=1)
    return counts


def _unit_sums(x: Rows, name: str) -> tuple[int, Doubles, float]:
    """Return the number of rows, and of the rows of length 1 their sum (d) and that of squares."""
    rows = x.array if isinstance(x, UnitRows) else x
    rows = rows if isinstance(rows, torch.Tensor) else np.atleast_1d(rows)
    total: Doubles = np.zeros(rows.shape[-1])
    squares = 0.0
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        unit = unit_rows(rows[part], name=f"{name}[{start}:{part.stop}]").array.astype(np.float64)
        total += unit.sum(axis=0)
        squares += float(np.vdot(unit, unit))
    return len(rows), total, squares
