"""How evenly rows are spread over the sphere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from featkit.errors import UsageError
from featkit.ops.directions import Directions
from featkit.ops.neighbors import Integers, Rows

Space = Literal["full", "half"]
Kernel = Literal["euclidean", "angular"]
Reduction = Literal["mean", "sum"]

TILE = 512  # rows of each side in one product: 1 MiB of squared distances stays in the cache
TILES = 6  # tiles of rows that are held while all later rows pass by
PANEL_FLOATS = 2**24  # numbers that may be held for it
BLOCK_FLOATS = 2**20  # numbers of a tile that are multiplied at once where none are held: 8 MiB
FEW = 2048  # rows, up to which all products are float64
STEEP = 2.0  # power, up to which float32 has enough digits
COINCIDENT = 1e-9  # distance that float64 rows of length 1 hold with six digits
CLOSE = {torch.float32: 2.0**13, torch.float64: 2.0**23}  # in roundings of a product
CROWDED = 0.01  # share of close pairs, from which another product costs less than differences

_NUMPYS = {torch.float32: np.float32, torch.float64: np.float64}
_NONE = torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True, slots=True)
class Energy:
    """What the pairs of a set of directions add up to.

    Args:
        total: Sum over ordered pairs.
        pairs: Ordered pairs that it sums. In half-space, -v̂_i are points as well.
        duplicates: Ordered pairs at distance 0, which are left out.
        zeros: Rows of zeros, which have no direction and are left out.
    """

    total: float
    pairs: int
    duplicates: int
    zeros: int

    @property
    def mean(self) -> float:
        """The energy of a pair, which can be compared between sets of different size."""
        return self.total / self.pairs


def hyperspherical_energy(
    x: Rows,
    power: float = 1,
    space: Space = "full",
    kernel: Kernel = "euclidean",
    reduction: Reduction = "mean",
) -> float:
    """Return how close the directions of rows are to each other: the lower, the more diverse.

    ``E_s = Σ_{i≠j} ‖v̂_i - v̂_j‖^-s`` for s > 0, ``Σ_{i≠j} log 1/‖v̂_i - v̂_j‖`` for s = 0,
    ``v̂_i = x_i / ‖x_i‖``. Diversity is -E.

    See :func:`measure_energy`, which counts what is left out, too.

    Args:
        x: (n, d), two rows or more that are not zero, any real dtype, finite. Memory-mapped arrays
            are read block by block.
        power: s, 0 or more.
        space: ``half`` also takes the opposite -v̂_i of every direction: 2n points.
        kernel: ``angular`` has the angle, arccos(v̂_i·v̂_j) in radians, in place of the distance.
        reduction: ``mean`` divides by the number of pairs, n (n - 1) or 2n (2n - 1): only this
            compares sets of different size. ``sum`` does not.

    Returns:
        For s > 0 at least 2^-s a pair, π^-s with angles; for s = 0 at least -log 2, -log π.

    Raises:
        UsageError: As in :func:`measure_energy`, or ``reduction`` is unknown.

    Cost: that of :func:`measure_energy`.

    Source: Liu et al. 2018, arXiv:1805.09298; their code has other units, see there.

    Example:
        >>> round(hyperspherical_energy(np.eye(3), power=2), 6)  # all at distance √2
        0.5
        >>> round(hyperspherical_energy(np.eye(3), kernel="angular", reduction="sum"), 6)  # 6 · 2/π
        3.819719
    """
    _check_name("reduction", reduction, Reduction)
    energy = measure_energy(x, power, space, kernel)
    return energy.total if reduction == "sum" else energy.mean


def measure_energy(
    x: Rows, power: float = 1, space: Space = "full", kernel: Kernel = "euclidean"
) -> Energy:
    """Compute the energy of directions, and count the pairs it is made of.

    The formula and the arguments are those of :func:`hyperspherical_energy`.

    Distances do not change when the mean direction μ is subtracted, so products are taken after it
    is: ``‖a - b‖² = ‖a‖² + ‖b‖² - 2 a·b`` for ``a = v̂_i - μ``. The features of a network point into
    a narrow cone, where ``2 - 2 cos`` has no digits left; a and b are then as small as their
    distance and lose none. Pairs that are much closer to each other than to μ are computed again
    from differences in float64. Products are float32 where there are so many pairs that roundings
    cancel; for up to 2,048 rows, for powers above 2 and where the process has given up digits of
    products (``torch.set_float32_matmul_precision``) they are float64. The mean is exact to 1e-6,
    relative; for s = 0, where terms have both signs, absolute.

    Directions at a distance up to 1e-9, which float64 does not hold with six digits, are taken for
    equal. Rows that were scaled and then rounded to float32 are some 1e-8 apart, and are not.

    Args:
        x: (n, d), two rows or more that are not zero, any real dtype, finite.
        power: s, 0 or more.
        space: ``full`` or ``half``.
        kernel: ``euclidean`` or ``angular``.

    Returns:
        The sum over ordered pairs; ``pairs + duplicates`` is n (n - 1), in half-space 2n (2n - 1),
        n without rows of zeros. Infinity where one pair has more energy than a float holds.

    Raises:
        UsageError: An argument cannot be used, rows are not finite, fewer than two are not zero, or
            all of them point the same way.

    Cost: n²·d operations, half of a product of all rows with all rows, and 3·d for each pair that
    is computed from differences. Memory: 24 bytes a row, some 15 MiB and 3,072 rows in float32; or,
    where rows are longer than 32,768 or 512 of them are all, 16 MiB and one row; never n².

    Source: Liu et al. 2018, arXiv:1805.09298. Its code takes other units: power ``0`` is
    -log ‖·‖², twice ours; ``a0``, ``a1``, ``a2`` take angles in units of π, plus 1e-4, and ``a1``,
    ``a2`` are scaled by 0.1 in hidden layers; lengths are √(‖x‖² + 1e-4).

    Example:
        >>> measure_energy([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0], [-3.0, 0.0]])
        Energy(total=2.0, pairs=4, duplicates=2, zeros=1)
    """
    (energy,) = measure_energies(x, (power,), space, kernel)
    return energy


def measure_energies(
    x: Rows, powers: Sequence[float], space: Space = "full", kernel: Kernel = "euclidean"
) -> tuple[Energy, ...]:
    """Compute the energies of the same directions for several powers, from one set of distances.

    What is said of :func:`measure_energy` holds for each. Where one power is above 2, the products
    of all are float64.

    Args:
        x: (n, d), two rows or more that are not zero, any real dtype, finite.
        powers: One s or more, each 0 or more.
        space: ``full`` or ``half``.
        kernel: ``euclidean`` or ``angular``.

    Returns:
        An energy for each power, in their order. They have the same ``pairs``, ``duplicates`` and
        ``zeros``.

    Raises:
        UsageError: As in :func:`measure_energy`, or there is no power.

    Cost: that of :func:`measure_energy`; each further power adds its potential for n²/2 distances.

    Example:
        >>> [round(energy.mean, 6) for energy in measure_energies(np.eye(3), (0, 1, 2))]
        [-0.346574, 0.707107, 0.5]
    """
    if not len(powers):
        raise UsageError("powers are empty: give one or more")
    for power in powers:
        check_potential(power, space, kernel)
    quiet = np.errstate(over="ignore")  # infinity is an answer
    with torch.no_grad(), torch.autocast("cpu", enabled=False), quiet:
        points = Directions(x)
        n, zeros = len(points), points.given - len(points)
        if n < 2:
            raise UsageError(
                f"energy of {points.given} rows, {zeros} of them zeros: give two or more that are"
                " not zero"
            )
        pairs = _Pairs(points, tuple(map(float, powers)), space, kernel)
        totals, duplicates = pairs.sum()
        if space == "full":
            totals = 2 * totals
            count, duplicates = n * (n - 1) - 2 * duplicates, 2 * duplicates
        else:  # i and j are four pairs of points, and v̂_i with -v̂_i is one more
            totals = 4 * totals + 2 * n * pairs.farthest
            count, duplicates = 2 * n * (2 * n - 1) - 4 * duplicates, 4 * duplicates
    if not count:
        raise UsageError(f"all {n} rows point the same way: energy needs two or more directions")
    return tuple(Energy(total, count, duplicates, zeros) for total in totals.tolist())


def potential(squares: Tensor, power: float, space: str, kernel: str) -> Tensor:
    """Compute the energy of pairs: ``r^-s``, or ``-log r`` for s = 0, r the distance or the angle.

    Args:
        squares: Squared distances of points of the unit sphere, in [0, 4].
        power: s, 0 or more.
        space: ``half`` adds the energy with the opposite point, at ``4 - squares``.
        kernel: ``euclidean`` or ``angular``.

    Returns:
        The energies, in the shape of ``squares``.

    Example:
        >>> potential(torch.tensor([0.25, 4.0]), 1, "full", "euclidean")
        tensor([2.0000, 0.5000])
    """
    return next(_potentials(squares, (power,), space, kernel))


def _potentials(
    squares: Tensor, powers: Sequence[float], space: str, kernel: str
) -> Iterator[Tensor]:
    """Yield the potential of each power, each a new tensor."""
    near = squares if kernel == "euclidean" else 2 * (squares / 4).sqrt().asin()
    order = 0.5 if kernel == "euclidean" else 1.0  # the power that makes it r
    far = None
    if space == "half":
        far = 4 - near if kernel == "euclidean" else math.pi - near
    for power in powers:
        energies = _inverse(near, power, order)
        yield energies if far is None else energies + _inverse(far, power, order)


def _inverse(r: Tensor, power: float, order: float) -> Tensor:
    return r.pow(-power * order) if power else r.log() * -order


def check_potential(power: object, space: object, kernel: object) -> None:
    """Raise UsageError unless there is such an energy."""
    is_number = isinstance(power, Real) and not isinstance(power, bool)
    if not is_number or not 0 <= float(power) < math.inf:  # type: ignore[arg-type]
        raise UsageError(f"power is {power!r}: give a number, 0 or more")
    _check_name("space", space, Space)
    _check_name("kernel", kernel, Kernel)


def _check_name(name: str, value: object, names: Any) -> None:
    if value not in get_args(names):
        raise UsageError(f"{name} {value!r} is unknown: give {' or '.join(get_args(names))}")


class _Pairs:
    """The energy of all pairs i < j for each power, tile by tile.

    The product of two panels is ``‖a‖² + ‖b‖² - 2 a·b``. Its rounding is some ε·√d·(‖a‖² + ‖b‖²),
    and pairs whose squared distance is not ``CLOSE`` times as much are computed from differences.
    What is left is exact to 1e-4 (float32) or 1e-8 (float64) a pair, without bias.
    """

    def __init__(
        self, points: Directions, powers: tuple[float, ...], space: Space, kernel: Kernel
    ) -> None:
        self.points, self.powers, self.space, self.kernel = points, powers, space, kernel
        self.sees_far = space == "half" or kernel == "angular"  # distances near 2 need digits, too
        opposite = torch.tensor(4.0, dtype=torch.float64)
        self.farthest = np.array([float(potential(opposite, s, "full", kernel)) for s in powers])
        self.totals = np.zeros(len(powers))
        self.duplicates = 0

    def sum(self) -> tuple[npt.NDArray[np.float64], int]:
        """Return the energies of pairs i < j and how many are at distance 0 and left out."""
        n, d = len(self.points), self.points.d
        is_rough = n > FEW and max(self.powers) <= STEEP and _has_exact_products()
        dtype = torch.float32 if is_rough else torch.float64
        if n * d > BLOCK_FLOATS and (n <= TILE or TILE * d > PANEL_FLOATS):
            for column in range(0, n, TILE):
                for row in range(0, column + 1, TILE):
                    self._add(*self._by_columns(row, column, dtype), row, column)
        else:
            self._sum_by_rows(dtype)
        return self.totals, self.duplicates

    def _sum_by_rows(self, dtype: torch.dtype) -> None:
        """Hold some tiles of rows while all later rows pass by."""
        n, d = len(self.points), self.points.d
        panel = TILE * min(TILES, max(1, PANEL_FLOATS // (d * TILE)))
        for start in range(0, n, panel):
            held = self.points.panel(slice(start, start + panel), dtype)
            for column in range(start, n, TILE):
                part = slice(column, column + TILE)
                is_held = column < start + panel
                right = held[column - start :][:TILE] if is_held else self.points.panel(part, dtype)
                bound = self._bound(held[:, -1].max() + right[:, -1].max(), dtype)
                right = _mirrored(right)
                for row in range(start, min(start + panel, column + TILE), TILE):
                    left = held[row - start :][:TILE]
                    lengths = left[:, -1:], right[:, -2]
                    self._add(left @ right.T, lengths, float(bound), row, column)

    def _by_columns(
        self, row: int, column: int, dtype: torch.dtype
    ) -> tuple[Tensor, tuple[Tensor, Tensor], float]:
        """Compute the squared distances of two tiles, the squares of lengths, and the bound.

        They are added up over blocks of columns, so that rows of any length take little memory;
        NumPy takes half of the product of a tile with itself.
        """
        n, d = len(self.points), self.points.d
        parts = [slice(start, min(start + TILE, n)) for start in (row, column)]
        step = max(1, BLOCK_FLOATS // min(TILE, n))
        products = np.zeros((parts[0].stop - row, parts[1].stop - column), _NUMPYS[dtype])
        one, other = (torch.zeros(part.stop - part.start, dtype=dtype) for part in parts)
        for start in range(0, d, step):
            columns = slice(start, start + step)
            left = self.points.panel(parts[0], dtype, columns)
            right = left if row == column else self.points.panel(parts[1], dtype, columns)
            one += left[:, -1]
            other += right[:, -1]
            products += left[:, :-2].numpy() @ right[:, :-2].numpy().T
        lengths = one.unsqueeze(1), other
        squares = torch.from_numpy(products).mul_(-2).add_(lengths[0]).add_(other)
        return squares, lengths, float(self._bound(one.max() + other.max(), dtype))

    def _add(
        self,
        squares: Tensor,
        lengths: tuple[Tensor, Tensor],
        bound: float,
        row: int,
        column: int,
    ) -> None:
        """Add the pairs of a tile, none of which below the bound has digits enough."""
        i = j = _NONE
        if squares.amin() <= bound or (self.sees_far and squares.amax() >= 4 - bound):
            i, j = self._close(squares, lengths[0] + lengths[1], row == column)
        if len(i) > CROWDED * squares.numel() and squares.dtype == torch.float32:
            self._add(*self._by_columns(row, column, torch.float64), row, column)
            return
        if len(i):
            self._add_exactly(i.numpy() + row, j.numpy() + column, squares[i, j] > 2)
        for number, energies in enumerate(self._potentials(squares)):
            if len(i):
                energies[i, j] = 0
            if row == column:
                energies.triu_(1)
            self.totals[number] += float(energies.sum(1).double().sum())

    def _potentials(self, squares: Tensor) -> Iterator[Tensor]:
        """Yield what the pairs have for each power."""
        return _potentials(squares, self.powers, self.space, self.kernel)

    def _close(self, squares: Tensor, lengths: Tensor, is_diagonal: bool) -> tuple[Tensor, Tensor]:
        """Find the pairs whose distance, or distance to the opposite, has too few digits."""
        bounds = self._bound(lengths, squares.dtype)
        close = squares <= bounds
        if self.sees_far:
            close |= 4 - squares <= bounds
        i, j = (close.triu_(1) if is_diagonal else close).nonzero(as_tuple=True)
        return i, j

    def _bound(self, lengths: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the squared distance below which too few digits are left of ‖a‖² + ‖b‖²."""
        rounding = torch.finfo(dtype).eps * math.sqrt(self.points.d)
        return (CLOSE[dtype] * rounding * lengths).clamp_(min=COINCIDENT**2)

    def _add_exactly(self, i: Integers, j: Integers, is_opposite: Tensor) -> None:
        """Add pairs from differences of their rows, in half-space of the nearer of ±."""
        if len(i) > TILE:
            is_copy = self.points.copies[i] == self.points.copies[j]
            self._leave_out(int(is_copy.sum()))
            i, j, is_opposite = i[~is_copy], j[~is_copy], is_opposite[~is_copy]
        (one, i), (other, j) = (self._load_once(rows) for rows in (i, j))
        signs = torch.where(is_opposite, -1.0, 1.0).double().unsqueeze_(1)
        for part in self.points.chunks(np.arange(len(i)), self.points.d):
            a, b = (x.index_select(0, torch.from_numpy(k[part])) for x, k in ((one, i), (other, j)))
            if self.space == "half":
                b *= signs[part]
            squares = torch.linalg.vector_norm(a.sub_(b), dim=1).square_().clamp_(max=4)
            apart = squares[squares > COINCIDENT**2]
            self._leave_out(len(squares) - len(apart))
            self.totals += [float(energies.sum()) for energies in self._potentials(apart)]

    def _load_once(self, rows: Integers) -> tuple[Tensor, Integers]:
        """Return the different ones among rows, and which of them each is."""
        different, which = np.unique(rows, return_inverse=True)
        return self.points.load(different), which

    def _leave_out(self, count: int) -> None:
        """Count pairs at distance 0. In half-space, two of their points are at distance 2."""
        self.duplicates += count
        if self.space == "half":
            self.totals += count * self.farthest


def _has_exact_products() -> bool:
    """Say whether float32 products on the processor are float32, whatever the process has set."""
    matmul: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if hasattr(matmul, "fp32_precision"):
        return matmul.fp32_precision in ("none", "ieee")
    return torch.get_float32_matmul_precision() == "highest"


def _mirrored(panel: Tensor) -> Tensor:
    """Return ``[-2 a, ‖a‖², 1]``, whose products with panels are squared distances."""
    left = panel * -2
    left[:, -2], left[:, -1] = panel[:, -1], 1
    return left
