"""How evenly rows are spread over the sphere."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any, Literal, NoReturn, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from featkit.errors import UsageError
from featkit.ops.neighbors import Array, Integers, Rows, UnitRows

Space = Literal["full", "half"]
Kernel = Literal["euclidean", "angular"]
Reduction = Literal["mean", "sum"]

TILE = 512  # rows of each side in one product: 1 MiB of squared distances stays in the cache
TILES = 6  # tiles of rows that are held while all later rows pass by
PANEL_FLOATS = 2**24  # numbers that may be held for it
CHUNK_FLOATS = 2**16  # numbers widened at once: 512 KiB
FEW = 2048  # rows, up to which all products are float64
STEEP = 2.0  # power, up to which float32 has enough digits
COINCIDENT = 1e-9  # distance that float64 rows of length 1 hold with six digits
CLOSE = {torch.float32: 2.0**13, torch.float64: 2.0**23}  # in roundings of a product
CROWDED = 0.01  # share of close pairs, from which another product costs less than differences
SAFE_LENGTHS = (1e-150, 1e150)  # whose squares float64 holds with all its digits

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
    is computed from differences. Memory: 3,072 rows in float32, 24 bytes a row and some 15 MiB;
    never n².

    Source: Liu et al. 2018, arXiv:1805.09298. Its code takes other units: power ``0`` is
    -log ‖·‖², twice ours; ``a0``, ``a1``, ``a2`` take angles in units of π, plus 1e-4, and ``a1``,
    ``a2`` are scaled by 0.1 in hidden layers; lengths are √(‖x‖² + 1e-4).

    Example:
        >>> measure_energy([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0], [-3.0, 0.0]])
        Energy(total=2.0, pairs=4, duplicates=2, zeros=1)
    """
    check_potential(power, space, kernel)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        points = _Points(x)
        n, zeros = len(points), points.given - len(points)
        if n < 2:
            raise UsageError(
                f"energy of {points.given} rows, {zeros} of them zeros: give two or more that are"
                " not zero"
            )
        pairs = _Pairs(points, float(power), space, kernel)
        total, duplicates = pairs.sum()
    if space == "full":
        energy = Energy(2 * total, n * (n - 1) - 2 * duplicates, 2 * duplicates, zeros)
    else:  # i and j are four pairs of points, and v̂_i with -v̂_i is one more
        own = n * pairs.farthest
        count = 2 * n * (2 * n - 1) - 4 * duplicates
        energy = Energy(4 * total + 2 * own, count, 4 * duplicates, zeros)
    if not energy.pairs:
        raise UsageError(f"all {n} rows point the same way: energy needs two or more directions")
    return energy


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
    near = squares if kernel == "euclidean" else 2 * (squares / 4).sqrt().asin()
    order = 0.5 if kernel == "euclidean" else 1.0  # the power that makes it r
    energies = _inverse(near, power, order)
    if space == "half":
        far = 4 - near if kernel == "euclidean" else math.pi - near
        energies = energies + _inverse(far, power, order)
    return energies


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


class _Points:
    """Rows of length 1, made in float64 whenever they are needed."""

    def __init__(self, x: Rows) -> None:
        self.matrix = _matrix(x)
        self.given, self.d = self.matrix.shape
        self.peaks = torch.ones(self.given, 1, dtype=torch.float64)
        self.lengths = torch.empty(self.given, 1, dtype=torch.float64)
        self.has_peaks = False
        total = torch.zeros(self.d, dtype=torch.float64)
        for rows in self.chunks(np.arange(self.given)):
            wide = self._measure(rows)
            total += wide.sum(0)
        self.kept: Integers = np.flatnonzero(self.lengths.numpy())
        self.mean = total / max(1, len(self))

    def __len__(self) -> int:
        return len(self.kept)

    def panel(self, part: slice, dtype: torch.dtype) -> Tensor:
        """Return ``[a, 1, ‖a‖²]``, (rows, d + 2), of rows ``a`` around the mean.

        The square is that of the rounded row, so that rounding moves points, not distances.
        """
        rows = np.arange(len(self))[part]
        panel = torch.empty(len(rows), self.d + 2, dtype=dtype)
        panel[:, -2] = 1
        for chunk in self.chunks(rows):
            out = panel[int(chunk[0] - rows[0]) :][: len(chunk)]
            out[:, :-2] = self.load(chunk).sub_(self.mean)
            lengths = torch.linalg.vector_norm(out[:, :-2], dim=1, dtype=torch.float64)
            out[:, -1] = lengths.square_()
        return panel

    def load(self, rows: Integers) -> Tensor:
        """Return rows, counted without those of zeros, as float64 (rows, d) of length 1."""
        given = self.kept[rows]
        wide = self._wide(given)
        if self.has_peaks:
            wide /= self.peaks[given]
        wide /= self.lengths[given]
        return wide

    @cached_property
    def copies(self) -> Integers:
        """A number for each row that only rows have that equal it bit by bit."""
        seen: dict[bytes, int] = {}
        found = [
            seen.setdefault(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), len(seen))
            for rows in self.chunks(np.arange(len(self)))
            for row in self.load(rows).numpy()
        ]
        return np.array(found)

    def chunks(self, rows: Integers) -> list[Integers]:
        """Split row numbers so that a part of the rows stays in the cache."""
        step = max(1, CHUNK_FLOATS // self.d)
        return [rows[start : start + step] for start in range(0, len(rows), step)]

    def _wide(self, rows: Integers) -> Tensor:
        given = self.matrix[rows]
        if given.dtype in (np.float16, np.float32):
            return torch.from_numpy(given).double()
        return torch.from_numpy(given.astype(np.float64, copy=False))

    def _measure(self, rows: Integers) -> Tensor:
        """Note the lengths of rows, and return the rows over their lengths."""
        wide = self._wide(rows)
        lengths = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
        odd = ~((lengths > SAFE_LENGTHS[0]) & (lengths < SAFE_LENGTHS[1])).squeeze(1)
        if odd.any():
            peaks = wide[odd].abs().amax(1, keepdim=True)
            if not peaks.isfinite().all():
                self._refuse()
            peaks[peaks == 0] = 1
            wide[odd] /= peaks
            lengths[odd] = torch.linalg.vector_norm(wide[odd], dim=1, keepdim=True)
            self.peaks[rows[odd.numpy()]] = peaks
            self.has_peaks = True
        self.lengths[rows] = lengths
        return wide.div_(lengths.masked_fill(lengths == 0, 1))

    def _refuse(self) -> NoReturn:
        chunks = self.chunks(np.arange(self.given))
        bad = np.flatnonzero(np.concatenate([~np.isfinite(self.matrix[c]).all(1) for c in chunks]))
        raise UsageError(
            f"{len(bad)} of {self.given} rows of features hold NaN or infinity, the first is row"
            f" {bad[0]}: leave them out"
        )


class _Pairs:
    """The energy of all pairs i < j, tile by tile.

    The product of two panels is ``‖a‖² + ‖b‖² - 2 a·b``. Its rounding is some ε·√d·(‖a‖² + ‖b‖²),
    and pairs whose squared distance is not ``CLOSE`` times as much are computed from differences.
    What is left is exact to 1e-4 (float32) or 1e-8 (float64) a pair, without bias.
    """

    def __init__(self, points: _Points, power: float, space: Space, kernel: Kernel) -> None:
        self.points, self.power, self.space, self.kernel = points, power, space, kernel
        self.sees_far = space == "half" or kernel == "angular"  # distances near 2 need digits, too
        opposite = torch.tensor(4.0, dtype=torch.float64)
        self.farthest = float(potential(opposite, power, "full", kernel))
        self.total = 0.0
        self.duplicates = 0

    def sum(self) -> tuple[float, int]:
        """Return the energy of pairs i < j and how many are at distance 0 and left out."""
        n, d = len(self.points), self.points.d
        is_rough = n > FEW and self.power <= STEEP and _has_exact_products()
        dtype = torch.float32 if is_rough else torch.float64
        tile = min(TILE, max(TILE // 4, PANEL_FLOATS // d))
        panel = tile * min(TILES, max(1, PANEL_FLOATS // (d * tile)))
        for start in range(0, n, panel):
            held = self.points.panel(slice(start, start + panel), dtype)
            for column in range(start, n, tile):
                part = slice(column, column + tile)
                is_held = column < start + panel
                right = held[column - start :][:tile] if is_held else self.points.panel(part, dtype)
                bound = self._bound(held[:, -1].max() + right[:, -1].max(), dtype)
                right = _mirrored(right)
                for row in range(start, min(start + panel, column + tile), tile):
                    self._add(held[row - start :][:tile], right, row, column, float(bound))
        return self.total, self.duplicates

    def _add(self, left: Tensor, right: Tensor, row: int, column: int, bound: float) -> None:
        squares = left @ right.T
        i = j = _NONE
        if squares.amin() <= bound or (self.sees_far and squares.amax() >= 4 - bound):
            i, j = self._close(squares, left[:, -1:] + right[:, -2], row == column)
        if len(i) > CROWDED * squares.numel() and squares.dtype == torch.float32:
            parts = slice(row, row + len(left)), slice(column, column + len(right))
            one, other = (self.points.panel(part, torch.float64) for part in parts)
            self._add(one, _mirrored(other), row, column, math.inf)
            return
        energies = potential(squares, self.power, self.space, self.kernel)
        if len(i):
            energies[i, j] = 0
            self._add_exactly(i.numpy() + row, j.numpy() + column, squares[i, j] > 2)
        if row == column:
            energies.triu_(1)
        self.total += float(energies.sum(1).double().sum())

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
        for part in self.points.chunks(np.arange(len(i))):
            a, b = (x.index_select(0, torch.from_numpy(k[part])) for x, k in ((one, i), (other, j)))
            if self.space == "half":
                b *= signs[part]
            squares = torch.linalg.vector_norm(a.sub_(b), dim=1).square_().clamp_(max=4)
            apart = squares[squares > COINCIDENT**2]
            self._leave_out(len(squares) - len(apart))
            self.total += float(potential(apart, self.power, self.space, self.kernel).sum())

    def _load_once(self, rows: Integers) -> tuple[Tensor, Integers]:
        """Return the different ones among rows, and which of them each is."""
        different, which = np.unique(rows, return_inverse=True)
        return self.points.load(different), which

    def _leave_out(self, count: int) -> None:
        """Count pairs at distance 0. In half-space, two of their points are at distance 2."""
        self.duplicates += count
        if self.space == "half":
            self.total += count * self.farthest


def _matrix(x: Rows) -> Array:
    if isinstance(x, UnitRows):
        return x.array
    if isinstance(x, Tensor):
        x = (x.float() if x.dtype == torch.bfloat16 else x).cpu().numpy()
    matrix: npt.NDArray[Any] = np.asarray(x)
    if matrix.ndim != 2 or matrix.dtype.kind not in "biuf" or not matrix.shape[1]:
        given = f"{matrix.dtype} {matrix.shape}"
        raise UsageError(f"features are {given}: give real numbers in the shape (rows, features)")
    return matrix


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
