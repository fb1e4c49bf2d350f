"""Indexes: written as the format says, and never read where a byte has changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

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

ARRAYS = {"lists": np.arange(12, dtype=np.int32) % 3, "entry": np.array(7)}


def described(store: Path, *tables: str) -> dict[str, object]:
    keys = [open_store(store)[name].key for name in tables or ("net_b/fc",)]
    return {"tables": keys, "kind": "ivf", "parameters": {"seed": 0}}


def write(store: Path, *tables: str) -> Path:
    provenance = described(store, *tables)
    with writing(store):
        write_index(store, provenance, ARRAYS)
    return index_file(store, provenance)


def test_an_index_is_what_the_format_says(store: Path) -> None:
    path = write(store)
    text = canonical_json(described(store))
    assert path == store / ".index" / f"{hashlib.sha256(text.encode()).hexdigest()}.h5"
    content = path.read_bytes()
    line = f"featkit-index sha256:{hashlib.sha256(content[512:]).hexdigest()}\n"
    assert content[:512] == line.encode().ljust(512, b"\0")
    with h5py.File(path) as file:
        assert dict(file.attrs) == {"format": "featkit-index", "version": 1, "provenance": text}
        assert set(file) == {"lists", "entry"}
    told, arrays = read_index(path)
    assert told == described(store)
    for name, array in ARRAYS.items():
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
