"""How features lie on the sphere: evenly spread, and close within a class."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from featkit.errors import UsageError
from featkit.ops.matrices import Array, Doubles, real_matrix, wide_blocks
from featkit.ops.neighbors import Integers, whole_number

BLOCK = 1024  # rows of each side in one matrix product: 4 MiB, small enough for a cache


def uniformity(
    x: npt.ArrayLike, *, samples: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """Return how evenly the directions of the rows cover the sphere; lower is more even.

    ``log mean_{i < j} exp(-2 ‖u_i - u_j‖²)``, ``u_i = x_i / ‖x_i‖``

    Every pair counts once. Products are in float32 and keep their digits where all rows point
    almost the same way: rows are centred first, which changes no distance, and exponentials are
    taken relative to that of the mean distance.

    Args:
        x: (n, d), any real dtype, finite. Rows of zeros have no direction and are left out.
        samples: Rows to draw, 3 or more; None for all.
        seed: Of the draw.

    Returns:
        Uniformity, in [-8, 0], and its standard error as an estimate of that of all rows (the
        jackknife's, with the correction for drawing without replacement; 0 where all are used).

    Raises:
        UsageError: Fewer than two rows (of a sample: three) have a direction, or they are no
            finite real numbers.

    Cost: n²·d operations and n²/2 exponentials of n (or ``samples``) rows; memory 4·n·d bytes.

    Source: Wang & Isola 2020, arXiv:2005.10242, sec. 4.1 with t = 2; their ``uniform_loss``.

    Example:
        >>> value, error = uniformity([[3.0, 0.0], [0.0, 1.0]])
        >>> round(value, 6), error
        (-4.0, 0.0)
    """
    matrix = real_matrix(x)
    n = len(matrix)
    if samples is not None and whole_number(samples, "samples") < n:
        rows = np.random.default_rng(seed).choice(n, samples, replace=False, shuffle=False)
        matrix = matrix[np.sort(rows)]
    directions = _centred_directions(matrix)
    count, least = len(directions), 2 if len(matrix) == n else 3
    if count < least:
        raise UsageError(f"uniformity of {count} rows that are not zero: give {least} or more")
    u = torch.from_numpy(directions)
    lengths = torch.linalg.vector_norm(u, dim=1, dtype=torch.float64).square()
    typical = -4 * float(lengths.sum()) / (count - 1)  # -2 times the mean squared distance
    sums = _sums_over_others(u.mul_(2), 2 * lengths, typical)
    mean = float(sums.mean()) / (count - 1)  # 0 or more, as the exponential is convex
    value = min(0.0, typical + float(np.log1p(mean)))
    if len(matrix) == n:
        return value, 0.0
    moves = 2 * (sums - sums.mean()) / ((count - 1) * (count - 2))  # of the mean, without each row
    variance = (count - 1) / count * float(moves @ moves) * (1 - len(matrix) / n)
    return value, variance**0.5 / (1 + mean)


def alignment(x: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return how far apart the directions of two rows of one class are; lower is closer.

    ``mean ‖u_i - u_j‖²`` over all pairs i < j of one class, ``u_i = x_i / ‖x_i‖``; of each class
    ``Σ_{i < j} ‖u_i - u_j‖² = n_c Σ ‖u_i‖² - ‖Σ u_i‖²``, so that no pair is looked at.

    Args:
        x: (n, d), any real dtype, finite. Rows of zeros have no direction and are left out.
        labels: (n), the class of each row.

    Returns:
        In [0, 4].

    Raises:
        UsageError: No class has two rows with a direction, or shapes or values cannot be used.

    Cost: one pass; memory 8·c·d bytes for c classes.

    Source: Wang & Isola 2020, arXiv:2005.10242, sec. 4.1 with α = 2; their pairs are two views
    of an image, ours two images of a class.

    Example:
        >>> alignment([[2.0, 0.0], [0.0, 1.0], [5.0, 5.0], [1.0, 1.0]], ["a", "a", "b", "b"])
        1.0
    """
    matrix, given = real_matrix(x), np.asarray(labels)
    if given.shape != (len(matrix),):
        raise UsageError(
            f"labels are of the shape {given.shape}: give one to each of {len(matrix)} rows"
        )
    classes, numbers = np.unique(given, return_inverse=True)
    counts, squares = np.zeros(len(classes)), np.zeros(len(classes))
    sums = torch.zeros(len(classes), matrix.shape[1], dtype=torch.float64)
    shift = None
    for rows, unit in _unit_blocks(matrix):
        shift = unit.mean(axis=0) if shift is None else shift  # keeps the digits of small distances
        u, of = unit - shift, numbers[rows]
        sums.index_add_(0, torch.from_numpy(of), torch.from_numpy(u))
        counts += np.bincount(of, minlength=len(classes))
        squares += np.bincount(of, np.einsum("ij,ij->i", u, u), minlength=len(classes))
    pairs = float(counts @ (counts - 1)) / 2
    if not pairs:
        raise UsageError("alignment: no class has two rows that are not zero")
    apart: Doubles = counts * squares - sums.square().sum(1).numpy()
    return float(apart.clip(min=0).sum() / pairs)


def _unit_blocks(matrix: Array) -> Iterator[tuple[Integers, Doubles]]:
    """Yield rows divided by their lengths, with their numbers; rows of zeros are passed over."""
    for part, block in wide_blocks(matrix):
        longest = np.abs(block).max(axis=1)
        if not np.isfinite(longest).all():
            bad = part.start + int(np.flatnonzero(~np.isfinite(longest))[0])
            raise UsageError(f"features hold NaN or infinity, first in row {bad}: leave them out")
        rows = np.flatnonzero(longest)
        if len(rows):
            unit = block[rows] / longest[rows, None]  # whose squares are in range
            unit /= np.linalg.norm(unit, axis=1, keepdims=True)
            yield part.start + rows, unit


def _centred_directions(matrix: Array) -> npt.NDArray[np.float32]:
    """Return the rows that are not zero, of length 1, less their mean."""
    total, count = np.zeros(matrix.shape[1]), 0
    for rows, unit in _unit_blocks(matrix):
        total, count = total + unit.sum(axis=0), count + len(rows)
    directions, done = np.empty((count, matrix.shape[1]), np.float32), 0
    for rows, unit in _unit_blocks(matrix):
        directions[done : done + len(rows)] = unit - total / count
        done += len(rows)
    return directions


def _sums_over_others(u: torch.Tensor, halves: torch.Tensor, typical: float) -> Doubles:
    """Return for each row the sum of ``exp(-‖u_i - u_j‖² / 2 - typical) - 1`` over the others."""
    sums = torch.zeros(len(u), dtype=torch.float64)
    subtracted, added = (halves + typical).float()[:, None], -halves.float()
    for start in range(0, len(u), BLOCK):
        one = slice(start, start + BLOCK)
        for first in range(start, len(u), BLOCK):
            other = slice(first, first + BLOCK)
            terms = torch.addmm(added[other], u[one], u[other].T)
            terms = terms.sub_(subtracted[one]).clamp_(max=-typical).expm1_()
            if start == first:
                terms.fill_diagonal_(0)
            else:
                sums[other] += terms.sum(0)
            sums[one] += terms.sum(1)
    return sums.numpy()
