"""The hyperspherical energy of many rows, estimated from pairs within random blocks of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from featkit.errors import UsageError
from featkit.ops.directions import Directions
from featkit.ops.hyperspherical_energy import (
    CLOSE,
    COINCIDENT,
    Kernel,
    Space,
    check_potential,
    potential,
)
from featkit.ops.neighbors import Integers, Rows, whole_number
from featkit.ops.read_ahead import ReadAhead, announced, exceed_memory

FEWEST = 4  # rows of a block: of three, means of rows explain all pairs


@dataclass(frozen=True, slots=True)
class EnergyEstimate:
    """The mean energy of a pair, from some of the pairs.

    Args:
        mean: As :func:`featkit.ops.hyperspherical_energy.hyperspherical_energy` has it of all.
        error: Standard error of ``mean``; 0 where all pairs were looked at.
        pairs: Pairs i < j that were looked at.
        rows: Different rows that they are of.
        duplicates: Of these pairs, those at distance 0, which are left out.
        zeros: Rows of zeros, which have no direction and are left out.
    """

    mean: float
    error: float
    pairs: int
    rows: int
    duplicates: int
    zeros: int


def sample_energy(
    x: Rows,
    power: float = 1,
    space: Space = "full",
    kernel: Kernel = "euclidean",
    *,
    samples: int | None = None,
    block: int = 256,
    seed: int = 0,
    rows: npt.ArrayLike | None = None,
) -> EnergyEstimate:
    """Estimate the mean hyperspherical energy of all pairs of rows from some of them.

    Rows are dealt at random into blocks that have none in common, and all pairs within a block are
    looked at. Every pair of rows is as likely as any other, so that the mean has no bias (where
    rows coincide, none but that of a ratio of two means). Pairs share rows: with
    ``h_ij = θ + g_i + g_j + s_ij``, g what a row adds to the energy of its pairs and s what is
    left, the variance of the mean of B blocks of b rows, m of n in all, is

    ``4/m (1 - m/n) σ_g² + σ_s² c``,  ``c = 2 (n-b)(n-b-1) / (B b (b-1)(n-2)(n-3)) + (1 - 1/B)
    2 / ((n-2)(n-3))``,

    σ_g² = Σ g² / (n - 1), σ_s² the mean of s². Both are estimated, without bias, from the
    decomposition of every block. Where all rows are dealt, what single rows add falls out, and the
    error is that of about n b / 2 pairs that share none.

    Args:
        x: (n, d), any real dtype; the rows that take part are finite. Memory-mapped arrays are read
            block by block.
        power: s, 0 or more.
        space: ``half`` also takes the opposite of every direction.
        kernel: ``euclidean`` or ``angular``.
        samples: Rows to draw, m, at least a block; None for all. What does not fill a block is left
            out.
        block: b, 4 or more; all rows in one block where there are no more.
        seed: Of the dealing.
        rows: Those of ``x`` that take part, different whole numbers; all if None.

    Returns:
        The estimate; for ``space`` and ``kernel`` see
        :func:`featkit.ops.hyperspherical_energy.hyperspherical_energy`.

    Raises:
        UsageError: An argument cannot be used, rows are not finite, fewer than four are not zero,
            or all pairs that were drawn coincide.

    Cost: two passes over the rows, the second in random order, and 2·m·b·d operations in float64;
    memory 48 bytes a row.

    Source: an incomplete U-statistic with blocks, Blom 1976, Biometrika 63:573; the decomposition
    is that of a diallel cross, Griffing 1956, Aust. J. Biol. Sci. 9:463, method 4, here of a finite
    population.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((2000, 16))
        >>> found = sample_energy(x, block=64)
        >>> found.pairs, round(found.mean, 3), found.error < 1e-3
        (62496, 0.727, True)
    """
    check_potential(power, space, kernel)
    if whole_number(block, "block") < FEWEST:
        raise UsageError(f"block is {block}: give {FEWEST} or more")
    with torch.no_grad(), torch.autocast("cpu", enabled=False), np.errstate(over="ignore"):
        points = Directions(x, rows)
        n, zeros = len(points), points.given - len(points)
        if n < FEWEST:
            raise UsageError(
                f"energy of {points.given} rows, {zeros} of them zeros, cannot be sampled: give"
                f" {FEWEST} or more that are not zero"
            )
        b = min(block, n)
        m = n if samples is None else min(whole_number(samples, "samples"), n)
        if m < b:
            raise UsageError(f"samples is {m}, less than a block of {b}: give more")
        dealt = np.random.default_rng(seed).permutation(n)[: m // b * b].reshape(-1, b)
        return energy_of_blocks(points, dealt, power, space, kernel)


def energy_of_blocks(
    points: Directions, dealt: Integers, power: float, space: Space, kernel: Kernel
) -> EnergyEstimate:
    """Return the estimate from blocks of rows, as :func:`sample_energy` deals them.

    Args:
        points: n directions.
        dealt: B blocks of b different ones, (B, b), none twice.
        power: s.
        space: ``full`` or ``half``.
        kernel: ``euclidean`` or ``angular``.
    """
    farthest = None  # energy of a direction with its opposite, a point as well in half-space
    if space == "half":
        farthest = float(potential(torch.tensor(4.0).double(), power, "full", kernel))
    energies, copies = (torch.zeros(dealt.shape, dtype=torch.float64) for _ in range(2))
    squares = 0.0
    matrix = [points.matrix]
    with ReadAhead(matrix if exceed_memory(matrix) else ()) as ahead:
        ascending = (np.sort(own) for own in dealt)
        blocks = announced(ascending, lambda own: ahead.announce(points.kept[own]))
        for number, own in enumerate(blocks):
            apart = _squares(points.load(own), half=farthest is not None)
            same = apart <= COINCIDENT**2
            found = potential(apart, power, space, kernel)
            found[same] = farthest or 0.0
            found.fill_diagonal_(0)
            energies[number], copies[number] = found.sum(1), same.sum(1)
            squares += float(found.square().sum()) / 2
    counted = len(points), points.given - len(points)
    return _estimate(energies, copies, squares, counted, farthest)


def _squares(units: Tensor, *, half: bool) -> Tensor:
    """Return the squared distances of rows of length 1, float64 (b, b); 4 on the diagonal.

    With ``half`` those to the opposite where it is the nearer by far, which has the same energy.
    """
    a = units - units.mean(0)
    lengths = a.square().sum(1)
    both = lengths[:, None] + lengths
    squares = (both - 2 * a @ a.T).clamp_(0, 4)
    # pairs that are much closer than the rows are to their mean have too few digits
    bound = CLOSE[torch.float64] * torch.finfo(torch.float64).eps * units.shape[1] ** 0.5 * both
    close = {1: squares <= bound} | ({-1: 4 - squares <= bound} if half else {})
    for sign, found in close.items():
        i, j = found.triu(1).nonzero(as_tuple=True)
        for part in torch.split(torch.arange(len(i)), len(units)):
            one, other = i[part], j[part]
            exact = (units[one] - sign * units[other]).square().sum(1)
            squares[one, other] = squares[other, one] = exact.clamp_(max=4)
    return squares.fill_diagonal_(4)


def _estimate(
    energies: Tensor,
    copies: Tensor,
    squares: float,
    counted: tuple[int, int],
    farthest: float | None,
) -> EnergyEstimate:
    """Return the estimate and its error.

    Args:
        energies: Over the others of its block, of each row, float64 (B, b).
        copies: How many of these are at distance 0, float64 (B, b).
        squares: Of the energies of all pairs i < j, their sum.
        counted: n, and rows of zeros beside them.
        farthest: Energy of a pair of opposites, in half-space, where pairs at distance 0 have it.
    """
    (count, b), (n, zeros) = energies.shape, counted
    pairs, duplicates = b * (b - 1) // 2, float(copies.sum()) / 2
    # four pairs of points for each of rows, and in half-space n of opposites beside them
    own = 0.0 if farthest is None else farthest / (n - 1)
    weight = (1.0 if farthest is None else (2 * n - 1) / (n - 1)) - float(copies.mean()) / (b - 1)
    if not weight:
        raise UsageError("all pairs that were drawn point the same way: draw more")
    mean = (float(energies.mean()) / (b - 1) + own) / weight
    # a ratio of two means errs as its numerator less ``mean`` times its denominator
    sums = energies + mean * copies
    squares += (2 * (farthest or 0.0) + mean) * mean * duplicates
    means = sums.mean(1, keepdim=True) / (b - 1)
    effects = (sums / (b - 1) - means) * ((b - 1) / (b - 2))
    of_rows = float(effects.square().sum()) / count
    rest = squares / count - pairs * float(means.square().mean()) - (b - 2) * of_rows
    rest = max(0.0, rest) / (b * (b - 3) / 2)
    single = of_rows / (b - 1) - rest * (1 / (b - 2) - 1 / (n - 2))  # by chance below 0
    crossed = (n - 2) * (n - 3)
    within = (n - b) * (n - b - 1) / (count * pairs * crossed)
    between = (1 - 1 / count) * 2 / crossed
    variance = 4 / (count * b) * (1 - count * b / n) * single
    variance += rest * (n - 3) / (n - 1) * (within + between)
    error = math.sqrt(max(0.0, variance)) / weight
    return EnergyEstimate(mean, error, count * pairs, count * b, int(duplicates), zeros)
