"""Rows that are read when they are asked for, so that a matrix may be larger than memory."""

from __future__ import annotations

import mmap
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError

Array: TypeAlias = npt.NDArray[Any]
Integers: TypeAlias = npt.NDArray[np.int64]


@runtime_checkable
class RowSource(Protocol):
    """A matrix whose rows are read by slices, or by row numbers that increase.

    Arrays, memory maps, tables of a store, datasets of h5py and arrays of zarr are some.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and numbers of each."""
        ...

    @property
    def dtype(self) -> Any:
        """Of the numbers."""
        ...

    def __getitem__(self, rows: Any, /) -> Any:
        """Return some rows."""
        ...

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        """Return all rows."""
        ...


class SelectedRows:
    """Some rows of a source, in their order, of which only those that are asked for are read.

    Args:
        source: (n, d), as :class:`RowSource`.
        keep: Which, (n) bool.

    Attributes:
        source: As given.
        rows: Numbers of the rows that are kept.
        shape: How many these are, d.
        dtype: That of the source.

    Raises:
        UsageError: ``keep`` is no array of n truth values.

    Cost: 8 bytes a row that is kept.

    Example:
        >>> rows = SelectedRows(np.array([[1.0], [2.0], [3.0]]), np.array([True, False, True]))
        >>> rows.shape, rows[1:]
        ((2, 1), array([[3.]]))
    """

    def __init__(self, source: RowSource, keep: npt.ArrayLike) -> None:
        kept = np.asarray(keep)
        if kept.dtype != bool or kept.shape != source.shape[:1]:
            raise UsageError(
                f"rows to keep are {kept.dtype} {kept.shape}: give {source.shape[0]} truth values"
            )
        self.source, self.rows = source, np.flatnonzero(kept)
        self.shape = (len(self.rows), *source.shape[1:])
        self.dtype = np.dtype(source.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Integers) -> Array:
        """Return the rows of a slice, or those of numbers that increase, (m, d)."""
        wanted = self.rows[rows]
        if len(wanted) and wanted[-1] - wanted[0] == len(wanted) - 1:  # no row between is left out
            return np.asarray(self.source[int(wanted[0]) : int(wanted[-1]) + 1])
        return np.asarray(self.source[wanted])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return all rows for NumPy."""
        return np.array(self[:], dtype=dtype, copy=copy)


def is_mapped(array: Array) -> bool:
    """Say whether an array, or what it is a view of, is a file that is mapped into memory.

    Example:
        >>> is_mapped(np.zeros((2, 2))[1:])
        False
    """
    return mapped_file(array) is not None


def mapped_file(array: Any) -> mmap.mmap | None:
    """Return the mapped file that an array is a view of; None if there is none."""
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    return array
