"""What kind of learner a leaf is, by criteria that were fixed before any leaf was looked at.

The paper tells specialists, consistent and inconsistent, generalists and failed learners by eye.
Here a leaf has *failed* if it tells classes no better than chance does, or looks at nothing;
otherwise it is a *specialist* if half of its saliency lies in few pixels, *consistent* if its
vectors go with the classes, and a *generalist* if not.

Source: Grant, Dias, Kulkarni, Spontaneous decomposition from grouped network pathways, 2022,
sec. 5.3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from featkit.ops.neighbors import nearest_neighbors, unit_rows
from featkit.ops.proportions import proportion_interval
from featkit.ops.votes import majority_vote

Category: TypeAlias = Literal[
    "consistent specialist", "inconsistent specialist", "generalist", "failed"
]
CATEGORIES: tuple[Category, ...] = get_args(Category)

SPECIALIST = 0.15
"""Largest share of pixels that holds half of a specialist's saliency. An even map needs 0.5 of
them; pixels that are independent of each other 0.24 where their gradients are Gaussian, and 0.19
where they are Laplacian: what is at 0.15 is gathered more than by chance."""

CONSISTENT = 0.14
"""Least share of variance between classes of a consistent leaf.

Source: Cohen 1988, Statistical power analysis for the behavioral sciences, sec. 8.2: a large
effect, f = 0.40, explains f² / (1 + f²) = 0.138 of the variance.
"""

DARK = 0.5
"""A leaf whose maps are 0 in a larger share of images has failed."""

NEIGHBORS = 20
"""That vote, as in all of featkit. More images than these are needed."""

_SAME = 1e-10
"""Variance of unit vectors up to which they are all the same."""


@dataclass(frozen=True)
class LeafMeasures:
    """What the category of a leaf is decided by.

    Attributes:
        concentration: Mean of :func:`half_share` over the maps that are not 0, in (0, 1]; not a
            number where all are.
        dark: Share of the images in which its map is 0 everywhere.
        selectivity: Of :func:`class_selectivity`.
        accuracy: Leave-one-out, of the majority of the 20 nearest neighbours by cosine.
        low: Lower end of its 95 % interval (Wilson).
        high: Upper end.
    """

    concentration: float
    dark: float
    selectivity: float
    accuracy: float
    low: float
    high: float

    def category(self, chance: float) -> Category:
        """Return what kind of learner it is.

        Args:
            chance: Share of the largest class.

        Example:
            >>> leaf = LeafMeasures(0.1, 0, selectivity=0.2, accuracy=0.3, low=0.26, high=0.34)
            >>> leaf.category(chance=0.1), leaf.category(chance=0.28)
            ('consistent specialist', 'failed')
        """
        if self.low <= chance or self.dark > DARK:
            return "failed"
        if self.concentration > SPECIALIST:
            return "generalist"
        is_consistent = self.selectivity >= CONSISTENT
        return "consistent specialist" if is_consistent else "inconsistent specialist"


def half_share(maps: NDArray[Any]) -> NDArray[np.float64]:
    """Return the smallest share of pixels that holds half of a map; not a number where it is 0.

    Args:
        maps: (…, h, w), 0 or more.

    Returns:
        (…), in (0, 0.5].

    Example:
        >>> half_share(np.ones((2, 5))), half_share(np.eye(10))
        (array(0.5), array(0.05))
    """
    pixels = maps.reshape(*maps.shape[:-2], -1).astype(np.float64)
    held = np.sort(pixels, axis=-1)[..., ::-1].cumsum(-1)
    needed = (held < held[..., -1:] / 2).sum(-1) + 1
    return np.where(held[..., -1] > 0, needed / pixels.shape[-1], np.nan)


def class_selectivity(vectors: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """Return the share of the variance of unit vectors that lies between classes, without bias.

    ``1 - (S_within / (n - k)) / (S_total / (n - 1))``, S the sums of squared distances to the means
    of the k classes, and to the mean of all. Without the numbers of degrees of freedom this were
    η², which is (k - 1) / (n - 1) where vectors have nothing to do with classes, whatever their
    number.

    Args:
        vectors: (n, d), n > k.
        labels: (n), 2 ≤ k different ones.

    Returns:
        At most 1; about 0 by chance, and below by as much as above; 0 where all vectors are alike.

    Source: Kelley 1935, An unbiased correlation ratio measure, PNAS 21 (ε²), of several dimensions.

    Example:
        >>> class_selectivity(np.array([[1, 0], [2, 0], [0, 1], [0, 3]]), np.array([0, 0, 1, 1]))
        1.0
    """
    rows = unit_rows(vectors).array.astype(np.float64)
    classes = np.unique(labels)
    n, k = len(rows), len(classes)
    total = ((rows - rows.mean(0)) ** 2).sum() / (n - 1)
    if total <= _SAME:
        return 0.0
    members = [rows[labels == c] for c in classes]
    within = sum(((own - own.mean(0)) ** 2).sum() for own in members) / (n - k)
    return float(1 - within / total)


def measure_leaf(
    maps_share: NDArray[np.float64], vectors: NDArray[Any], labels: NDArray[np.int64]
) -> LeafMeasures:
    """Return what a leaf's category is decided by.

    Args:
        maps_share: (n), what :func:`half_share` gives for its maps.
        vectors: (n, d), finite.
        labels: (n), of two classes or more, n > 20.

    Cost: 2·n²·d operations.
    """
    is_lit = ~np.isnan(maps_share)
    similarities, rows = nearest_neighbors(
        vectors, vectors, NEIGHBORS, exclude_self=True, device="cpu"
    )
    classes, numbers = np.unique(labels, return_inverse=True)
    votes = majority_vote(similarities, numbers[rows], len(classes), [NEIGHBORS])[NEIGHBORS]
    right = int((votes == numbers).sum())
    low, high = proportion_interval(right, len(labels))
    return LeafMeasures(
        concentration=float(maps_share[is_lit].mean()) if is_lit.any() else float("nan"),
        dark=float(1 - is_lit.mean()),
        selectivity=class_selectivity(vectors, labels),
        accuracy=right / len(labels),
        low=low,
        high=high,
    )
