"""The directions of rows: rows of length 1, made whenever they are needed."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from featkit.errors import UsageError
from featkit.ops.matrices import row_numbers
from featkit.ops.neighbors import Array, Integers, Rows, UnitRows

CHUNK_FLOATS = 2**16  # numbers widened at once: 512 KiB
SAFE_LENGTHS = (1e-150, 1e150)  # whose squares float64 holds with all its digits
ALL = slice(None)


class Directions:
    """Rows of length 1, made in float64 whenever they are needed.

    Args:
        x: (n, d), any real dtype. Memory-mapped arrays are read part by part.
        rows: Those that take part, different whole numbers; all if None.

    Attributes:
        given: How many take part.
        kept: Rows that are not zero, ascending; all methods count among these.
        mean: Of the directions, float64 (d).

    Raises:
        UsageError: ``x`` is no matrix of finite real numbers, or ``rows`` are not among its rows.
    """

    def __init__(self, x: Rows, rows: npt.ArrayLike | None = None) -> None:
        self.matrix = _matrix(x)
        n, self.d = self.matrix.shape
        self._rows = np.sort(row_numbers(rows, n))
        self.given = len(self._rows)
        self.peaks = torch.ones(n, 1, dtype=torch.float64)
        self.lengths = torch.zeros(n, 1, dtype=torch.float64)
        self.has_peaks = False
        total = torch.zeros(self.d, dtype=torch.float64)
        for part in self.chunks(self._rows, self.d):
            wide = self._measure(part)
            lengths = self.lengths[part, 0]
            total.addmv_(wide.T, torch.where(lengths > 0, 1 / lengths, 0))
        self.kept: Integers = np.flatnonzero(self.lengths.numpy())
        self.mean = total / max(1, len(self))

    def __len__(self) -> int:
        return len(self.kept)

    def panel(self, part: slice, dtype: torch.dtype, columns: slice = ALL) -> Tensor:
        """Return ``[a, 1, ‖a‖²]``, (rows, columns + 2), of rows ``a`` around the mean.

        The square is that of the rounded row, so that rounding moves points, not distances.
        """
        rows, mean = np.arange(len(self))[part], self.mean[columns]
        panel = torch.empty(len(rows), len(mean) + 2, dtype=dtype)
        panel[:, -2] = 1
        for chunk in self.chunks(rows, len(mean)):
            out = panel[int(chunk[0] - rows[0]) :][: len(chunk)]
            torch.sub(self.load(chunk, columns), mean, out=out[:, :-2])
            lengths = torch.linalg.vector_norm(out[:, :-2], dim=1, dtype=torch.float64)
            out[:, -1] = lengths.square_()
        return panel

    def load(self, rows: Integers, columns: slice = ALL) -> Tensor:
        """Return rows, counted without those of zeros, as float64 (rows, d) of length 1."""
        given = self.kept[rows]
        wide = self._wide(given, columns)
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
            for rows in self.chunks(np.arange(len(self)), self.d)
            for row in self.load(rows).numpy()
        ]
        return np.array(found)

    @staticmethod
    def chunks(rows: Integers, width: int) -> list[Integers]:
        """Split row numbers so that a part of the rows stays in the cache."""
        step = max(1, CHUNK_FLOATS // width)
        return [rows[start : start + step] for start in range(0, len(rows), step)]

    def _wide(self, rows: Integers, columns: slice = ALL) -> Tensor:
        given = self.matrix[rows, columns]
        if given.dtype in (np.float16, np.float32):
            return torch.from_numpy(given).double()
        return torch.from_numpy(given.astype(np.float64, copy=False))

    def _measure(self, rows: Integers) -> Tensor:
        """Note the lengths of rows, and return the rows that have these."""
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
        return wide

    def _refuse(self) -> NoReturn:
        chunks = self.chunks(self._rows, self.d)
        bad = np.concatenate([c[~np.isfinite(self.matrix[c]).all(1)] for c in chunks])
        raise UsageError(
            f"{len(bad)} of {self.given} rows of features hold NaN or infinity, the first is row"
            f" {bad[0]}: leave them out"
        )


def _matrix(x: Rows) -> Array:
    if isinstance(x, UnitRows):
        return x.array
    if isinstance(x, Tensor):
        x = (x.float() if x.dtype == torch.bfloat16 else x).cpu().numpy()
    matrix: npt.NDArray[Any] = np.asarray(x)
    if matrix.ndim != 2 or matrix.dtype.kind not in "biuf" or not matrix.shape[1]:
        given = f"{matrix.dtype} {matrix.shape}"
        flat = ", as reshape(len(x), -1) makes of filters or maps" if matrix.ndim > 2 else ""
        raise UsageError(
            f"features are {given}: give real numbers in the shape (rows, features){flat}"
        )
    return matrix
