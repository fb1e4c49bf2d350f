"""Open a store, and read its tables at memory speed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featkit.errors import StoreError, UsageError
from featkit.store.datasets import (
    find_features,
    read_array,
    read_failures,
    read_json,
    read_text,
    reading,
)
from featkit.store.runs import asked_order
from featkit.store.samples import Samples, read_samples
from featkit.store.schema import TABLE_FORMAT
from featkit.store.selectors import match_tables

if TYPE_CHECKING:
    import torch


BLOCK_BYTES = 2**24
"""Bytes of a table that are looked at together."""


class FeatureTable:
    """One finished table: n rows of features, memory-mapped.

    Args:
        path: The table's HDF5 file.
        samples: The samples of its store; row i of the table is sample i.

    Attributes:
        backbone: The backbone's name in the store.
        tap: Module path of the tap.
        pooling: How the tap's output became a row.
        spec: The backbone as the user wrote it.
        key: The sha256 over all that decides the numbers.
        provenance: What the key was made from.
        checkpoint: How the file that the weights are from was understood (layout, architecture,
            tensors, heads, sha256), if they are from one.
        shape: (n, d), (n, t, d) or (n, c, h, w).
        dtype: ``float32`` or ``float16``.
        valid: (n,) bool, whether each image could be read; rows of the others are NaN.
    """

    def __init__(self, path: Path, samples: Samples) -> None:
        self.path = path
        self._samples = samples
        with reading(path, TABLE_FORMAT, f"see featkit verify {path.parent.parent}") as file:
            features = find_features(file)
            self.shape: tuple[int, ...] = features.shape
            self.dtype: np.dtype[Any] = features.dtype
            self._offset = int(features.id.get_offset() or 0)
            self.backbone, self.tap, self.pooling, self.spec, self.key = (
                read_text(file, name) for name in ("backbone", "tap", "pooling", "spec", "key")
            )
            self.provenance = _provenance(file)
            self.checkpoint: dict[str, Any] | None = (
                read_json(file, "checkpoint") if "checkpoint" in file.attrs else None
            )
            if len(self) != len(samples):
                raise StoreError(
                    f"{path}: has {len(self)} rows, its store {len(samples)} samples; it belongs "
                    f"to another store"
                )
            self.valid: NDArray[np.bool_] = read_array(file, "valid", (len(self),), "?")
            self.failures = read_failures(path, file, range(len(self)))

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"FeatureTable({self.name!r}, shape={self.shape}, dtype={self.dtype})"

    @property
    def name(self) -> str:
        """``backbone/tap.pooling``, as selectors spell it."""
        return f"{self.backbone}/{self.tap}.{self.pooling}"

    @property
    def labels(self) -> NDArray[Any] | None:
        """(n,) int64 indices into ``classes``, (n, k) uint8, or None."""
        return self._samples.labels

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, or None."""
        return self._samples.classes

    @property
    def digests(self) -> NDArray[np.uint8]:
        """(n, 32), the sha256 of each sample's content."""
        return self._samples.digests

    @property
    def paths(self) -> tuple[str, ...]:
        """Names of the samples, in row order."""
        return tuple(self._samples.paths)

    @cached_property
    def _mapped(self) -> NDArray[Any]:
        # a map that may be written to counts as memory, all of it, before a byte is read
        return np.memmap(self.path, self.dtype, "r", self._offset, self.shape)

    def __getitem__(self, rows: slice | NDArray[Any]) -> NDArray[Any]:
        """Return some rows, (m, …), read-only where they are mapped.

        Args:
            rows: A slice, whose rows are mapped, or row numbers or (n,) bool, whose rows are read.
        """
        return self._mapped[rows]

    def numpy(self) -> NDArray[Any]:
        """Return all rows, (n, d) or (n, c, h, w), mapped into memory, read-only.

        Nothing is read before it is used, and a table may be larger than the memory.
        """
        return self._mapped

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return all rows for NumPy."""
        return np.array(self._mapped, dtype=dtype, copy=copy)

    def torch(self, device: str | torch.device = "cpu") -> torch.Tensor:
        """Return all rows as a tensor, mapped into memory if on the CPU.

        Writing to it changes the copy in memory, never the file; so a system may refuse a table
        larger than its memory. Of that, take parts of :meth:`numpy`.
        """
        import torch

        return torch.from_numpy(self._changeable()).to(device)

    def _changeable(self) -> NDArray[Any]:
        """Return all rows, mapped so that what is written stays in memory."""
        return np.memmap(self.path, self.dtype, "c", self._offset, self.shape)

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield consecutive rows, a few MB at a time, as (slice, rows); mapped ones read-only."""
        step = max(1, BLOCK_BYTES // max(1, self[:1].nbytes))
        for start in range(0, len(self), step):
            rows = slice(start, min(start + step, len(self)))
            yield rows, self[rows]

    def batches(
        self, size: int, shuffle: bool = False, seed: int = 0
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yield the rows in batches, each with its row numbers.

        Args:
            size: Rows in a batch; the last one may be smaller.
            shuffle: Whether to visit the rows in random order.
            seed: Of that order.

        Yields:
            Row numbers (b,) int64, and those rows (b, …).
        """
        if size < 1:
            raise UsageError(f"a batch of {size} rows: at least 1")
        order = np.arange(len(self), dtype=np.int64)
        if shuffle:
            order = np.random.default_rng(seed).permutation(order)
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            yield rows, self[rows]


def _provenance(file: h5py.File) -> dict[str, Any]:
    """Read what the key of a table was made from, with what everything that reads it looks up."""
    found = read_json(file, "provenance")
    if not all(isinstance(found[name], str) for name in ("samples", "precision")):
        raise ValueError("the attribute provenance names no samples or precision")
    return found


class Store:
    """A folder of tables about one set of images.

    Args:
        path: The folder.

    Raises:
        StoreError: It is not a store.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.samples = read_samples(self.path)

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, {len(self.samples)} samples)"

    def __len__(self) -> int:
        return len(self.samples)

    def table_files(self) -> list[Path]:
        """The files of the finished tables, in the order in which they were first asked for."""
        order = asked_order(self.path)
        files = [file for file in self.path.glob("*/*.h5") if not file.parent.name.startswith(".")]

        def position(file: Path) -> tuple[int, str]:
            name = f"{file.parent.name}/{file.stem}"
            return order.get(name, len(order)), name

        return sorted(files, key=position)

    def tables(self) -> list[FeatureTable]:
        """The finished tables, in the order in which they were first asked for."""
        return [FeatureTable(file, self.samples) for file in self.table_files()]

    def select(self, pattern: str | None) -> list[FeatureTable]:
        """Return the tables that a selector names.

        Args:
            pattern: ``BACKBONE``, ``BACKBONE/TAP``, ``BACKBONE/TAP.POOLING``, or None for all.

        Raises:
            SelectorError: It names none.
        """
        files = {f"{file.parent.name}/{file.stem}": file for file in self.table_files()}
        names = match_tables(list(files), pattern, str(self.path))
        return [FeatureTable(files[name], self.samples) for name in names]

    def __getitem__(self, pattern: str) -> FeatureTable:
        """Return the one table that a selector names.

        Raises:
            SelectorError: It names none, or several.
        """
        files = {f"{file.parent.name}/{file.stem}": file for file in self.table_files()}
        names = match_tables(list(files), pattern, str(self.path), one=True)
        return FeatureTable(files[names[0]], self.samples)


def open_store(path: str | Path) -> Store:
    """Open a store that ``featkit extract`` made.

    Args:
        path: Its folder.

    Raises:
        StoreError: The folder is not a store, or a newer featkit wrote it.
    """
    return Store(path)
