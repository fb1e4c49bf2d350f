"""How alike units are: correlations between columns, and how evenly they share the variance."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.ops.spectrum import singular_values

_COLUMNS = 1024  # of one side of a block of correlations: 8 MiB
_STILL = 1e-6  # deviation, relative to the largest value, below which float32 columns are constant


def mean_absolute_correlation(x: npt.ArrayLike) -> float:
    """Return the mean of ``|corr(x_i, x_j)|`` over pairs of different columns that vary.

    Args:
        x: (n, d), any real dtype, finite.

    Returns:
        In [0, 1]; not a number where fewer than two columns vary.

    Raises:
        UsageError: ``x`` is no matrix of finite real numbers with two rows or more.

    Cost: n·d² operations; memory 8·n·d bytes, never d².

    Example:
        >>> x = np.array([[1.0, 2.0, 1.0], [2.0, 4.0, -1.0], [3.0, 6.0, 1.0]])
        >>> round(mean_absolute_correlation(x), 6)  # 1, 0 and 0
        0.333333
    """
    columns = _centred(x)
    largest = np.abs(np.asarray(x)).max(axis=0)
    lengths = np.linalg.norm(columns, axis=0)
    columns = columns[:, lengths > _STILL * math.sqrt(len(columns)) * largest]
    d = columns.shape[1]
    if d < 2:
        return math.nan
    columns /= np.linalg.norm(columns, axis=0)
    total = 0.0
    for start in range(0, d, _COLUMNS):
        for other in range(start, d, _COLUMNS):
            block = np.abs(
                columns[:, start : start + _COLUMNS].T @ columns[:, other : other + _COLUMNS]
            )
            if other == start:
                total += block.sum() - np.trace(block)
            else:
                total += 2 * block.sum()
    return float(min(1.0, total / (d * (d - 1))))


def spectral_evenness(x: npt.ArrayLike) -> float:
    """Return how evenly the variance is spread over directions.

    ``-Σ_i p_i log p_i / log r``, p_i the shares of the eigenvalues of the covariance of columns,
    ``r = min(d, n - 1)`` how many there can be: 1 where all are equal, near 0 where one has all.

    Args:
        x: (n, d), any real dtype, finite.

    Returns:
        In [0, 1]; not a number where no column varies, or r is 1.

    Raises:
        UsageError: As in :func:`mean_absolute_correlation`.

    Cost: that of :func:`featkit.ops.spectrum.singular_values`; memory 8·n·d bytes.

    Source: Xie et al. 2017, Uncorrelation and evenness, ICML (components should play equal roles:
    eigenvalues be uniform); Pielou's ratio of entropies makes a number of it.

    Example:
        >>> round(spectral_evenness([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), 6)
        1.0
    """
    columns = _centred(x)
    n, d = columns.shape
    largest = float(np.abs(np.asarray(x)).max())
    if min(d, n - 1) < 2 or float(np.abs(columns).max()) <= _STILL * largest:
        return math.nan
    squares = singular_values(columns)[: min(d, n - 1)] ** 2
    shares = squares[squares > 0] / squares.sum()
    entropy = -float((shares * np.log(shares)).sum())
    return min(1.0, max(0.0, entropy / math.log(min(d, n - 1))))


def _centred(x: npt.ArrayLike) -> npt.NDArray[np.float64]:
    matrix = np.asarray(x)
    if matrix.ndim != 2 or matrix.dtype.kind not in "biuf" or len(matrix) < 2 or not matrix.size:
        given = f"{matrix.dtype} {matrix.shape}"
        raise UsageError(f"features are {given}: give real numbers in the shape (rows, units)")
    centred: npt.NDArray[np.float64] = matrix.astype(np.float64)
    centred -= centred.mean(axis=0)
    if not np.isfinite(centred).all():
        raise UsageError("features hold NaN or infinity: leave those rows out")
    return centred
