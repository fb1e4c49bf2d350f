"""How sure a share of right answers is, and a difference between two."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, norm  # type: ignore[import-untyped]

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
    _check_confidence(confidence)
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
    only_first, only_second, _ = _discordant(a, b)
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant).pvalue) if discordant else 1.0


def paired_interval(
    a: npt.ArrayLike, b: npt.ArrayLike, confidence: float = 0.95
) -> tuple[float, float]:
    """Return an interval for how much more often the first classifier is right than the second.

    ``d ± z √((p + q - d²) / (n + 2))``, ``d = p - q``: p and q are the shares of samples on which
    only the first and only the second is right, each with one sample added, of n + 2.

    Args:
        a: Whether the first was right, bool (n).
        b: Whether the second was right on the same samples, bool (n).
        confidence: In (0, 1).

    Returns:
        Lower and upper end, in [-1, 1].

    Raises:
        UsageError: These are no two bool arrays of one length, or ``confidence`` is none.

    Source: Bonett and Price 2012, Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data, J. Educ. Behav. Stat. 37; recommended by Fagerland, Lydersen
    and Laake 2014, Stat. Med. 33, for its coverage in small samples.

    Example:
        >>> low, high = paired_interval([True] * 9 + [False], [True] * 5 + [False] * 5)
        >>> round(low, 4), round(high, 4)
        (-0.0195, 0.6862)
    """
    _check_confidence(confidence)
    only_first, only_second, n = _discordant(a, b)
    p, q = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    half = norm.ppf((1 + confidence) / 2) * np.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return max(-1.0, float(p - q - half)), min(1.0, float(p - q + half))


def _discordant(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[int, int, int]:
    """Count the samples on which only the first is right, only the second, and all."""
    first, second = np.asarray(a), np.asarray(b)
    if first.dtype != bool or second.dtype != bool or first.ndim != 1:
        given = f"{first.dtype} {first.shape} and {second.dtype} {second.shape}"
        raise UsageError(f"paired test of {given}: give whether each was right, bool (n)")
    if first.shape != second.shape:
        raise UsageError(
            f"paired test of {first.shape} and {second.shape}: give answers on the same samples"
        )
    return int((first & ~second).sum()), int((second & ~first).sum()), len(first)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}: give a number between 0 and 1, such as 0.95")
