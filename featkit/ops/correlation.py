"""How two quantities go together over few models, by value and by rank."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import stats  # type: ignore[import-untyped]

from featkit.errors import UsageError
from featkit.ops.matrices import BLOCK_FLOATS, ROUNDING, Array, Doubles

_EXACT = 8
_PERMUTATIONS = 99_999


@dataclass(frozen=True, slots=True)
class Correlation:
    """Pearson's r and Spearman's ρ of the same pairs.

    Attributes:
        n: Pairs.
        pearson: r in [-1, 1].
        pearson_p: Chance of an |r| as large if the two had nothing to do with each other: exact up
            to eight pairs, from 99,999 random permutations above.
        spearman: ρ in [-1, 1]; ties share their mean rank.
        spearman_p: The same of |ρ|.
    """

    n: int
    pearson: float
    pearson_p: float
    spearman: float
    spearman_p: float


def correlate(x: npt.ArrayLike, y: npt.ArrayLike, seed: int = 0) -> Correlation:
    """Correlate two quantities, with permutation tests: no distribution is assumed.

    Args:
        x: (n), n ≥ 3, finite, not all equal.
        y: (n), likewise.
        seed: Of the permutations.

    Returns:
        Both coefficients. Of three pairs p is never below 1/3, of four never below 1/12.

    Raises:
        UsageError: There are fewer than three pairs, or a quantity does not vary.

    Cost: n! or 1e5 products of n numbers, twice; permutations are kept for the next call.

    Source: Pearson 1895; Spearman 1904; Phipson and Smyth 2010, doi:10.2202/1544-6115.1585 (p from
    random permutations).

    Example:
        >>> found = correlate([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 40.0, 30.0])
        >>> found.spearman, round(found.spearman_p, 4)  # 8 of the 24 orders have |ρ| ≥ 0.8
        (0.8, 0.3333)
    """
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 3:
        raise UsageError(f"{a.shape} and {b.shape} values: give three pairs or more")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UsageError("values that are not finite: leave them out")
    if not (varies(a) and varies(b)):
        raise UsageError("a quantity is the same everywhere: it correlates with nothing")
    r, r_p = _tested(a, b, seed)
    rho, rho_p = _tested(stats.rankdata(a), stats.rankdata(b), seed)
    return Correlation(len(a), r, r_p, rho, rho_p)


def varies(values: Doubles) -> bool:
    """Tell whether numbers (n) are not all the same but for rounding."""
    return bool(np.ptp(values) > ROUNDING * np.abs(values).max())


def adjust_for_many(p: npt.ArrayLike) -> Doubles:
    """Raise p-values so that of a family of tests one is below α by chance in α of all cases.

    Step down: ``max_{j ≤ i} min(1, (n - j + 1) p_(j))`` for the i-th smallest.

    Args:
        p: (n), in [0, 1].

    Returns:
        float64 (n), in [0, 1], in the order given.

    Raises:
        UsageError: A value is none of a test.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.

    Example:
        >>> adjust_for_many([0.01, 0.04, 0.03])
        array([0.03, 0.06, 0.06])
    """
    values = np.asarray(p, np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise UsageError("p-values: give a list of numbers from 0 to 1")
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    adjusted = np.empty_like(values)
    adjusted[order] = stepped
    return adjusted


def _tested(a: Doubles, b: Doubles, seed: int) -> tuple[float, float]:
    """Return the correlation of the values as they are, and the p of its permutation test."""
    a, b = _standardized(a), _standardized(b)
    found = float(np.clip(a @ b, -1, 1))
    found = 0.0 if abs(found) < ROUNDING else found
    orders = _orders(len(a), seed)
    step = max(1, BLOCK_FLOATS // len(a))
    blocks = (orders[start : start + step] for start in range(0, len(orders), step))
    extreme = sum(int((np.abs(b[block] @ a) >= abs(found) - 1e-10).sum()) for block in blocks)
    asked = 0 if len(a) <= _EXACT else 1  # among random orders, that which was seen counts too
    return found, (extreme + asked) / (len(orders) + asked)


def _standardized(values: Doubles) -> Doubles:
    centred = values - values.mean()
    scaled: Doubles = centred / math.sqrt(centred @ centred)
    return scaled


@lru_cache(maxsize=8)
def _orders(n: int, seed: int) -> Array:
    """Return all orders of n places, or random ones where they are too many."""
    if n <= _EXACT:
        return np.array(list(itertools.permutations(range(n))), np.uint16)
    places = np.tile(np.arange(n, dtype=np.uint16), (_PERMUTATIONS, 1))
    return np.random.default_rng(seed).permuted(places, axis=1)
