"""``samples.h5``: which images a store is about, in which order, and their labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featkit.errors import StoreError
from featkit.spec import kind_at
from featkit.store.datasets import find, has, read_array, read_text, read_texts, reading
from featkit.store.files import check_seal, explain_write_errors, make_folder, write_sealed
from featkit.store.schema import SAMPLES_FILE, SAMPLES_FORMAT, put, write_header


@dataclass(frozen=True)
class Samples:
    """The n samples of a store.

    Attributes:
        paths: n unique names, in row order.
        digests: (n, 32) uint8, sha256 of each sample's content.
        labels: (n,) int64 indices into ``classes``, or (n, k) uint8 for several labels a sample,
            or None.
        classes: Names of the k classes, or None.
        source: The source as the user wrote it.
        stamps: (n, 2) int64, size and modification time in ns of each file when it was hashed, or
            None; they only save hashing again.
    """

    paths: Sequence[str]
    digests: NDArray[np.uint8]
    labels: NDArray[Any] | None = None
    classes: tuple[str, ...] | None = None
    source: str = ""
    stamps: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def manifest(self) -> str:
        """The sha256 over every name and content, in order: the identity of the set of images."""
        digest = hashlib.sha256()
        for path, content in zip(self.paths, self.digests, strict=True):
            digest.update(path.encode("utf-8", "surrogateescape") + b"\0" + content.tobytes())
        return digest.hexdigest()

    def same_labels(self, other: Samples) -> bool:
        """Whether both give the same labels with the same class names."""
        if self.labels is None or other.labels is None:
            return self.labels is other.labels
        return self.classes == other.classes and np.array_equal(self.labels, other.labels)


def write_samples(store: Path, samples: Samples) -> None:
    """Write ``samples.h5`` by atomic rename."""

    def fill(file: h5py.File) -> None:
        write_header(file, SAMPLES_FORMAT, manifest=samples.manifest, source=samples.source)
        put(file, "path", list(samples.paths), text=True)
        put(file, "digest", samples.digests)
        if samples.labels is not None:
            put(file, "label", samples.labels)
        if samples.classes is not None:
            put(file, "classes", list(samples.classes), text=True)
        if samples.stamps is not None:
            put(file, "stamp", samples.stamps)

    with explain_write_errors("the list of samples", store):
        make_folder(store)
        write_sealed(store / SAMPLES_FILE, SAMPLES_FORMAT, fill)


def read_samples(store: Path) -> Samples:
    """Read ``samples.h5``, and see that its bytes are those that were written.

    Raises:
        StoreError: The folder is not a store, or the file cannot be read or is damaged.

    Cost: two reads of the file, of some 130 bytes a sample.
    """
    path = store / SAMPLES_FILE
    if kind_at(path) != "file":
        for outer in store.parents[:2]:
            if kind_at(outer / SAMPLES_FILE) == "file":
                raise StoreError(
                    f"{store}: a part of the store {outer}, not a store; give {outer}, "
                    f"{outer}:BACKBONE or {outer}:BACKBONE/TAP"
                )
        raise StoreError(
            f"{store}: not a featkit store (no {SAMPLES_FILE} in it); "
            f"make one with featkit extract SOURCE -b BACKBONE -o {store}"
        )
    with reading(path, SAMPLES_FORMAT, "delete it and extract again") as file:
        paths = read_texts(path, file, "path")
        n = len(paths)
        classes = read_texts(path, file, "classes") if has(file, "classes") else None
        check_seal(path, SAMPLES_FORMAT)
        return Samples(
            paths=paths,
            digests=read_array(file, "digest", (n, 32), "u1"),
            labels=_read_labels(file, n, classes),
            classes=classes,
            source=read_text(file, "source"),
            stamps=read_array(file, "stamp", (n, 2), "i8") if has(file, "stamp") else None,
        )


def _read_labels(file: h5py.File, n: int, classes: tuple[str, ...] | None) -> NDArray[Any] | None:
    if not has(file, "label"):
        return None
    several = (n, None if classes is None else len(classes))
    if find(file, "label", (n,), several).ndim == 2:
        return read_array(file, "label", several, "u1")
    labels = read_array(file, "label", (n,), "i8")
    if classes is not None and n and not 0 <= labels.min() <= labels.max() < len(classes):
        raise ValueError("label counts beyond the classes")
    return labels
