"""Whether a classifier is right as often as it says, and one number that mends it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq  # type: ignore[import-untyped]

from featkit.errors import UsageError
from featkit.ops.neighbors import Array, Integers, whole_number

Doubles: TypeAlias = npt.NDArray[np.float64]

BINS = 15
"""Source: Guo et al. 2017, arXiv:1706.04599, table 1."""

_ROUNDING = 1e-3
"""How far sums of float16 probabilities may lie from 1."""

_CELLS = 2**17
"""Numbers at work at once: 1 MiB stays in the cache."""

_LARGEST = 1e150
"""Of logits; differences of those above could be infinite."""

_LOG_RANGE = 708.0
"""Logarithms of 1 / T among which the best is looked for: all that float64 has."""


@dataclass(frozen=True)
class Reliability:
    """Samples in bins of their confidence; bins without samples are left out.

    Attributes:
        n: Samples of each bin, int64 (b), 1 or more.
        confidence: Their mean confidence, float64 (b), increasing.
        right: How many of them are classified right, int64 (b).
    """

    n: Integers
    confidence: Doubles
    right: Integers

    @property
    def error(self) -> float:
        """Expected calibration error, ``Σ_b n_b / n |right_b / n_b - confidence_b|``, in [0, 1]."""
        gaps = np.abs(self.right - self.n * self.confidence)
        return float(gaps.sum() / self.n.sum())


def reliability(confidence: npt.ArrayLike, right: npt.ArrayLike, bins: int = BINS) -> Reliability:
    """Compare confidence and accuracy, bin by bin.

    Bin b of B holds the samples whose confidence is in ((b - 1) / B, b / B]; 0 is in the first.

    Args:
        confidence: Probability that was given to the predicted class, (n) in [0, 1].
        right: Whether the prediction was right, bool (n).
        bins: B, of equal width.

    Returns:
        The bins that hold samples, in order.

    Raises:
        UsageError: Shapes, types or values cannot be used.

    Cost: one pass over the samples.

    Source: Guo et al. 2017, arXiv:1706.04599, sec. 2; DeGroot and Fienberg 1983, The comparison and
    evaluation of forecasters, The Statistician 32.

    Example:
        >>> reliability([0.4, 0.9, 1.0], [True, False, True], bins=2)
        Reliability(n=array([1, 2]), confidence=array([0.4 , 0.95]), right=array([1, 1]))
    """
    bins = whole_number(bins, "bins")
    sure, hits = np.asarray(confidence), np.asarray(right)
    if sure.dtype.kind != "f" or hits.dtype != bool or sure.ndim != 1 or sure.shape != hits.shape:
        given = f"{sure.dtype} {sure.shape} and {hits.dtype} {hits.shape}"
        raise UsageError(f"confidence and right are {given}: give numbers (n) and bool (n)")
    if not len(sure) or not ((sure >= 0) & (sure <= 1)).all():
        raise UsageError("confidence of no samples, or outside of [0, 1]: give probabilities")
    sure = sure.astype(np.float64)
    places = np.searchsorted(np.arange(1, bins) / bins, sure, side="left")
    n = np.bincount(places, minlength=bins)
    kept = n > 0
    total = np.bincount(places, weights=sure, minlength=bins)[kept]
    hit = np.bincount(places[hits], minlength=bins)[kept]
    return Reliability(n[kept], total / n[kept], hit)


def expected_calibration_error(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = BINS
) -> float:
    """Return how far confidence lies from accuracy, on average.

    ``Σ_b n_b / n |accuracy_b - confidence_b|`` over the bins of :func:`reliability`; the confidence
    of a sample is its largest probability, the prediction the first class that has it.

    Args:
        probabilities: (n, c) in [0, 1], rows sum to 1.
        labels: whole numbers (n) in [0, c).
        bins: Bins of equal width.

    Returns:
        In [0, 1]; 0 is calibrated.

    Raises:
        UsageError: Shapes, types or values cannot be used.

    Cost: one pass over the probabilities.

    Source: Guo et al. 2017, arXiv:1706.04599, eq. 3; Naeini et al. 2015, Obtaining well calibrated
    probabilities using Bayesian binning.

    Example:
        >>> p = [[0.8, 0.2], [0.8, 0.2], [0.3, 0.7], [0.3, 0.7]]
        >>> round(expected_calibration_error(p, [0, 0, 1, 0]), 4)
        0.2
    """
    shares, numbers = _scores_and_labels(probabilities, labels, "probabilities")
    if shares.min() < 0 or (abs(shares.sum(1) - 1) > _ROUNDING).any():
        raise UsageError("probabilities are negative or do not sum to 1: give those of a softmax")
    confidence = shares.max(1).clip(max=1)  # rounding may have lifted it
    return reliability(confidence, shares.argmax(1) == numbers, bins).error


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the temperature at which the labels are most likely.

    ``argmin_{T > 0} -Σ_i log softmax(z_i / T)_{y_i}``. It is convex in 1 / T, so there is one
    minimum, found where the derivative is 0.

    Args:
        logits: z, (n, c), c ≥ 2, any float dtype, finite: of samples that the classifier was not
            trained on.
        labels: y, whole numbers (n) in [0, c).

    Returns:
        T. 0.0 where no logit of a row is above that of its label: the smaller T, the likelier
        the labels. ``inf`` where the logits of the labels are on average no higher than the mean of
        all: the larger T, the likelier. :func:`confidence_at` knows both limits.

    Raises:
        UsageError: Shapes, types or values cannot be used.

    Cost: some 20 passes over the logits, block by block in float64.

    Source: Guo et al. 2017, arXiv:1706.04599, sec. 4.2, temperature scaling.

    Example:
        >>> round(fit_temperature([[2.0, 0.0]] * 4, [0, 0, 0, 1]), 6)  # 2 / log(3)
        1.820478
        >>> fit_temperature([[2.0, 0.0], [0.0, 1.0]], [0, 1])
        0.0
        >>> fit_temperature([[2.0, 0.0], [0.0, 2.0]], [1, 0])
        inf
    """
    scores, numbers = _scores_and_labels(logits, labels, "logits")
    if scores.shape[1] < 2:
        raise UsageError("logits of one class: every temperature gives it probability 1")

    def slope(log_inverse: float) -> float:
        return _slope(scores, numbers, math.exp(log_inverse))

    if slope(-_LOG_RANGE) >= 0:
        return math.inf
    if slope(_LOG_RANGE) <= 0:
        return 0.0
    return math.exp(-brentq(slope, -_LOG_RANGE, _LOG_RANGE, xtol=1e-12))


def confidence_at(logits: npt.ArrayLike, temperature: float) -> Doubles:
    """Return the largest probability of each row, ``max_c softmax(z / T)_c``.

    Args:
        logits: z, (n, c), any float dtype, finite.
        temperature: T in [0, ∞]. At 0 the classes with the largest logit share 1, at ∞ all do; the
            prediction stays the class with the largest logit.

    Returns:
        float64 (n) in [1 / c, 1].

    Raises:
        UsageError: Shapes, types or values cannot be used.

    Cost: one pass over the logits, block by block in float64.

    Example:
        >>> confidence_at([[0.0, 0.0], [0.0, 3.0]], 2.0).round(4)
        array([0.5   , 0.8176])
    """
    if not temperature >= 0:
        raise UsageError(f"temperature is {temperature}: give a number, 0 or more")
    scores = _scores(logits, "logits")
    inverse = math.inf if temperature == 0 else 1 / temperature
    return np.concatenate(
        [1 / _weights(scores[part], inverse)[0].sum(1) for part in _blocks(scores)]
    )


def _blocks(scores: Array) -> Iterator[slice]:
    step = max(1, _CELLS // scores.shape[1])
    for start in range(0, len(scores), step):
        yield slice(start, start + step)


def _weights(block: Array, inverse: float) -> tuple[Doubles, Doubles]:
    """Return ``exp((z - max z) / T)`` and ``z - max z``, float64."""
    below = block.astype(np.float64)
    below -= below.max(1, keepdims=True)
    if math.isinf(inverse):
        return (below == 0).astype(np.float64), below
    with np.errstate(under="ignore", over="ignore"):
        return np.exp(below * inverse), below


def _slope(scores: Array, labels: Integers, inverse: float) -> float:
    """Return the derivative of the loss by 1 / T, ``Σ_i (Σ_c p_ic z_ic - z_iy)``."""
    total = 0.0
    for part in _blocks(scores):
        weights, below = _weights(scores[part], inverse)
        mean = np.einsum("ic,ic->i", weights, below) / weights.sum(1)
        total += float((mean - below[np.arange(len(below)), labels[part]]).sum())
    return total


def _scores(given: npt.ArrayLike, name: str) -> Array:
    scores = np.asarray(given)
    if scores.dtype.kind != "f" or scores.ndim != 2 or not scores.size:
        shape = f"{scores.dtype} {scores.shape}"
        raise UsageError(f"{name} are {shape}: give floats in the shape (samples, classes)")
    if not max(float(scores.max()), -float(scores.min())) < _LARGEST:
        raise UsageError(f"{name} hold NaN, infinity or numbers above {_LARGEST}: leave them out")
    return scores


def _scores_and_labels(
    given: npt.ArrayLike, labels: npt.ArrayLike, name: str
) -> tuple[Array, Integers]:
    scores, numbers = _scores(given, name), np.asarray(labels)
    if numbers.dtype.kind not in "iu" or numbers.shape != scores.shape[:1]:
        shape = f"{numbers.dtype} {numbers.shape}"
        raise UsageError(f"labels are {shape}: give {len(scores)} whole numbers, one a row")
    if numbers.min() < 0 or numbers.max() >= scores.shape[1]:
        raise UsageError(
            f"labels are {numbers.min()} to {numbers.max()} and there are {scores.shape[1]}"
            f" classes: give numbers from 0 to {scores.shape[1] - 1}"
        )
    return scores, numbers.astype(np.int64)
