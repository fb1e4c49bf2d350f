"""Parts become tables; h5py alone reads them back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from featkit.errors import StoreError
from featkit.store.fingerprint import differences
from featkit.store.plans import PartPlan, unfinished_tables
from featkit.store.reader import open_store
from featkit.store.samples import Samples, write_samples
from featkit.store.verify import verify_store
from featkit.store.writer import PartialTable, TableSpec, writing

ROWS = 23
PLAN = PartPlan(batch_size=4, part_rows=8, compiled=False)


def samples() -> Samples:
    return Samples([f"{i}.png" for i in range(ROWS)], np.zeros((ROWS, 32), np.uint8), source="x")


def spec(shape: tuple[int, ...] = (6,), dtype: str = "float32") -> TableSpec:
    provenance = {"samples": samples().manifest, "precision": "fp32", "shape": list(shape)}
    return TableSpec("net", "fc", "none", "net", provenance, ROWS, shape, dtype)


def write_all(store: Path, table: PartialTable, features: np.ndarray, order: list[int]) -> Path:
    write_samples(store, samples())
    table.begin()
    for part in order:
        rows = table.rows_of(part)
        valid = np.array([row != 9 for row in rows])
        failures = {9: "truncated"} if 9 in rows else {}
        table.write(part, features[rows.start : rows.stop], valid, failures)
    return table.finish()


@pytest.mark.parametrize(("shape", "dtype"), [((6,), "float32"), ((2, 3, 3), "float16")])
def test_h5py_reads_what_was_written(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    features = np.random.default_rng(0).standard_normal((ROWS, *shape)).astype(dtype)
    features[9] = np.nan
    partial = PartialTable(tmp_path, spec(shape, dtype), PLAN)
    path = write_all(tmp_path, partial, features, [0, 1, 2])
    assert path == tmp_path / "net" / "fc.none.h5"
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["features"][...], features)
        assert file["features"].chunks is None
        assert file["valid"][...].tolist() == [row != 9 for row in range(ROWS)]
        assert file["failed_row"][...].tolist() == [9]
        assert json.loads(file.attrs["provenance"]) == spec(shape).provenance
    table = open_store(tmp_path)["net"]
    np.testing.assert_array_equal(table.numpy(), features)
    np.testing.assert_array_equal(np.asarray(table), features)
    np.testing.assert_array_equal(table.torch().numpy(), features)
    assert table.failures == {9: "truncated"}
    assert not (tmp_path / ".partial" / spec(shape).key).exists()
    assert [check.problems for check in verify_store(tmp_path)] == [(), ()]


def test_bytes_do_not_depend_on_the_order_of_parts_or_the_time(tmp_path: Path) -> None:
    features = np.random.default_rng(0).standard_normal((ROWS, 6)).astype(np.float32)
    features[9] = np.nan
    files = []
    for name, order in (("a", [0, 1, 2]), ("b", [2, 0, 1])):
        store = tmp_path / name
        files.append(write_all(store, PartialTable(store, spec(), PLAN), features, order))
        time.sleep(1.1)  # HDF5 keeps times in seconds
    assert files[0].read_bytes() == files[1].read_bytes()


def test_unfinished_tables_are_listed_and_damaged_parts_made_again(tmp_path: Path) -> None:
    table = PartialTable(tmp_path, spec(), PLAN)
    table.begin()
    for part in (0, 2):
        size = len(table.rows_of(part))
        table.write(part, np.zeros((size, 6), np.float32), np.ones(size, bool), {})
    assert table.missing() == [1]
    listed = unfinished_tables(tmp_path)
    assert [(u.name, u.rows_done, u.rows, u.plan) for u in listed] == [
        ("net/fc.none", 16, ROWS, PLAN)
    ]
    part = table.folder / "part-000000.h5"
    damaged = bytearray(part.read_bytes())
    damaged[-1] ^= 1
    part.write_bytes(bytes(damaged))
    assert table.missing() == [0, 1]
    (table.folder / "plan.json").write_text("{")
    assert unfinished_tables(tmp_path) == []


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    code = (
        "from featkit.store.writer import writing; from featkit.errors import StoreError\n"
        f"try:\n with writing(__import__('pathlib').Path({str(tmp_path)!r})): print('in')\n"
        "except StoreError as e: print(e)"
    )
    run = [sys.executable, "-c", code]
    with writing(tmp_path):
        other = subprocess.run(run, capture_output=True, text=True, check=True)
        assert "another process is writing" in other.stdout
    other = subprocess.run(run, capture_output=True, text=True, check=True)
    assert other.stdout == "in\n"


def test_an_unwritable_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose a folder"), writing(tmp_path / "file"):
        pass


def test_differences_name_every_field_that_changed() -> None:
    old = {"backbone": {"weights": "a" * 64, "architecture": "x"}, "tap": "fc", "gone": 1}
    new = {"backbone": {"weights": "b" * 64, "architecture": "x"}, "tap": "fc", "new": True}
    assert differences(old, new) == [
        "backbone.weights: aaaaaaaaaaaa… there, bbbbbbbbbbbb… asked",
        "gone: 1 there, null asked",
        "new: null there, true asked",
    ]
    assert differences(old, old) == []
