"""Many strings in two flat buffers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np


class PackedStrings(Sequence[str]):
    """A read-only list of strings that costs 8 bytes a string above its UTF-8.

    A list of a million ``str`` costs some 100 MB in every data-loading process, because reading an
    item writes its reference count and so copies the shared page; these buffers stay shared.

    Args:
        strings: n strings that UTF-8 can encode.

    Raises:
        UnicodeEncodeError: A string holds lone surrogates.

    Cost:
        O(n) to build, O(1) an item.

    Example:
        >>> names = PackedStrings(["a.png", "b.png", "é.png"])
        >>> len(names), names[-1], names[:2], "b.png" in names
        (3, 'é.png', ['a.png', 'b.png'], True)
    """

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [string.encode() for string in strings]
        self._bytes = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        rows = range(len(self))[index]
        if isinstance(rows, range):
            return [self[row] for row in rows]
        return self._bytes[self._ends[rows] : self._ends[rows + 1]].decode()

    def __repr__(self) -> str:
        return f"<{len(self)} strings: {self[:3]}{'…' if len(self) > 3 else ''}>"


def row_numbers(n: int) -> PackedStrings:
    """Number n rows from 0, padded with zeros to one width.

    Example:
        >>> row_numbers(11)[9:]
        ['09', '10']
    """
    width = len(str(max(n - 1, 0)))
    return PackedStrings(f"{row:0{width}d}" for row in range(n))
