"""An image source whose samples are files under one folder."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featkit.data.decoding import decode, decode_errors
from featkit.errors import SourceError


@dataclass(frozen=True, eq=False)
class FileSource:
    """Image files under one folder: the `featkit.data.sources.Source` of folders and CSV tables.

    Attributes:
        name: The source as the user wrote it.
        root: Absolute folder that the ids are relative to.
        ids: n unique POSIX paths.
        labels: (n,) int64 class indices, (n, k) uint8 memberships, or None.
        classes: The k class names that labels index.
        notes: One-line remarks for the user.
    """

    name: str
    root: Path
    ids: Sequence[str]
    labels: NDArray[Any] | None = None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def read(self, row: int) -> Image.Image:
        """Decode sample ``row`` to RGB.

        Raises:
            DecodeError: The file cannot be read or decoded.
        """
        with decode_errors():
            content = (self.root / self.ids[row]).read_bytes()
        return decode(content)

    def digest(self, row: int) -> bytes:
        """Return the sha256 (32 bytes) of the file of sample ``row``; never raises."""
        return file_digest(self.root / self.ids[row])

    def stamps(self) -> NDArray[np.int64]:
        """Return (n, 2) int64 file sizes in bytes and times of change in ns; see `file_stamps`.

        Cost:
            n calls of ``stat``.
        """
        return file_stamps(self.root / name for name in self.ids)


def file_digest(path: str | Path) -> bytes:
    """Hash a file's bytes, or the kind of error that keeps them from being read.

    Returns:
        32 bytes of sha256.

    Cost:
        One pass over the file.

    Example:
        >>> file_digest("no such file") == file_digest("nor this")
        True
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        return hashlib.sha256(f"unreadable: {type(error).__name__}".encode()).digest()


SETTLED_NS = 2_000_000_000
"""How long, in ns, a file must have stayed as it is for its stamp to tell a later change."""


def file_stamps(paths: Iterable[str | Path]) -> NDArray[np.int64]:
    """Return the size in bytes and the time of change in ns of n files, as (n, 2) int64.

    The time is that of the file's last change of any kind (``st_ctime``), which every change of
    contents sets and no program can set back, unlike the time of modification; on Windows it is
    the latter. A file has 0 in its place if it changed within the last two seconds, or in the
    future by this machine's clock: another change might have the same time. Files that cannot be
    looked at have -1, -1.
    """
    settled = time.time_ns() - SETTLED_NS
    stamps = np.array([_stamp(path) for path in paths], dtype=np.int64).reshape(-1, 2)
    stamps[stamps[:, 1] > settled, 1] = 0
    return stamps


def _stamp(path: str | Path) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 - a third of the time of Path.stat over a million files
    except OSError:
        return -1, -1
    return status.st_size, change_time(status)


def change_time(status: os.stat_result) -> int:
    """Return the time in ns of the last change that a file's status tells of."""
    return status.st_ctime_ns if os.name == "posix" else status.st_mtime_ns


def inside(where: str, name: str) -> str:
    """Return a file's name that a table or an annotation gives, if it stays in its folder.

    Args:
        where: What names it, for the message.
        name: Relative to that folder.

    Raises:
        SourceError: It is empty, absolute, or climbs with ``..``.

    Example:
        >>> inside("list", "a/b.png")
        'a/b.png'
        >>> inside("list", "../b.png")
        Traceback (most recent call last):
        featkit.errors.SourceError: list: '../b.png' is not inside its folder; move the file there
    """
    path = PurePath(name)
    if not name or "\0" in name or path.is_absolute() or ".." in path.parts:
        raise SourceError(f"{where}: {name!r} is not inside its folder; move the file there")
    return name


def shown(names: Sequence[str]) -> str:
    """List the first three names, printable whatever bytes the file system holds.

    Example:
        >>> shown(["a", "b", "c", "d"])
        'a, b, c, …'
    """
    first = ", ".join(name.encode("utf-8", "backslashreplace").decode() for name in names[:3])
    return first + (", …" if len(names) > 3 else "")
