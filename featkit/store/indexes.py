"""``.index/KEY.h5``: what makes searches of a table quick, to be had again by its key.

An index holds no features and decides no numbers but which rows are compared: it can be deleted at
any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from featkit.errors import DamagedError, StoreError
from featkit.store.datasets import Shape, key_of, read_array, read_json, reading
from featkit.store.files import check_seal, explain_write_errors, write_sealed
from featkit.store.fingerprint import Provenance, canonical_json, fingerprint
from featkit.store.schema import INDEX_FOLDER, INDEX_FORMAT, put, write_header

_SAMPLE: dict[str, tuple[Shape, str]] = {
    "sample": ((None,), "<i8"),
    "nearest": ((None, None), "<i8"),
    "similarities": ((None, None), "<f4"),
}
_ARRAYS: dict[str, dict[str, tuple[Shape, str]]] = {
    "ivf": _SAMPLE | {"centroids": ((None, None), "<f4"), "lists": ((None,), "<i4")},
    "hnsw": _SAMPLE | {"levels": ((None,), "<i4"), "links": ((None,), "<i4"), "entry": ((), "<i8")},
}
"""Shape and type of the arrays of each kind."""


def index_file(store: Path, provenance: Provenance) -> Path:
    """Return where the index of a provenance lies."""
    return store / INDEX_FOLDER / f"{fingerprint(provenance)}.h5"


def read_index(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the provenance and the arrays of an index, after its seal has been checked.

    Raises:
        FileNotFoundError: There is none.
        DamagedError: Its bytes are not the ones that were written, or it belongs to another key.
        StoreError: It cannot be read.

    Cost: two reads of the file.
    """
    try:
        check_seal(path, INDEX_FORMAT)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); delete it") from error
    with reading(path, INDEX_FORMAT, "delete it") as file:
        provenance = _provenance(file)
        if fingerprint(provenance) != path.stem:
            raise DamagedError(f"{path}: its key does not belong to its provenance; delete it")
        arrays = _ARRAYS[provenance["kind"]]
        return provenance, {name: read_array(file, name, *of) for name, of in arrays.items()}


def _provenance(file: h5py.File) -> dict[str, Any]:
    """Return the provenance of an open index.

    Raises:
        KeyError: There is none, or it tells of no tables.
        TypeError: They are not named by texts.
    """
    provenance = read_json(file, "provenance")
    tables = provenance["tables"]
    if not isinstance(tables, list) or not all(isinstance(key, str) for key in tables):
        raise TypeError("tables is no list of keys")
    return provenance


def write_index(store: Path, provenance: Provenance, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an index by atomic rename, and delete those of no use. The store's lock is held.

    Args:
        store: The store's folder.
        provenance: All that decides the index; ``tables`` are the keys of what it was made of.
        arrays: By name.

    Raises:
        DiskFullError: The disk is full.
        StoreError: The store cannot be written to.
    """

    def fill(file: h5py.File) -> None:
        write_header(file, INDEX_FORMAT, provenance=canonical_json(provenance))
        for name, array in arrays.items():
            put(file, name, array)

    path = index_file(store, provenance)
    with explain_write_errors("an index of neighbours", store, "nothing else is touched"):
        path.parent.mkdir(exist_ok=True)
        for unused in unused_indexes(store):
            unused.unlink(missing_ok=True)
        write_sealed(path, INDEX_FORMAT, fill)


def index_files(store: Path) -> list[Path]:
    """List the indexes of a store."""
    return sorted((store / INDEX_FOLDER).glob("*.h5"))


def unused_indexes(store: Path) -> list[Path]:
    """List indexes of tables that the store no longer has, and what killed writers have left."""
    files, found = index_files(store), sorted((store / INDEX_FOLDER).glob("*.tmp"))
    keys = {key_of(table) for table in store.glob("[!.]*/*.h5")} if files else set()
    for path in files:
        try:
            with reading(path, INDEX_FORMAT, "delete it") as file:
                made_of = _provenance(file)["tables"]
        except StoreError:
            made_of = [path.stem]  # of no table
        if not keys.issuperset(made_of):
            found.append(path)
    return found
