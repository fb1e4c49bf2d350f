"""Means over pairs, by the groups that their two members belong to."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.ops.neighbors import Integers

Doubles: TypeAlias = npt.NDArray[np.float64]


def pair_means(
    values: npt.ArrayLike, groups: npt.ArrayLike, count: int
) -> tuple[Doubles, Integers]:
    """Average a number that belongs to every two of m things by their groups.

    ``mean {v_ij : i ≠ j, g_i = a, g_j = b}`` for groups a and b.

    Args:
        values: v, (m, m), symmetric, finite; the diagonal does not count.
        groups: g, whole numbers (m) in [-1, count); -1 for what is in no group.
        count: Number of groups, k.

    Returns:
        The means, float64 (k, k), symmetric, NaN where there is no pair; and how many pairs each is
        of, int64 (k, k).

    Raises:
        UsageError: Shapes or values cannot be used.

    Cost: O(k·m²).

    Example:
        >>> v = [[0, 1, 4], [1, 0, 2], [4, 2, 0]]
        >>> pair_means(v, [0, 0, 1], 2)
        (array([[ 1.,  3.],
               [ 3., nan]]), array([[1, 2],
               [2, 0]]))
    """
    numbers, places = np.asarray(values, np.float64), np.asarray(groups)
    m = len(numbers)
    if numbers.shape != (m, m) or places.shape != (m,) or places.dtype.kind not in "iu":
        given = f"{numbers.shape} and {places.dtype} {places.shape}"
        raise UsageError(f"values and groups are {given}: give (m, m), and whole numbers (m)")
    if m and not -1 <= places.min() <= places.max() < count:
        raise UsageError(
            f"groups are {places.min()} to {places.max()}: give numbers from -1 to {count - 1}"
        )
    numbers = np.where(np.eye(m, dtype=bool), 0, numbers)
    if not (np.isfinite(numbers).all() and np.array_equal(numbers, numbers.T)):
        raise UsageError("values are not finite, or not symmetric: give one number a pair")
    belongs = (places == np.arange(count)[:, None]).astype(np.int64)
    counts = belongs @ (1 - np.eye(m, dtype=np.int64)) @ belongs.T
    sums = belongs @ numbers @ belongs.T
    means = np.divide(sums, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    counts[np.diag_indices(count)] //= 2  # each pair was met both ways round
    return means, counts
