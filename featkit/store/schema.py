"""Names and numbers of the store format; ARCHITECTURE.md is the normative text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featkit.errors import StoreError, UsageError, one_line

FORMAT_VERSION = 1
SAMPLES_FORMAT = "featkit-samples"
TABLE_FORMAT = "featkit-table"
PART_FORMAT = "featkit-part"
INDEX_FORMAT = "featkit-index"

SAMPLES_FILE = "samples.h5"
RUNS_FILE = "runs.jsonl"
PARTIAL_FOLDER = ".partial"
INDEX_FOLDER = ".index"
LOCK_FILE = ".lock"

LIBVER = ("v110", "v110")
"""Oldest HDF5 that reads the files; fixed, so that equal contents are equal bytes."""

_SLUG = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def is_slug(name: str) -> bool:
    """Say whether a name can be part of a file name.

    Example:
        >>> is_slug("resnet50"), is_slug("../x"), is_slug("")
        (True, False, False)
    """
    return _SLUG.fullmatch(name) is not None


def check_slug(name: str, what: str) -> str:
    """Return ``name`` if it can be part of a file name.

    Args:
        name: Letters, digits, ``.``, ``_`` and ``-``, not starting with a dot.
        what: What the name is for, for the message.

    Raises:
        UsageError: It cannot.

    Example:
        >>> check_slug("resnet50", "backbone name")
        'resnet50'
        >>> check_slug("../x", "backbone name")
        Traceback (most recent call last):
        featkit.errors.UsageError: backbone name '../x': use letters, digits, '.', '_' and '-' \
(as in -b mine=SPEC)
    """
    if not is_slug(name):
        raise UsageError(
            f"{what} {name!r}: use letters, digits, '.', '_' and '-' (as in -b mine=SPEC)"
        )
    return name


def table_file(backbone: str, tap: str, pooling: str) -> Path:
    """Return where a table lies inside its store.

    Example:
        >>> table_file("resnet50", "layer4", "avg").as_posix()
        'resnet50/layer4.avg.h5'
    """
    check_slug(backbone, "backbone name")
    check_slug(tap, "tap")
    return Path(backbone) / f"{tap}.{pooling}.h5"


def write_header(file: h5py.File, kind: str, **attributes: Any) -> None:
    """Write the attributes that every file of a store carries at its root."""
    file.attrs["format"] = kind
    file.attrs["version"] = FORMAT_VERSION
    for name, value in attributes.items():
        file.attrs[name] = value if isinstance(value, str | int) else json.dumps(value)


def put(file: h5py.File, name: str, data: Any, text: bool = False) -> None:
    """Write one dataset without the time of writing, so that equal contents are equal bytes."""
    dtype = h5py.string_dtype() if text else None
    file.create_dataset(name, data=data, dtype=dtype, track_times=False)


def structure_bytes(datasets: int, texts: Iterable[str]) -> int:
    """Return what HDF5 needs at most beside the numbers of some datasets.

    Args:
        datasets: How many, each with a group of its own.
        texts: Attributes, and elements of datasets.

    Example:
        >>> structure_bytes(2, ["a name"])
        131156
    """
    return 2**16 * datasets + sum(
        2 * (len(text.encode("utf-8", "surrogatepass")) + 36) for text in texts
    )


def check_header(file: h5py.File, kind: str, path: Path) -> None:
    """Refuse a file that is something else, or newer than this reader.

    Raises:
        StoreError: It is.
    """
    found = file.attrs.get("format")
    if not isinstance(found, str) or found != kind:
        raise StoreError(
            f"{path}: not a {kind} file (format {one_line(found, 60)}); was it put there by hand?"
        )
    version = file.attrs.get("version")
    if not isinstance(version, np.integer):
        raise StoreError(f"{path}: says no version of its format; was it put there by hand?")
    if version > FORMAT_VERSION:
        raise StoreError(
            f"{path}: written in format version {version}, this featkit reads up to "
            f"{FORMAT_VERSION}; upgrade featkit"
        )
