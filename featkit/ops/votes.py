"""The votes that nearest neighbours cast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.ops.neighbors import Array, Integers, whole_number

VOTE_CELLS = 2**22  # (query, class) scores held at once


def majority_vote(
    similarities: npt.ArrayLike,
    labels_of_neighbors: npt.ArrayLike,
    n_classes: int,
    ks: Sequence[int],
) -> dict[int, Integers]:
    """Predict the class of most of the ``k`` nearest neighbours, for every ``k`` from one search.

    ``argmax_c Σ_{j ≤ k} [y_j = c]``; of tied classes the one with the nearest neighbour.

    Args:
        similarities: (q, K), decreasing along each row.
        labels_of_neighbors: integers (q, K) in [0, n_classes).
        n_classes: Classes of the bank.
        ks: Numbers of neighbours, each in [1, K].

    Returns:
        For each ``k`` the predicted classes, int64 (q) in [0, n_classes).

    Raises:
        UsageError: shapes, order, labels or ``ks`` do not fit together.

    Cost: O(q·K·len(ks)); some 100 MiB beside the inputs.

    Example:
        >>> majority_vote([[0.9, 0.8, 0.7]], [[2, 1, 1]], n_classes=3, ks=[2, 3])
        {2: array([2]), 3: array([1])}
    """
    return _vote(similarities, labels_of_neighbors, n_classes, ks, None)


def dino_vote(
    similarities: npt.ArrayLike,
    labels_of_neighbors: npt.ArrayLike,
    n_classes: int,
    ks: Sequence[int],
    *,
    temperature: float = 0.07,
) -> dict[int, Integers]:
    """Predict by a vote in which nearer neighbours weigh more; else as :func:`majority_vote`.

    ``argmax_c Σ_{j ≤ k} [y_j = c] exp(sim_j / T)``

    Args:
        similarities: (q, K), decreasing along each row.
        labels_of_neighbors: integers (q, K) in [0, n_classes).
        n_classes: Classes of the bank.
        ks: Numbers of neighbours, each in [1, K].
        temperature: T > 0.

    Returns:
        For each ``k`` the predicted classes, int64 (q) in [0, n_classes).

    Raises:
        UsageError: shapes, order, labels, ``ks`` or ``temperature`` cannot be used.

    Cost: O(q·K·len(ks)); some 100 MiB beside the inputs.

    Source: Wu et al. 2018, arXiv:1805.01978, sec. 3.4, for the vote; Caron et al. 2021,
    arXiv:2104.14294, for T = 0.07 and k in 10, 20, 100, 200. The largest similarity of a row is
    subtracted from it first, which changes no winner and cannot overflow.

    Example:
        >>> dino_vote([[0.9, 0.6, 0.6]], [[0, 1, 1]], n_classes=2, ks=[3])
        {3: array([0])}
    """
    return _vote(similarities, labels_of_neighbors, n_classes, ks, temperature)


def vote_weights(similarities: Array, temperature: float | None) -> Array:
    """Return what each neighbour's vote weighs: exp((sim - largest sim) / T), or 1 without a T."""
    if temperature is None:
        return np.ones(similarities.shape)
    if not 0 < temperature < np.inf:
        raise UsageError(f"temperature is {temperature}: give a positive number, such as 0.07")
    wide = similarities.astype(np.float64)
    weights: Array = np.exp((wide - wide[:, :1]) / temperature)
    return weights


def _vote(
    similarities: npt.ArrayLike,
    labels_of_neighbors: npt.ArrayLike,
    n_classes: int,
    ks: Sequence[int],
    temperature: float | None,
) -> dict[int, Integers]:
    near, labels = np.asarray(similarities), np.asarray(labels_of_neighbors)
    if near.ndim != 2 or near.shape != labels.shape:
        raise UsageError(f"similarities {near.shape} and labels {labels.shape} must both be (q, K)")
    if labels.dtype.kind not in "iu" or not ((labels >= 0) & (labels < n_classes)).all():
        raise UsageError(f"labels must be whole numbers from 0 to {n_classes - 1}: number them so")
    if not (near[:, 1:] <= near[:, :-1]).all():
        raise UsageError("similarities must decrease along each row: sort them, nearest first")
    answers = {
        whole_number(k, "k", near.shape[1], "neighbours a query"): np.empty(
            len(labels), dtype=np.int64
        )
        for k in ks
    }
    step = max(1, VOTE_CELLS // max(n_classes, near.shape[1], 1))
    for start in range(0, len(labels), step):
        part = labels[start : start + step]
        weights = vote_weights(near[start : start + step], temperature)
        scores = np.zeros((len(part), n_classes))
        rows = np.arange(len(part))
        for j in range(max(answers, default=0)):
            scores[rows, part[:, j]] += weights[:, j]
            if j + 1 in answers:  # argmax takes the first: the nearest neighbour of a tied class
                first = np.take_along_axis(scores, part[:, : j + 1], axis=1).argmax(axis=1)
                answers[j + 1][start : start + step] = part[rows, first]
    return answers
