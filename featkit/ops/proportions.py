"""How sure a share of right answers is, and a difference between two."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest  # type: ignore[import-untyped]

from featkit.errors import UsageError
from featkit.ops.neighbors import whole_number


def proportion_interval(right: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval for a probability of which ``right / n`` was seen.

    All p with ``|right / n - p| ≤ z √(p (1 - p) / n)``, z the normal quantile of ``confidence``.

    Args:
        right: Successes, in [0, n].
        n: Independent trials, 1 or more.
        confidence: In (0, 1).

    Returns:
        Lower and upper end, in [0, 1].

    Raises:
        UsageError: A number is outside of its range.

    Source: Wilson 1927, Probable inference, the law of succession, and statistical inference,
    J. Am. Stat. Assoc. 22.

    Example:
        >>> low, high = proportion_interval(15, 148)
        >>> round(low, 4), round(high, 4)
        (0.0624, 0.1605)
    """
    n = whole_number(n, "n")
    if right != 0:
        whole_number(right, "right", n, "trials")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}: give a number between 0 and 1, such as 0.95")
    interval = binomtest(int(right), n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def paired_test(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return the p-value of two classifiers being right equally often.

    McNemar's test, exact: of the samples on which one is right and the other wrong, as many or more
    falling on one side as did, each side by a fair coin, two-sided.

    Args:
        a: Whether the first was right, bool (n).
        b: Whether the second was right on the same samples, bool (n).

    Returns:
        In (0, 1]; 1 where they are right on the same samples.

    Raises:
        UsageError: These are no two bool arrays of one length.

    Source: McNemar 1947, Note on the sampling error of the difference between correlated
    proportions or percentages, Psychometrika 12.

    Example:
        >>> paired_test([True, True, True, True, False], [False, False, False, True, False])
        0.25
    """
    first, second = np.asarray(a), np.asarray(b)
    if first.dtype != bool or second.dtype != bool or first.ndim != 1:
        given = f"{first.dtype} {first.shape} and {second.dtype} {second.shape}"
        raise UsageError(f"paired test of {given}: give whether each was right, bool (n)")
    if first.shape != second.shape:
        raise UsageError(
            f"paired test of {first.shape} and {second.shape}: give answers on the same samples"
        )
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
