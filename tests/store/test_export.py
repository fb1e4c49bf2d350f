"""Exports are read back by the tools that they are for."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from featkit.errors import MissingExtraError, UsageError
from featkit.store import export, files, reader
from featkit.store.reader import Store, open_store

from .conftest import make_samples, make_table


@pytest.fixture
def opened(store: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(export, "ROW_GROUP", 5)
    monkeypatch.setattr(reader, "BLOCK_BYTES", 50)
    return open_store(store)


def test_npz(opened: Store, tmp_path: Path) -> None:
    export.export_tables(opened.samples, opened.tables(), tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["path"].tolist() == list(opened.samples.paths)
        assert arrays["classes"].tolist() == ["ant", "bee", "cow"]
        assert arrays["label"].tolist() == [0, 1, 2] * 4
        for table in opened.tables():
            assert arrays[table.name].dtype == table.dtype
            np.testing.assert_array_equal(arrays[table.name], table.numpy())
            np.testing.assert_array_equal(arrays[f"{table.name}.valid"], table.valid)


def test_parquet(opened: Store, tmp_path: Path) -> None:
    export.export_tables(opened.samples, opened.select("net_b"), tmp_path / "x.parquet")
    frame = pq.read_table(tmp_path / "x.parquet")
    assert frame["path"].to_pylist() == list(opened.samples.paths)
    assert frame["label"].to_pylist() == ["ant", "bee", "cow"] * 4
    rows = frame["net_b/fc.none"].to_pylist()
    assert [i for i, row in enumerate(rows) if row is None] == [7]
    column = np.array([[np.nan] * 5 if row is None else row for row in rows], np.float32)
    np.testing.assert_array_equal(column, opened["net_b/fc"].numpy())


def test_h5(opened: Store, tmp_path: Path) -> None:
    export.export_tables(opened.samples, opened.tables(), tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["samples/path"].asstr()[...].tolist() == list(opened.samples.paths)
        for table in opened.tables():
            np.testing.assert_array_equal(file[f"{table.name}/features"][...], table.numpy())
            np.testing.assert_array_equal(file[f"{table.name}/valid"][...], table.valid)
            assert file[table.name].attrs["key"] == table.key
        assert file.attrs["format"] == "featkit-export"


def test_what_cannot_be_exported_is_said_and_leaves_nothing(
    opened: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError, match=r"use \.npz, \.parquet, \.h5"):
        export.export_tables(opened.samples, opened.tables(), tmp_path / "x.txt")
    with pytest.raises(UsageError, match=r"net_a/layer1\.none.*\.h5 or \.npz"):
        export.export_tables(opened.samples, opened.tables(), tmp_path / "x.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*featkit\[parquet\]"):
        export.export_tables(opened.samples, opened.select("net_b"), tmp_path / "x.parquet")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("n", [1, 3000])
def test_the_space_that_is_reserved_suffices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    sizes = []
    monkeypatch.setattr(files, "reserve_space", lambda _, size: sizes.append(size))
    manifest = make_samples(tmp_path / "store", [0] * n, ["ant"])
    make_table(tmp_path / "store", manifest, "net/fc.none", np.zeros((n, 3), np.float32))
    opened = open_store(tmp_path / "store")
    export.export_tables(opened.samples, opened.tables(), tmp_path / "x.h5")
    assert (tmp_path / "x.h5").stat().st_size <= sizes[0]
