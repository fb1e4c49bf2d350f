"""Linear CKA: how alike several sets of features arrange the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.ops.matrices import (
    ROUNDING,
    Array,
    Doubles,
    column_means,
    real_matrix,
    refuse_numbers,
    wide_blocks,
)
from featkit.ops.neighbors import Floats

Estimator = Literal["debiased", "biased"]

ROWS = 4096  # of a block where features are multiplied
WIDTH = 4096  # features of a block there, of one set or more: 128 MiB of products
GRAM_FLOATS = 2**24  # entries of Gram matrices held at once: 128 MiB
NOTHING = 1e-6  # of HSIC's terms: what float32 products may leave where they cancel


@dataclass(frozen=True, slots=True)
class CenteredRows:
    """Features with all that is needed to centre and scale any part of them.

    Attributes:
        array: (n, d) as it was given; :func:`centered_rows` makes the rest.
        mean: The mean row, float64 (d).
        scale: What rows are divided by, so that their mean squared length is 1.
        lengths: Squared length of each row after that, float64 (n).
        name: What the rows are, for messages.
    """

    array: Array
    mean: Doubles
    scale: float
    lengths: Doubles
    name: str

    def rows(self, part: slice) -> Floats:
        """Return some rows, centred and scaled."""
        given = self.array[part]
        out = np.empty(given.shape, np.float32)
        step = max(1, 2**16 // given.shape[1])  # what is widened stays in the cache
        for start in range(0, len(given), step):
            few = slice(start, start + step)
            np.divide(given[few] - self.mean, self.scale, out=out[few], casting="same_kind")
        return out


Features: TypeAlias = npt.ArrayLike | CenteredRows


def centered_rows(x: npt.ArrayLike, *, name: str = "features") -> CenteredRows:
    """Find the mean row, and the squared length of each row without it.

    Args:
        x: (n, d), any real dtype, finite. Memory-mapped arrays are read block by block.
        name: What the rows are, for messages.

    Returns:
        ``x`` itself with them; CKA does not depend on its scale, which is set to 1.

    Raises:
        UsageError: ``x`` is no matrix of finite real numbers, or all of its rows are the same.

    Cost: two passes over ``x``.

    Example:
        >>> centered_rows([[1.0, 0.0], [1.0, 4.0]]).rows(slice(None))
        array([[ 0., -1.],
               [ 0.,  1.]], dtype=float32)
    """
    matrix = real_matrix(x, name)
    mean = column_means(matrix)
    lengths = np.empty(len(matrix))
    total = 0.0
    for part, block in wide_blocks(matrix):
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            total += float(np.vdot(block, block))
            np.subtract(block, mean, out=block)
            lengths[part] = np.einsum("ij,ij->i", block, block)
    if not np.isfinite(total):
        refuse_numbers(name)
    if lengths.sum() <= ROUNDING**2 * total:
        raise UsageError(f"{name} are the same in all {len(matrix)} rows: leave them out")
    scale = lengths.mean()
    return CenteredRows(matrix, mean, float(np.sqrt(scale)), lengths / scale, name)


def linear_cka(features: Sequence[Features], *, estimator: Estimator = "debiased") -> Doubles:
    """Return the linear centred kernel alignment of every two sets of features.

    ``CKA(X, Y) = HSIC(K, L) / √(HSIC(K, K) HSIC(L, L))``, ``K = XXᵀ``, ``L = YYᵀ``, X and Y
    centred.

    ``biased``: ``HSIC = Σ_ab K_ab L_ab = ‖XᵀY‖²``. It comes near 1 for any features where d is not
    far below n. ``debiased``: ``HSIC = Σ_{a≠b} K_ab L_ab + tr K tr L / ((n - 1)(n - 2)) -
    2 / (n - 2) Σ_a K_aa L_aa``, the unbiased estimator up to a factor that cancels: 0 on average
    for independent features, whatever d. The ratio itself is not free of bias.

    Args:
        features: m arrays (n, d_j) of the same samples in the same order, n ≥ 4, any real dtype,
            finite. Give ``centered_rows(x)`` to name them in messages.
        estimator: ``debiased`` or ``biased``.

    Returns:
        float64 (m, m), symmetric, 1 on the diagonal, in [0, 1] (biased) or [-1, 1].

    Raises:
        UsageError: The numbers of rows differ, are too few, or values cannot be used.

    Cost: n·D·min(n, D) multiplications in float32, D = Σ d_j: features are multiplied where n ≥ D,
    samples otherwise, block by block; sums are in float64. Memory: 8·d² bytes or some 250 MiB;
    never n².

    Source: Kornblith et al. 2019, arXiv:1905.00414, sec. 3; debiased: Song et al. 2012, JMLR
    13, eq. 5, in CKA since Nguyen et al. 2021, arXiv:2010.15327.

    Example:
        >>> x = np.array([[0.0, 0.0], [0.0, 1.0], [2.0, 0.0], [2.0, 1.0], [4.0, 2.0]])
        >>> turned, other = x @ [[0.0, -3.0], [3.0, 0.0]], x[:, 1:]
        >>> linear_cka([x, turned, other], estimator="biased").round(3)
        array([[1.   , 1.   , 0.589],
               [1.   , 1.   , 0.589],
               [0.589, 0.589, 1.   ]])
    """
    if estimator not in get_args(Estimator):
        raise UsageError(f"estimator {estimator!r}: use {' or '.join(get_args(Estimator))}")
    sides = [
        x if isinstance(x, CenteredRows) else centered_rows(x, name=f"features {number}")
        for number, x in enumerate(features)
    ]
    counts = sorted({len(side.array) for side in sides})
    if len(counts) != 1 or counts[0] < 4:
        given = " and ".join(map(str, counts)) or "no"
        raise UsageError(f"CKA of {given} rows: give features of the same samples, four or more")
    n, lengths = counts[0], np.stack([side.lengths for side in sides])
    width = sum(side.array.shape[1] for side in sides)
    pairs = _products_of_features(sides) if n >= width else _products_of_samples(sides)
    alone = lengths @ lengths.T
    if estimator == "biased":
        hsic = pairs + alone
    else:
        traces = lengths.sum(axis=1)
        hsic = pairs + np.outer(traces, traces) / ((n - 1) * (n - 2)) - 2 / (n - 2) * alone
    own = hsic.diagonal()
    for side, one, whole in zip(sides, own, (pairs + alone).diagonal(), strict=True):
        if one <= NOTHING * whole:
            raise UsageError(
                f"{side.name}: all rows are equally far from each other, and debiased CKA is 0 / 0:"
                " leave them out, or use biased"
            )
    found: Doubles = (hsic / np.sqrt(np.outer(own, own))).clip(-1, 1)
    return found


def _products_of_features(sides: Sequence[CenteredRows]) -> Doubles:
    """Return ``Σ_{a≠b} K_ab L_ab`` of every two (m, m) as ``‖XᵀY‖² - Σ_a K_aa L_aa``."""
    found, n = np.empty((len(sides), len(sides))), len(sides[0].array)
    groups = _groups([side.array.shape[1] for side in sides])
    for number, one in enumerate(groups):
        for other in groups[: number + 1]:
            products = np.zeros(
                [sum(sides[i].array.shape[1] for i in group) for group in (one, other)]
            )
            for start in range(0, n, ROWS):
                x = _side_by_side(sides, one, start)
                y = x if one is other else _side_by_side(sides, other, start)
                products += x.T @ y
            np.square(products, out=products)
            for axis, group in enumerate((one, other)):
                starts = np.cumsum([0, *(sides[i].array.shape[1] for i in group[:-1])])
                products = np.add.reduceat(products, starts, axis=axis)
            found[np.ix_(one, other)] = products
            found[np.ix_(other, one)] = products.T
    lengths = np.stack([side.lengths for side in sides])
    return (found + found.T) / 2 - lengths @ lengths.T  # sums in other orders differ by a digit


def _groups(widths: Sequence[int]) -> list[list[int]]:
    """Put neighbours together as long as they have few features, so that each is read rarely."""
    groups: list[list[int]] = [[]]
    for number, width in enumerate(widths):
        if groups[-1] and sum(widths[i] for i in groups[-1]) + width > WIDTH:
            groups.append([])
        groups[-1].append(number)
    return groups


def _side_by_side(sides: Sequence[CenteredRows], group: Sequence[int], start: int) -> Floats:
    return np.hstack([sides[i].rows(slice(start, start + ROWS)) for i in group])


def _products_of_samples(sides: Sequence[CenteredRows]) -> Doubles:
    """Return ``Σ_{a≠b} K_ab L_ab`` of every two (m, m), from blocks of K of all."""
    found, n = np.zeros((len(sides), len(sides))), len(sides[0].array)
    step = max(1, int((GRAM_FLOATS / len(sides)) ** 0.5))
    for start in range(0, n, step):
        xs = [side.rows(slice(start, start + step)) for side in sides]
        for first in range(start, n, step):
            same = start == first
            ys = xs if same else [side.rows(slice(first, first + step)) for side in sides]
            grams = np.empty((len(sides), len(xs[0]) * len(ys[0])))
            for gram, x, y in zip(grams, xs, ys, strict=True):
                gram[:] = (x @ y.T).ravel()
                if same:
                    gram[:: len(x) + 1] = 0  # the diagonal
            found += (1 if same else 2) * (grams @ grams.T)
    return found
