"""What is known of each image, kept in a file from one pass over the images to the next."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

MOST = 4 * 2**30  # bytes
FREE = 0.5  # share of a disk's free space that may be taken


class Scratch:
    """Arrays of the first images of a run, in a file without a name.

    It takes images until the next one would exceed half of what is free on the disk of temporary
    files (``TMPDIR``), or 4 GiB. The file is gone when the process ends, however it ends.

    Cost: a write and a read of each array, and about 1 kB of memory an image.

    Example:
        >>> with Scratch() as scratch:
        ...     scratch.keep(7, [np.arange(3), np.ones((1, 2))])
        ...     7 in scratch, 8 in scratch, scratch.read(7)
        True
        (True, False, [array([0, 1, 2]), array([[1., 1.]])])
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[int, list[tuple[np.dtype[Any], tuple[int, ...]]]]] = {}
        self._end = self._room = 0
        try:
            self._file = tempfile.TemporaryFile(prefix="featkit-", buffering=0)  # noqa: SIM115
            self._room = min(MOST, int(FREE * shutil.disk_usage(tempfile.gettempdir()).free))
        except OSError:  # there is no disk of temporary files, or it is full
            self._file = open(os.devnull, "w+b", buffering=0)  # noqa: PTH123, SIM115

    def __contains__(self, row: int) -> bool:
        return row in self._kept

    def keep(self, row: int, arrays: Sequence[Array]) -> bool:
        """Keep the arrays of an image; False, now and ever after, where there is no room."""
        start, stop = self._end, self._end + sum(array.nbytes for array in arrays)
        if stop > self._room:
            self._room = 0
            return False
        try:
            self._file.seek(start)
            for array in arrays:
                self._write(np.ascontiguousarray(array))
        except OSError:  # others have filled the disk meanwhile
            self._file.truncate(start)
            self._room = 0
            return False
        self._end = stop
        self._kept[row] = start, [(array.dtype, array.shape) for array in arrays]
        return True

    def read(self, row: int) -> list[Array]:
        """Return the arrays of an image that was kept."""
        start, kinds = self._kept[row]
        self._file.seek(start)
        return [self._read(dtype, shape) for dtype, shape in kinds]

    def _read(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        array = np.empty(shape, dtype)
        view = array.reshape(-1).view(np.uint8).data
        while view:
            view = view[self._file.readinto(view) :]
        return array

    def _write(self, array: Array) -> None:
        view = array.reshape(-1).view(np.uint8).data
        while view:
            view = view[self._file.write(view) :]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
