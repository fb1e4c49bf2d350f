"""How many of the nearest neighbours an approximate search finds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.ops.proportions import proportion_interval

ROUNDING = 1e-6
"""By how much similarities that are equal may differ, as the order of additions differs."""


@dataclass(frozen=True)
class Recall:
    """The share of the exact k nearest neighbours that a search finds.

    Attributes:
        share: In [0, 1]; a neighbour as similar as the last of the exact ones counts.
        low: Lower end of its 95 % interval over queries.
        high: Upper end.
        queries: How many were compared.
    """

    share: float
    low: float
    high: float
    queries: int


def neighbor_recall(found: npt.ArrayLike, exact: npt.ArrayLike) -> Recall:
    """Return how many of the k nearest neighbours were found, from similarities alone.

    ``mean_i |{j : found_ij ≥ exact_ik - 1e-6}| / k``: of neighbours that tie for the last place
    each is as good.

    The interval is Wilson's for as many independent trials as have the variance that shares have
    among queries: as many as there are queries where each finds all or nothing, k times as many
    where misses fall anywhere.

    Args:
        found: Similarities of the neighbours found, (q, k).
        exact: Those of the exact ones, (q, k), decreasing.

    Raises:
        UsageError: The shapes differ, or are empty.

    Source: Dean and Pagano 2015, Evaluating confidence interval methods for binomial proportions in
    clustered surveys, J. Surv. Stat. Methodol. 3, for the interval.

    Example:
        >>> neighbor_recall([[0.9, 0.5], [0.8, 0.7]], [[0.9, 0.6], [0.8, 0.7]]).share
        0.75
    """
    near, wanted = np.asarray(found), np.asarray(exact)
    if near.shape != wanted.shape or near.ndim != 2 or not near.size:
        raise UsageError(f"recall of {near.shape} among {wanted.shape}: give two of (q, k)")
    shares = (near >= wanted[:, -1:] - ROUNDING).mean(axis=1)
    (q, k), share = near.shape, float(shares.mean())
    spread = float(shares.var(ddof=1)) if q > 1 else 0.0
    trials = float(np.clip(share * (1 - share) * q / spread, q, q * k)) if spread else float(q)
    low, high = proportion_interval(round(share * trials), round(trials))
    return Recall(share, min(low, share), max(high, share), q)
