"""Indexes: written as the format says, and never read where a byte has changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from featkit.errors import StoreError
from featkit.store.fingerprint import canonical_json
from featkit.store.indexes import index_file, index_files, read_index, unused_indexes, write_index
from featkit.store.reader import open_store
from featkit.store.verify import verify_store
from featkit.store.writer import remains, sweep, writing

from .conftest import make_table, seal_by_hand
from .test_datasets import CHANGES, data, far, link_of_table, put

SAMPLE = {
    "sample": np.arange(12),
    "nearest": np.ones((12, 11), np.int64),
    "similarities": np.ones((12, 11), np.float32),
}
ARRAYS = {
    "ivf": SAMPLE
    | {"centroids": np.eye(3, 5, dtype=np.float32), "lists": np.arange(12, dtype=np.int32) % 3},
    "hnsw": SAMPLE
    | {
        "levels": np.ones(12, np.int32),
        "links": np.zeros(12 * 64, np.int32),
        "entry": np.array(7),
    },
}


def described(store: Path, *tables: str, kind: str = "ivf") -> dict[str, Any]:
    keys = [open_store(store)[name].key for name in tables or ("net_b/fc",)]
    return {"tables": keys, "kind": kind, "parameters": {"seed": 0}}


def write(store: Path, *tables: str, kind: str = "ivf") -> Path:
    provenance = described(store, *tables, kind=kind)
    with writing(store):
        write_index(store, provenance, ARRAYS[kind])
    return index_file(store, provenance)


def retell(path: Path, provenance: str) -> Path:
    """Let an index say another provenance, under the key and the seal that belong to it."""
    key = hashlib.sha256(provenance.encode()).hexdigest()
    other = path.rename(path.with_name(f"{key}.h5"))
    with h5py.File(other, "r+") as file:
        file.attrs["provenance"] = provenance
    seal_by_hand(other, "featkit-index")
    return other


def said_of(path: Path) -> str:
    """Return why an index is not read, which ``featkit verify`` says too."""
    with pytest.raises(StoreError) as error:
        read_index(path)
    problems = [check.problems for check in verify_store(path.parents[1])][-1]
    assert problems == (str(error.value),)
    return str(error.value)


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_index_is_what_the_format_says(store: Path, kind: str) -> None:
    path = write(store, kind=kind)
    text = canonical_json(described(store, kind=kind))
    assert path == store / ".index" / f"{hashlib.sha256(text.encode()).hexdigest()}.h5"
    content = path.read_bytes()
    line = f"featkit-index sha256:{hashlib.sha256(content[512:]).hexdigest()}\n"
    assert content[:512] == line.encode().ljust(512, b"\0")
    with h5py.File(path) as file:
        assert dict(file.attrs) == {"format": "featkit-index", "version": 1, "provenance": text}
        assert set(file) == set(ARRAYS[kind])
    told, arrays = read_index(path)
    assert told == described(store, kind=kind)
    assert set(arrays) == set(ARRAYS[kind])
    for name, array in ARRAYS[kind].items():
        np.testing.assert_array_equal(arrays[name], array)


def test_no_flipped_bit_is_read(store: Path) -> None:
    path = write(store)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [0, 40, *rng.integers(0, len(whole), 25)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        with pytest.raises(StoreError):
            read_index(path)
        wrong = {check.name for check in verify_store(store) if check.problems}
        assert wrong == {f".index/{path.name}"}
    path.write_bytes(whole[:-1])
    with pytest.raises(StoreError, match="its bytes are not the ones that were written"):
        read_index(path)


def test_an_index_under_another_name_or_of_another_format(store: Path) -> None:
    path = write(store)
    other = path.with_name("0" * 64 + ".h5")
    path.rename(other)
    with pytest.raises(StoreError, match="its key does not belong to its provenance; delete it"):
        read_index(other)
    with h5py.File(other, "r+") as file:
        file.attrs["version"] = 2
    seal_by_hand(other, "featkit-index")
    with pytest.raises(StoreError, match="format version 2"):
        read_index(other)
    with pytest.raises(FileNotFoundError):
        read_index(path)


@pytest.mark.parametrize("change", [link_of_table, *CHANGES[1:]])
@pytest.mark.parametrize(
    ("kind", "name"), [("ivf", "sample"), ("ivf", "centroids"), ("hnsw", "entry")]
)
def test_arrays_lie_in_their_file(store: Path, kind: str, name: str, change: Any) -> None:
    path, outside = write(store, kind=kind), far(store)
    put(path, "featkit-index", name, change)
    assert "cannot be read" in said_of(path)
    assert outside.stat().st_atime == 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("nearest", np.zeros(12, np.int64), "nearest is (12,), wanted (any, any)"),
        ("similarities", np.zeros((12, 11)), "similarities is of type float64"),
        ("lists", np.zeros(12, np.int64), "lists is of type int64"),
    ],
)
def test_arrays_are_what_they_should_be(store: Path, name: str, value: Any, said: str) -> None:
    path = write(store)
    put(path, "featkit-index", name, data(value))
    assert said in said_of(path)


def test_other_arrays_are_not_read(store: Path) -> None:
    path, outside = write(store), far(store)
    with h5py.File(path, "r+") as file:
        link_of_table(file, "features")
    seal_by_hand(path, "featkit-index")
    assert set(read_index(path)[1]) == set(ARRAYS["ivf"])
    assert outside.stat().st_atime == 1


@pytest.mark.parametrize(
    "provenance",
    ['{"tables": [[1]]}', '{"tables": 3}', '{"tables": null}', "{}", "[]", "null", "{",
     '{"tables": [], "kind": ' + "[" * 6000 + "]" * 6000 + "}",
     '{"kind":"lsh","tables":[]}', '{"kind":["ivf"],"tables":[]}', '{"tables":[]}'],
)  # fmt: skip
def test_provenance_names_tables_and_a_kind(store: Path, provenance: str) -> None:
    path = retell(write(store), provenance)
    assert "cannot be read" in said_of(path)
    assert path in remains(store) or '"tables":[]' in provenance


def test_the_key_is_looked_at_before_the_arrays(store: Path) -> None:
    path = write(store)
    put(path, "featkit-index", "lists", CHANGES[-1])
    with pytest.raises(StoreError, match="its key does not belong to its provenance"):
        read_index(path.rename(path.with_name("0" * 64 + ".h5")))


def test_a_store_with_an_index_is_as_before(store: Path) -> None:
    before = [table.name for table in open_store(store).tables()]
    path = write(store)
    assert [table.name for table in open_store(store).tables()] == before
    checks = list(verify_store(store))
    assert [check.name for check in checks][-1] == f".index/{path.name}"
    assert not any(check.problems for check in checks)
    assert remains(store) == []


def test_indexes_of_tables_that_are_gone_are_swept(store: Path) -> None:
    stays, goes = write(store, "net_b/layer1"), write(store, "net_b/fc", "net_b/layer1")
    assert index_files(store) == sorted([stays, goes])
    assert unused_indexes(store) == []
    manifest = open_store(store).samples.manifest
    make_table(store, manifest, "net_b/fc.none", np.ones((12, 5), np.float32), weights="new")
    left = stays.with_name("killed.h5.tmp")
    left.write_bytes(b"half")
    assert set(remains(store)) == {goes, left}
    with writing(store):
        sweep(store, ())
    assert index_files(store) == [stays]
    assert not left.exists()
    broken = stays.with_name("1" * 64 + ".h5")
    broken.write_bytes(b"no HDF5")
    write(store, "net_a/layer1")
    assert not broken.exists()
    assert len(index_files(store)) == 2


def test_provenance_is_json(store: Path) -> None:
    with h5py.File(write(store)) as file:
        assert json.loads(file.attrs["provenance"])["kind"] == "ivf"
