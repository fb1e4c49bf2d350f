"""Which labels belong to which image."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

from featkit.data.files import file_digest, shown
from featkit.errors import SourceError

T = TypeVar("T")


class Pairing(Generic[T]):
    """Labels of images, found by the image's path without its extension, or else by its stem.

    Args:
        name: Of the source, for messages.
        items: Labels by path, relative and without extension.

    Example:
        >>> pairing = Pairing("masks:m", {"a/0": "A", "a/1": "B", "b/1": "C"})
        >>> pairing["x/0.jpg"], pairing["b/1.jpg"]
        ('A', 'C')
    """

    def __init__(self, name: str, items: Mapping[str, T]) -> None:
        self.name = name
        self.items = dict(sorted(items.items()))
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for path in self.items:
            self._by_stem[PurePosixPath(path).name].append(path)

    def __getitem__(self, sample: str) -> T:
        return self.items[self._key(sample)]

    def check(self, samples: Sequence[str]) -> None:
        """Refuse images without labels, and two images with the same ones.

        Raises:
            SourceError: With the names of the first few.
        """
        owners: dict[str, str] = {}
        missing = []
        for sample in samples:
            try:
                key = self._key(sample)
            except _NoLabelsError:
                missing.append(sample)
                continue
            if key in owners:
                raise SourceError(
                    f"{self.name!r}: {shown([owners[key], sample])} would share the labels of "
                    f"{key}; lay the label maps out in the folders of the images"
                )
            owners[key] = sample
        if missing:
            raise SourceError(
                f"{self.name!r} has no labels for {len(missing)} of {len(samples)} images "
                f"({shown(missing)}); give only images that have them (a CSV table path[,label] "
                f"can list them)"
            )

    def _key(self, sample: str) -> str:
        path = PurePosixPath(sample)
        key = str(path.with_suffix("")) if path.suffix else sample
        if key in self.items:
            return key
        alike = self._by_stem.get(path.stem, [])
        if not alike:
            raise _NoLabelsError(
                f"{self.name!r} has no labels for {shown([sample])}; they are found by its name "
                f"without the extension"
            )
        if len(alike) > 1:
            raise SourceError(
                f"{self.name!r} has {len(alike)} label maps for {shown([sample])} "
                f"({shown(alike)}); lay them out in the folders of the images"
            )
        return alike[0]


class _NoLabelsError(SourceError):
    """An image has no labels."""


def files_under(folder: Path, suffix: str) -> Iterator[str]:
    """List the files of a folder and its subfolders as relative POSIX paths, hidden ones left out.

    Args:
        folder: Links are followed.
        suffix: How names end, in any case.

    Raises:
        SourceError: A folder cannot be listed.
    """
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        raise SourceError(f"{error.filename} cannot be listed: {error.strerror}") from error

    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders[:] = []
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        relative = Path(place).relative_to(folder).as_posix()
        for name in sorted(names):
            if name.lower().endswith(suffix) and not name.startswith("."):
                yield name if relative == "." else f"{relative}/{name}"


def manifest_digest(files: Iterable[tuple[str, Path]]) -> str:
    """Return the sha256 over the names and contents of files, in the order given.

    Cost: one pass over the files.
    """
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0" + file_digest(path))
    return digest.hexdigest()
