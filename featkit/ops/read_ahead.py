"""Rows of mapped files that are wanted here and there, read before they are wanted."""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np

from featkit.ops.free_memory import free_for_files
from featkit.ops.row_sources import Array, Integers, RowSource, SelectedRows, mapped_file

T = TypeVar("T")

PAGE = mmap.PAGESIZE
PIECE = 2**17
"""Bytes asked for at once; of more some systems read as much only."""


class ReadAhead:
    """Reads the rows of mapped files that are announced, and no others.

    A page that is not in memory is read with what lies around it, up to megabytes. That serves who
    reads from front to back; of rows in random order it reads a file many times over. Within this
    context each page is read alone, and a disk gets all that are announced at once. Systems that
    cannot be told do as they always do.

    Args:
        sources: Arrays and :class:`featkit.ops.row_sources.SelectedRows`, (n, …). Those that are no
            mapped files, or whose rows do not lie in one piece, stay as they are.

    Cost: some 2 µs a row and file.

    Example:
        >>> with ReadAhead([np.zeros((4, 2))]) as ahead:
        ...     ahead.announce(np.array([0, 3]))
    """

    def __init__(self, sources: Iterable[RowSource]) -> None:
        self._mapped = [one for one in map(_mapped, sources) if one]

    def __enter__(self) -> Self:
        for one in self._mapped:
            with suppress(OSError):
                one.file.madvise(mmap.MADV_RANDOM)
        return self

    def __exit__(self, *raised: object) -> None:
        for one in self._mapped:
            with suppress(OSError):
                one.file.madvise(mmap.MADV_NORMAL)

    def announce(self, rows: Integers) -> None:
        """Have rows read that will be wanted soon.

        Args:
            rows: Their numbers, ascending.
        """
        for one in self._mapped:
            with suppress(OSError):
                one.read(rows)


def exceed_memory(sources: Iterable[RowSource]) -> bool:
    """Say whether the mapped files among some sources are more than memory has room for.

    If not, what lies around a row is best read with it, until all is there.
    """
    size = sum(one.size for one in map(_mapped, sources) if one)
    return size > 0 and size > free_for_files()


def announced(batches: Iterable[T], announce: Callable[[T], object]) -> Iterator[T]:
    """Give batches in turn, each when the one that follows has been announced.

    Example:
        >>> list(announced("ab", print))
        a
        b
        ['a', 'b']
    """
    waiting = deque[T]()
    for batch in batches:
        announce(batch)
        waiting.append(batch)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


@dataclass(frozen=True)
class _Mapped:
    """Where rows lie in a mapped file.

    Attributes:
        file: It.
        begin: Byte of the first row.
        stride: Bytes from one row to the next.
        length: Bytes of a row.
        size: Bytes of all.
        rows: Which are those that are counted; all if None.
    """

    file: mmap.mmap
    begin: int
    stride: int
    length: int
    size: int
    rows: Integers | None

    def read(self, rows: Integers) -> None:
        if not len(rows):
            return
        wanted = rows if self.rows is None else self.rows[rows]
        starts = self.begin + wanted * self.stride
        firsts, stops = starts // PAGE, -(-(starts + self.length) // PAGE)
        apart = np.flatnonzero(firsts[1:] > stops[:-1])
        firsts, stops = firsts[np.append(0, apart + 1)], stops[np.append(apart, -1)]
        for first, stop in zip((firsts * PAGE).tolist(), (stops * PAGE).tolist(), strict=True):
            for start in range(first, stop, PIECE):
                self.file.madvise(mmap.MADV_WILLNEED, start, min(PIECE, stop - start))


def _mapped(source: RowSource) -> _Mapped | None:
    """Return where the rows of a source are mapped; None where they are not."""
    rows = None
    while isinstance(source, SelectedRows):
        rows = source.rows if rows is None else source.rows[rows]
        source = source.source
    file = mapped_file(source)
    if file is None or not hasattr(file, "madvise"):
        return None
    array: Array = np.asarray(source)
    stride = array.strides[0]
    if not array.size or stride <= 0 or not array[:1].flags.c_contiguous:
        return None
    begin: Any = array.ctypes.data - np.frombuffer(file, np.uint8).ctypes.data
    return _Mapped(file, begin, stride, array[0].nbytes, array.nbytes, rows)
