"""Whether two quantities go together, over few models."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats  # type: ignore[import-untyped]

from featkit.errors import UsageError

_PERMUTATIONS = 99_999
_NORMAL_95 = 1.959964


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """Spearman's ρ with its uncertainty.

    Attributes:
        n: Pairs.
        rho: ρ in [-1, 1].
        low: Lower bound of the 95 % interval.
        high: Upper bound.
        p: Chance of a |ρ| as large if the two had nothing to do with each other: exact up to eight
            pairs, from 99,999 random permutations above; ties share their rank.
    """

    n: int
    rho: float
    low: float
    high: float
    p: float


def rank_correlation(x: npt.ArrayLike, y: npt.ArrayLike, seed: int = 0) -> RankCorrelation:
    """Correlate the ranks of two quantities; tied values share their mean rank.

    Args:
        x: (n), n ≥ 3, finite, not all equal.
        y: (n), likewise.
        seed: Of the permutations.

    Returns:
        ρ, the p-value of a permutation test, and a 95 % interval by Fisher's z with the variance
        (1 + ρ²/2) / (n - 3), for which ρ = ±1 counts as the next value that n ranks can have:
        agreement of a few pairs is no certainty. Three pairs give [-1, 1], and never p below 1/3.

    Raises:
        UsageError: There are fewer than three pairs, or a quantity does not vary.

    Cost: some 0.3 s for more than eight pairs.

    Source: Spearman 1904; Bonett and Wright 2000, doi:10.1007/BF02294183 (the variance);
    Phipson and Smyth 2010, doi:10.2202/1544-6115.1585 (p from random permutations).

    Example:
        >>> found = rank_correlation([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 40.0, 30.0])
        >>> found.rho, round(found.p, 4)  # 8 of the 24 orders have |ρ| ≥ 0.8
        (0.8, 0.3333)
    """
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 3:
        raise UsageError(f"ranks of {a.shape} and {b.shape} values: give three pairs or more")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UsageError("ranks of values that are not finite: leave them out")
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        raise UsageError("a quantity is the same everywhere: it has no ranks to correlate")
    ranks = stats.rankdata(a), stats.rankdata(b)
    rho = _correlations(*(x[None] for x in ranks))[0]
    test = stats.permutation_test(
        (ranks[0],),
        lambda shuffled, axis: np.abs(_correlations(np.moveaxis(shuffled, axis, -1), ranks[1])),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=_PERMUTATIONS,
        alternative="greater",
        rng=np.random.default_rng(seed),
    )
    low, high = _interval(float(rho), len(a))
    return RankCorrelation(len(a), float(rho), low, high, float(test.pvalue))


def _interval(rho: float, n: int) -> tuple[float, float]:
    if n == 3:
        return -1.0, 1.0
    nearest = 1 - 12 / (n * (n**2 - 1))  # ρ where two neighbours have changed places
    middle = math.atanh(min(nearest, max(-nearest, rho)))
    reach = _NORMAL_95 * math.sqrt((1 + rho**2 / 2) / (n - 3))
    return min(rho, math.tanh(middle - reach)), max(rho, math.tanh(middle + reach))


def _correlations(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return Pearson's correlation of each row of x with that of y, not a number where constant."""
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: npt.NDArray[np.float64] = (x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    return found
