"""How alike units are: correlations between columns, and how evenly they share the variance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.ops.matrices import Array, Doubles, real_matrix, refuse_numbers
from featkit.ops.neighbors import Integers
from featkit.ops.spectrum import singular_values

_COLUMNS = 1024  # of one side of a block of correlations: 8 MiB
_FLOATS = 2**17  # numbers widened at once: 1 MiB stays in the cache
_STILL = 1e-6  # deviation, relative to the largest value, below which float32 columns are constant


@dataclass(frozen=True, slots=True)
class UnitCorrelation:
    """How alike units are, in two numbers.

    Attributes:
        mean_absolute: As of :func:`mean_absolute_correlation`.
        evenness: As of :func:`spectral_evenness`.
    """

    mean_absolute: float
    evenness: float


def correlate_units(x: npt.ArrayLike) -> UnitCorrelation:
    """Return the mean absolute correlation and the spectral evenness, from one covariance.

    Args:
        x: (n, d), any real dtype, finite. Memory-mapped arrays are read block by block.

    Raises:
        UsageError: As in :func:`mean_absolute_correlation`.

    Cost: one pass, n·d² operations and an eigendecomposition of m³, m = min(n, d). Memory where
    n ≥ d: 4·d² numbers; otherwise 2·n² and 4,096·n, never d².

    Source: Chan, Golub and LeVeque 1979, Updating formulae and a pairwise algorithm for computing
    sample variances: blocks are centred about their own means and added up.

    Example:
        >>> correlate_units([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        UnitCorrelation(mean_absolute=0.0, evenness=1.0)
    """
    columns = _Columns(x)
    return UnitCorrelation(columns.mean_absolute_correlation(), columns.evenness())


def mean_absolute_correlation(x: npt.ArrayLike) -> float:
    """Return the mean of ``|corr(x_i, x_j)|`` over pairs of different columns that vary.

    A column does not vary where its standard deviation is up to 1e-6 of its largest value.

    Args:
        x: (n, d), any real dtype, finite.

    Returns:
        In [0, 1]; not a number where fewer than two columns vary.

    Raises:
        UsageError: ``x`` is no matrix of finite real numbers with two rows or more.

    Cost: n·d² operations; memory as of :func:`correlate_units`, which gives both numbers.

    Example:
        >>> x = np.array([[1.0, 2.0, 1.0], [2.0, 4.0, -1.0], [3.0, 6.0, 1.0]])
        >>> round(mean_absolute_correlation(x), 6)  # 1, 0 and 0
        0.333333
    """
    return _Columns(x).mean_absolute_correlation()


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

    Cost: that of :func:`featkit.ops.spectrum.singular_values`; :func:`correlate_units` gives both
    numbers.

    Source: Xie et al. 2017, Uncorrelation and evenness, ICML (components should play equal roles:
    eigenvalues be uniform); Pielou's ratio of entropies makes a number of it.

    Example:
        >>> round(spectral_evenness([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), 6)
        1.0
    """
    return _Columns(x).evenness()


class _Columns:
    """Products of centred columns: all of them where n ≥ d, otherwise made when they are asked for.

    Attributes:
        lengths: (d), of the centred columns.
        varying: Numbers of the columns that vary.
    """

    def __init__(self, x: npt.ArrayLike) -> None:
        self.matrix = real_matrix(x)
        self.n, self.d = self.matrix.shape
        if self.n < 2:
            raise UsageError(f"features are of {self.n} row: give two or more")
        self.products: Doubles | None = None
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            if self.n >= self.d:
                self.products, largest = _scatter(self.matrix)
                squares = self.products.diagonal()
            else:
                largest, squares = np.empty(self.d), np.empty(self.d)
                for part in _parts(self.d):
                    largest[part] = np.abs(self.matrix[:, part].astype(np.float64)).max(0)
                    squares[part] = (self._centred(np.arange(self.d)[part]) ** 2).sum(0)
        if not np.isfinite(squares).all():
            refuse_numbers()
        self.lengths = np.sqrt(squares)
        self.varying = np.flatnonzero(self.lengths > _STILL * math.sqrt(self.n) * largest)

    def mean_absolute_correlation(self) -> float:
        parts = [self.varying[part] for part in _parts(len(self.varying))]
        total = 0.0
        for number, one in enumerate(parts):
            for other in parts[number:]:
                block = self._products(one, other)
                block /= self.lengths[one, None]
                block /= self.lengths[other]
                np.abs(block, out=block)
                total += block.sum() - block.trace() if other is one else 2 * block.sum()
        count = len(self.varying) * (len(self.varying) - 1)
        return float(min(1.0, total / count)) if count else math.nan

    def evenness(self) -> float:
        most = min(self.d, self.n - 1)
        if most < 2 or not len(self.varying):
            return math.nan
        if self.products is None:
            variances = singular_values(self.matrix, center=True) ** 2
        else:
            variances = np.linalg.eigvalsh(self.products).clip(min=0)
        shares = variances[variances > 0] / variances.sum()
        entropy = -float((shares * np.log(shares)).sum())
        return min(1.0, max(0.0, entropy / math.log(most)))

    def _products(self, one: Integers, other: Integers) -> Doubles:
        if self.products is not None:
            return self.products[np.ix_(one, other)]
        return self._centred(one).T @ self._centred(other)

    def _centred(self, columns: Integers) -> Doubles:
        block: Doubles = self.matrix[:, columns].astype(np.float64)
        block -= block.mean(axis=0)
        return block


def _parts(count: int) -> list[slice]:
    return [slice(start, start + _COLUMNS) for start in range(0, count, _COLUMNS)]


def _scatter(matrix: Array) -> tuple[Doubles, Doubles]:
    """Return the products of centred columns, (d, d), and the largest absolute value of each."""
    n, d = matrix.shape
    products, mean, largest = np.zeros((d, d)), np.zeros(d), np.zeros(d)
    step = max(_FLOATS // d, d)
    for start in range(0, n, step):
        block: Doubles = matrix[start : start + step].astype(np.float64)
        np.maximum(largest, np.abs(block).max(axis=0), out=largest)
        own = block.mean(axis=0)
        block -= own
        products += block.T @ block
        apart, share = own - mean, len(block) / (start + len(block))
        products += np.outer(start * share * apart, apart)
        mean += share * apart
    return products, largest
