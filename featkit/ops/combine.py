"""Baselines that put the features of several models together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from featkit.errors import UsageError
from featkit.ops.neighbors import as_rows, unit_rows
from featkit.ops.row_sources import RowSource

Combination = Literal["average", "concat"]


def combine(features: Sequence[NDArray[Any]], how: Combination) -> NDArray[np.float32]:
    """Average or concatenate the L2-normalised features of m models.

    ``average`` is mean_j z_j / ‖z_j‖, ``concat`` is [z_1 / ‖z_1‖, …, z_m / ‖z_m‖].

    Args:
        features: m arrays (n, d_j); equal d_j for the average.
        how: Which.

    Returns:
        (n, d) or (n, Σ d_j), float32.

    Raises:
        UsageError: The shapes do not fit, or a row is not finite.

    Cost: one pass over the features.

    Source: Wallace et al., Learning rich nearest neighbor representations from self-supervised
    ensembles, 2021, arXiv:2110.10293, baselines of section 4.

    Example:
        >>> a, b = np.array([[2.0, 0.0]]), np.array([[0.0, 5.0]])
        >>> combine([a, b], "average"), combine([a, b], "concat")
        (array([[0.5, 0.5]], dtype=float32), array([[1., 0., 0., 1.]], dtype=float32))
    """
    units = [unit_rows(x).array for x in features]
    _check_shapes([x.shape for x in units], how)
    if how == "concat":
        return np.concatenate(units, axis=1)
    total = units[0].copy()
    for unit in units[1:]:
        total += unit
    total /= len(units)
    return total


class CombinedRows:
    """What :func:`combine` makes of several models, made when its rows are asked for.

    Args:
        sources: m matrices (n, d_j), as :class:`featkit.ops.row_sources.RowSource`.
        how: ``average`` or ``concat``.

    Attributes:
        shape: n, and d or Σ d_j.
        dtype: float32.

    Raises:
        UsageError: The shapes do not fit; of rows that are not finite, when they are read.

    Cost: nothing is kept; each row that is asked for is read and normalised anew.

    Example:
        >>> rows = CombinedRows([np.array([[2.0, 0.0]]), np.array([[0.0, 5.0]])], "concat")
        >>> rows.shape, rows[:1]
        ((1, 4), array([[1., 0., 0., 1.]], dtype=float32))
    """

    dtype = np.dtype(np.float32)

    def __init__(self, sources: Sequence[RowSource], how: Combination) -> None:
        self._sources = [as_rows(x, f"features {j}") for j, x in enumerate(sources)]
        self._how: Combination = how
        shapes = [x.shape for x in self._sources]
        _check_shapes(shapes, how)
        width = shapes[0][1] if how == "average" else sum(d for _, d in shapes)
        self.shape = (shapes[0][0], width)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        """Return the rows of a slice, or those of numbers that increase, (m, …)."""
        return combine([np.asarray(x[rows]) for x in self._sources], self._how)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return all rows for NumPy."""
        return np.array(self[:], dtype=dtype, copy=copy)


def _check_shapes(shapes: Sequence[tuple[int, ...]], how: Combination) -> None:
    rows = {shape[0] for shape in shapes}
    if len(rows) != 1:
        raise UsageError(f"{how}: the models have different numbers of rows, {sorted(rows)}")
    widths = [shape[1] for shape in shapes]
    if how == "average" and len(set(widths)) > 1:
        raise UsageError(f"average: the models have different widths, {widths}; use concat")
