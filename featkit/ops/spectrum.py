"""The singular values of a matrix with many rows, and what they say in one number."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.ops.matrices import (
    ROUNDING,
    Doubles,
    column_means,
    real_matrix,
    refuse_numbers,
    wide_blocks,
)

EPSILON = 1e-7
"""Added to each share of RankMe. Source: Garrido et al. 2023, arXiv:2210.02885, sec. 3."""

FIT_RANKS = (11, 100)
"""First and last eigenvalue that α is fitted to, counted from 1.

Source: the authors' package (github.com/arnab39/reptrix, f93c9b6, ``alpha.py``: ``arange(10, 100)``
counted from 0) and their notebook ``plot_alpha.ipynb`` (github.com/kumarkrishna/fastssl, 96dfa37);
the paper names no ranks. Their training script starts at rank 4.
"""

FEWEST = 10
"""Eigenvalues that α is fitted to at least; ours, fewer make no line."""


def singular_values(x: npt.ArrayLike, *, center: bool = False) -> Doubles:
    """Return the singular values of the rows as they are, or of the centred rows.

    Roots of the eigenvalues of ``XᵀX``, or of ``XXᵀ`` where that is smaller, added up block by
    block in float64. Squaring costs half of the digits: values below some 1e-8 of the largest are
    rounding.

    Args:
        x: (n, d), any real dtype, finite. Memory-mapped arrays are read block by block.
        center: Subtract the mean row first. The squares, divided by n, are then the eigenvalues of
            the covariance; what centring leaves of features that do not vary is 0.

    Returns:
        float64 (min(n, d)), descending, 0 or more.

    Raises:
        UsageError: ``x`` is no matrix of finite real numbers.

    Cost: 2·n·d·m operations and an eigendecomposition of m³, m = min(n, d); memory 16·m².

    Example:
        >>> x = [[3.0, 0.0], [0.0, 0.0], [0.0, 4.0]]
        >>> singular_values(x)
        array([4., 3.])
        >>> singular_values(x, center=True).round(3)
        array([3.601, 1.924])
    """
    matrix = real_matrix(x)
    upright = matrix.shape[0] >= matrix.shape[1]
    mean = column_means(matrix) if center and upright else 0.0
    tall = matrix if upright else matrix.T
    products = np.zeros((tall.shape[1], tall.shape[1]))
    total = 0.0
    for _, block in wide_blocks(tall):
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            total += float(np.vdot(block, block))
            if center:
                np.subtract(block, mean if upright else block.mean(1, keepdims=True), out=block)
            products += block.T @ block
    if not np.isfinite(products).all():
        refuse_numbers()
    values: Doubles = np.sqrt(np.linalg.eigvalsh(products)[::-1].clip(min=0))
    if center:
        values[values < ROUNDING * np.sqrt(total)] = 0
    return values


def effective_rank(values: npt.ArrayLike) -> float:
    """Return RankMe: how many directions the features use.

    ``exp(-Σ_k p_k log p_k)``, ``p_k = σ_k / Σ_j σ_j + ε``

    Args:
        values: Singular values σ of the features, (m). RankMe's are of features as they are, not
            centred: a mean far from 0 counts as one strong direction.

    Returns:
        1 where one value is not 0, m where all are equal, 0 where all are 0; ε, which is not taken
        out again, makes it larger, by a factor of at most exp(1.6e-6·m).

    Raises:
        UsageError: ``values`` are no singular values.

    Source: Garrido et al. 2023, arXiv:2210.02885, sec. 3.

    Example:
        >>> round(effective_rank([2.0, 2.0, 2.0]), 3), round(effective_rank([4.0, 0.0]), 3)
        (3.0, 1.0)
    """
    sizes = _relative(values)
    if not sizes[0]:
        return 0.0
    shares = sizes / sizes.sum() + EPSILON
    return float(np.exp(-(shares * np.log(shares)).sum()))


def participation_ratio(values: npt.ArrayLike) -> float:
    """Return over how many directions the variance is spread.

    ``(Σ_i λ_i)² / Σ_i λ_i²``, ``λ_i = σ_i²``

    Args:
        values: Singular values σ of the centred features, (m).

    Returns:
        1 where one value is not 0, m where all are equal, 0 where all are 0.

    Raises:
        UsageError: ``values`` are no singular values.

    Source: Gao et al. 2017, doi:10.1101/214262.

    Example:
        >>> participation_ratio([2.0, 2.0, 2.0]), participation_ratio([4.0, 0.0])
        (3.0, 1.0)
    """
    variances = _relative(values) ** 2
    return float(variances.sum() ** 2 / (variances @ variances)) if variances[0] else 0.0


def decay_exponent(values: npt.ArrayLike) -> tuple[float, float]:
    """Return α-ReQ's α: how fast the variances along the principal components fall.

    ``λ_i ∝ i^-α``, ``λ_i = σ_i²``: the slope of log λ over -log i, by least squares with the
    weights 1/i, over ranks 11 to 100.

    Eigenvalues that are rounding (below m·2.2e-16 of the largest) take no part, and where there
    are fewer than 100 the fit ends at the last; the authors' code has neither case.

    Args:
        values: Singular values σ of the centred features, (m).

    Returns:
        α, 0 or more, and the share of the variance of log λ that the line explains (R², with the
        same weights), in [0, 1]: where it is low there is no power law.

    Raises:
        UsageError: Fewer than ten eigenvalues can be fitted, or ``values`` are no singular values.

    Source: Agrawal et al. 2022, α-ReQ, NeurIPS, and the authors' code (see
    :data:`FIT_RANKS`), after Stringer et al. 2019, doi:10.1038/s41586-019-1346-5.

    Example:
        >>> alpha, explained = decay_exponent(np.arange(1, 200) ** -0.75)
        >>> round(alpha, 6), round(explained, 6)
        (1.5, 1.0)
    """
    variances = _relative(values) ** 2
    count = int((variances > len(variances) * np.finfo(float).eps).sum())
    first, last = FIT_RANKS
    ranks = np.arange(first, min(last, count) + 1)
    if len(ranks) < FEWEST:
        raise UsageError(
            f"decay of {count} eigenvalues: α is fitted to ranks {first} to {last},"
            f" and takes features that vary in {first + FEWEST - 1} directions or more"
        )
    weights = 1 / ranks / (1 / ranks).sum()
    along, down = np.log(ranks), np.log(variances[ranks - 1])
    along, down = along - weights @ along, down - weights @ down
    slope = (weights * along) @ down / ((weights * along) @ along)
    left, whole = weights @ (down - slope * along) ** 2, weights @ down**2
    return max(0.0, float(-slope)), float(1 - left / whole) if whole > ROUNDING else 1.0


def _relative(values: npt.ArrayLike) -> Doubles:
    """Return values, descending, divided by the largest where that is not 0."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "biuf" or not array.size:
        given = f"{array.dtype} {array.shape}"
        raise UsageError(f"singular values are {given}: give real numbers in the shape (values,)")
    sizes: Doubles = np.sort(array.astype(np.float64))[::-1]
    if not (np.isfinite(sizes).all() and sizes[-1] >= 0):
        raise UsageError("singular values are not all finite, and 0 or more")
    return sizes / sizes[0] if sizes[0] else sizes
