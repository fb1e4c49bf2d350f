"""Few points in few groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

from featkit.errors import UsageError
from featkit.ops.matrices import ROUNDING, Doubles, real_matrix

Integers: TypeAlias = npt.NDArray[np.int64]

_STARTS = 20


@dataclass(frozen=True)
class Grouping:
    """Points in groups.

    Attributes:
        labels: The group of each point, int64 (n), numbered from 0 in the order of the points.
        count: Groups.
        silhouette: Their mean silhouette in [-1, 1]; None where it is not defined: one group, or as
            many as points.
    """

    labels: Integers
    count: int
    silhouette: float | None


def group_points(points: npt.ArrayLike, counts: Sequence[int], seed: int = 0) -> Grouping:
    """Group points by k-means; of several numbers of groups, take that of the best silhouette.

    Who belongs together does not depend on the order of the points. A silhouette compares numbers
    of groups from two on: it cannot say that there are no groups.

    Args:
        points: (n, d), finite.
        counts: Numbers of groups to try, each from 1 to the number of distinct points; of equally
            good ones the first is taken.
        seed: Of the starts of k-means.

    Raises:
        UsageError: A number of groups cannot be had, or points are not finite.

    Cost: 20 runs of k-means for each count.

    Source: Lloyd 1982; Rousseeuw 1987, doi:10.1016/0377-0427(87)90125-7 (silhouette).

    Example:
        >>> found = group_points([[9.0], [0.0], [9.5], [0.5], [20.0]], counts=(2, 3))
        >>> found.labels.tolist(), round(found.silhouette, 2)
        ([0, 1, 0, 1, 2], 0.76)
    """
    x = real_matrix(points, "points").astype(np.float64)
    if not np.isfinite(x).all():
        raise UsageError("points hold NaN or infinity: leave them out")
    different = distinct_points(x)
    for count in counts:
        if not 1 <= count <= different:
            raise UsageError(
                f"{count} groups of {different} distinct points: give 1 to {different}"
            )
    if not counts:
        raise UsageError("no number of groups: give at least one")
    found = [_grouped(x, count, seed) for count in counts]
    return max(found, key=lambda g: -1.0 if g.silhouette is None else g.silhouette)


def distinct_points(points: Doubles) -> int:
    """Count the points (n, d) that differ by more than rounding."""
    unit = np.abs(points).max() * ROUNDING or 1
    return len(np.unique((points / unit).round(), axis=0))


def _grouped(x: Doubles, count: int, seed: int) -> Grouping:
    order = np.lexsort(x.T)
    model = KMeans(count, n_init=_STARTS, random_state=seed).fit(x[order])
    raw = np.empty(len(x), np.int64)
    raw[order] = model.labels_
    first = np.unique(raw, return_index=True)[1]
    labels = np.argsort(np.argsort(first))[raw]
    defined = 1 < count < len(x)
    return Grouping(labels, count, float(silhouette_score(x, labels)) if defined else None)
