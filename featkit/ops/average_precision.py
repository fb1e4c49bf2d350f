"""Average precision as PASCAL VOC 2007 counts it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError


def eleven_point_average_precision(
    scores: npt.ArrayLike, relevant: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Return the average precision of each column's ranking, at eleven levels of recall.

    ``1/11 Σ_{t ∈ {0, 0.1, …, 1}} max_{s: recall(s) ≥ t} precision(s)``, where s are the scores that
    occur: the samples with a score of s or more are those that were found. So samples of equal
    score are found together, and their order does not matter.

    Args:
        scores: (n, k), any real dtype, finite; higher is more relevant.
        relevant: 0 or 1, or bool, (n, k).

    Returns:
        float64 (k) in [0, 1]; NaN for columns without a relevant sample, which have no recall:
        leave them out of means.

    Raises:
        UsageError: Shapes, types or values cannot be used.

    Cost: k sorts of n numbers.

    Source: Everingham et al. 2010, The PASCAL visual object classes (VOC) challenge, Int. J.
    Comput. Vis. 88, sec. 4.2. The VOC2007 code gives samples of equal score the order of the file,
    and leaves out those marked difficult, which a store does not know. Recalls are compared in
    whole numbers: 3 of 10 is a recall of 0.3.

    Example:
        >>> scores = [[0.9], [0.8], [0.7], [0.6]]
        >>> eleven_point_average_precision(scores, [[1], [0], [1], [0]])  # (6 + 5 · 2/3) / 11
        array([0.84848485])
    """
    ranked, wanted = np.asarray(scores), np.asarray(relevant)
    if ranked.dtype.kind not in "iuf" or ranked.ndim != 2 or not ranked.size:
        given = f"{ranked.dtype} {ranked.shape}"
        raise UsageError(f"scores are {given}: give numbers in the shape (samples, classes)")
    if not np.isfinite(ranked).all():
        raise UsageError("scores hold NaN or infinity: leave these samples out")
    if wanted.shape != ranked.shape:
        raise UsageError(f"relevant is {wanted.shape} and scores {ranked.shape}: give one each")
    if wanted.dtype.kind not in "biuf" or not ((wanted == 0) | (wanted == 1)).all():
        raise UsageError("relevant holds other values than 0 and 1: give whether each is relevant")
    columns = zip(ranked.T, wanted.T.astype(bool), strict=True)
    return np.array([_average_precision(*column) for column in columns])


def _average_precision(scores: npt.NDArray[np.number], relevant: npt.NDArray[np.bool_]) -> float:
    most = int(relevant.sum())
    if not most:
        return np.nan
    order = np.argsort(scores)[::-1]
    falling = scores[order]
    ends = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(falling) - 1)
    right = np.cumsum(relevant[order])[ends]
    precision = right / (ends + 1)
    best_from = np.maximum.accumulate(precision[::-1])[::-1]
    levels = np.searchsorted(10 * right, most * np.arange(11))
    return float(best_from[levels].mean())
