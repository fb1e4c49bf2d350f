"""What is read of an HDF5 file: only what lies in it, and no more than it has bytes for.

HDF5 can say that numbers lie in other files, are computed, packed, or were never written and fill
any amount of memory. The files of a store have none of that, and a reader that followed it would
read what nobody named.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from featkit.documents import parse_json
from featkit.errors import StoreError, one_line
from featkit.store.schema import TABLE_FORMAT, check_header

DAMAGES = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError)
"""What h5py raises on files that are not as they should be."""

Shape: TypeAlias = tuple[int | None, ...]

_ON_DISK = np.dtype([("length", "<u4"), ("place", "V12")])
"""A string in a dataset of strings: its length, and where its bytes lie."""


@contextmanager
def reading(path: Path, kind: str, advice: str) -> Iterator[h5py.File]:
    """Open a file of a known kind, and turn whatever reading it raises into one error.

    Args:
        path: The file.
        kind: Its format name.
        advice: What the user should do where it cannot be read.

    Raises:
        StoreError: It is of another kind or a newer version, or cannot be read as one of this.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            check_header(file, kind, path)
            yield file
    except PermissionError as error:
        raise StoreError(f"{path}: you may not read it") from error
    except DAMAGES as error:
        raise StoreError(f"{path}: cannot be read ({one_line(error, 200)}); {advice}") from error


def has(file: h5py.File, name: str) -> bool:
    """Return whether there is something of a name, without looking where a link leads."""
    return bool(file.id.links.exists(name.encode()))


def find(file: h5py.File, name: str, *shapes: Shape) -> h5py.Dataset:
    """Return a dataset whose bytes lie in one piece in the file.

    Args:
        file: Open.
        name: Of the dataset.
        shapes: Those that it may have, None for any size.

    Raises:
        KeyError: It is not there.
        TypeError: It is a link.
        ValueError: It is something else, or of another shape.
    """
    if not has(file, name):
        raise KeyError(f"no {name}")
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise TypeError(f"{name} is a link to something else")
    found = file[name]
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise ValueError(f"{name} is no array")
    if not any(_fits(found.shape, shape) for shape in shapes):
        wanted = " or ".join(str(shape).replace("None", "any") for shape in shapes)
        raise ValueError(f"{name} is {found.shape}, wanted {wanted}")
    layout = found.id.get_create_plist()
    is_plain = layout.get_layout() == h5py.h5d.CONTIGUOUS and not layout.get_external_count()
    bytes_each = _ON_DISK.itemsize if h5py.check_string_dtype(found.dtype) else found.dtype.itemsize
    stored, size = found.id.get_storage_size(), found.size * bytes_each
    if not is_plain or size > stored or stored > file.id.get_filesize():
        raise ValueError(f"{name} does not lie in the file in one piece")
    return found


def _fits(found: tuple[int, ...], wanted: Shape) -> bool:
    return len(found) == len(wanted) and all(
        want in (None, size) for size, want in zip(found, wanted, strict=True)
    )


def read_array(file: h5py.File, name: str, shape: Shape, dtype: str) -> NDArray[Any]:
    """Read an array of numbers.

    Raises:
        KeyError: It is not there.
        ValueError: It is of another shape or type.
    """
    found = find(file, name, shape)
    if found.dtype != np.dtype(dtype):
        raise ValueError(f"{name} is of type {found.dtype}, wanted {dtype}")
    array: NDArray[Any] = found[...]
    return array


def read_texts(path: Path, file: h5py.File, name: str, count: int | None = None) -> tuple[str, ...]:
    """Read an array of strings, (n).

    Args:
        path: Of the file.
        file: Open.
        name: Of the array.
        count: Wanted number of strings; None for any.

    Raises:
        KeyError: It is not there.
        ValueError: It is no array of strings, or its strings are longer than the file.
    """
    found = find(file, name, (count,))
    told = h5py.check_string_dtype(found.dtype)
    if told is None or told.length is not None:
        raise ValueError(f"{name} holds no text")
    if not found.size:
        return ()
    lengths = np.memmap(path, _ON_DISK, "r", found.id.get_offset(), found.shape)["length"]
    if int(lengths.sum(dtype=np.int64)) > file.id.get_filesize():
        raise ValueError(f"{name} holds more text than the file")
    return tuple(found.asstr()[...].tolist())


def read_text(file: h5py.File, name: str) -> str:
    """Read a root attribute that is text.

    Raises:
        KeyError: It is not there.
        TypeError: It is no text.
        ValueError: It is text that is no UTF-8.
    """
    if file.attrs.get_id(name).shape != ():
        raise TypeError(f"the attribute {name} is no single text")
    value = file.attrs[name]
    if not isinstance(value, str):
        raise TypeError(f"the attribute {name} is no text")
    value.encode("utf-8")  # what is no UTF-8 comes as surrogates
    return value


def read_json(file: h5py.File, name: str) -> dict[str, Any]:
    """Read a root attribute that is a JSON object.

    Raises:
        KeyError: It is not there.
        TypeError: It is text of something else, or no text.
        ValueError: It is no JSON.
    """
    value = parse_json(read_text(file, name))
    if not isinstance(value, dict):
        raise TypeError(f"the attribute {name} is {json.dumps(value)[:60]}, wanted an object")
    return value


def read_failures(path: Path, file: h5py.File, rows: range) -> dict[int, str]:
    """Return the reason of failure by row, from an open table or part.

    Args:
        path: Of the file.
        file: Open.
        rows: Those that it holds.

    Raises:
        KeyError: The file lacks them.
        ValueError: They are something else.
    """
    failed = read_array(file, "failed_row", (None,), "i8").tolist()
    if any(row not in rows for row in failed):
        raise ValueError("failed_row counts beyond the rows")
    return dict(zip(failed, read_texts(path, file, "failed_reason", len(failed)), strict=True))


def find_features(file: h5py.File) -> h5py.Dataset:
    """Return the rows of an open table or part: (n, d), (n, t, d) or (n, c, h, w).

    Raises:
        KeyError: The file lacks them.
        ValueError: They are something else.
    """
    found = find(file, "features", (None,) * 2, (None,) * 3, (None,) * 4)
    if found.dtype not in (np.dtype("<f4"), np.dtype("<f2")):
        raise ValueError(f"features is of type {found.dtype}, wanted float32 or float16")
    return found


def key_of(path: Path) -> str | None:
    """Return the key of a table; None if the file cannot be read."""
    try:
        with reading(path, TABLE_FORMAT, "") as file:
            return read_text(file, "key")
    except StoreError:
        return None
