"""Stores that were written by hand are read; damage and foreign files are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from featkit.errors import SelectorError, StoreError
from featkit.store.reader import open_store
from featkit.store.runs import log_run, read_runs
from featkit.store.selectors import match_tables, split_selector

from .conftest import make_samples, make_table, seal_by_hand


def test_tables_come_in_the_order_in_which_they_were_asked_for(store: Path) -> None:
    names = [table.name for table in open_store(store).tables()]
    assert names == ["net_a/layer1.none", "net_b/fc.none", "net_b/layer1.avg"]
    log_run(store, "started", ["net_b/layer1.avg", "net_a/layer1.none"])
    with (store / "runs.jsonl").open("a") as file:
        file.write('{"tables": ["net_a')
    names = [table.name for table in open_store(store).tables()]
    assert names == ["net_b/layer1.avg", "net_a/layer1.none", "net_b/fc.none"]
    assert len(read_runs(store)) == 1


def test_a_table_shows_what_the_file_holds(store: Path) -> None:
    opened = open_store(store)
    table = opened["net_b/fc"]
    with h5py.File(store / "net_b" / "fc.none.h5") as file:
        np.testing.assert_array_equal(table.numpy(), file["features"][...])
        assert table.key == file.attrs["key"]
    assert table.shape == (12, 5)
    assert len(table) == len(opened) == 12
    assert table.labels is not None
    assert table.labels.tolist() == [0, 1, 2] * 4
    assert table.classes == ("ant", "bee", "cow")
    assert table.paths[3] == "0003.png"
    assert np.flatnonzero(~table.valid).tolist() == [7]
    assert opened["net_a"].dtype == np.float16
    assert "net_b/fc.none" in repr(table)


def test_writing_to_the_array_leaves_the_file_alone(store: Path) -> None:
    before = (store / "net_b" / "fc.none.h5").read_bytes()
    table = open_store(store)["net_b/fc"]
    with pytest.raises(ValueError, match="read-only"):
        table.numpy()[:] = 1
    rows = table.torch()
    rows[:] = 1
    assert (rows == 1).all()
    assert (store / "net_b" / "fc.none.h5").read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="needs sparse files, and a bound on memory")
def test_a_table_may_be_larger_than_the_memory(store: Path) -> None:
    """Its file is a hole; of a map that could be written to, Linux would want the memory."""
    floats = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    path = make_table(store, open_store(store).samples.manifest, "net_c/x.avg", np.zeros((12, 1)))
    with h5py.File(path, "r+") as file:
        del file["features"]
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        shape = h5py.h5s.create_simple((12, floats))
        h5py.h5d.create(file.id, b"features", h5py.h5t.IEEE_F32LE, shape, layout)
    table = open_store(store)["net_c"]
    assert table.numpy()[11, -3:].tolist() == [0, 0, 0]
    assert next(table.blocks())[1].shape == (1, floats)


def test_batches_visit_every_row_once(store: Path) -> None:
    table = open_store(store)["net_b/layer1"]
    whole = table.numpy()
    plain = list(table.batches(5))
    assert [len(rows) for rows, _ in plain] == [5, 5, 2]
    shuffled = list(table.batches(5, shuffle=True, seed=3))
    visited = np.concatenate([rows for rows, _ in shuffled])
    assert sorted(visited) == list(range(12))
    assert visited.tolist() != list(range(12))
    for rows, features in plain + shuffled:
        np.testing.assert_array_equal(features, whole[rows])
    again = np.concatenate([rows for rows, _ in table.batches(5, shuffle=True, seed=3)])
    other = np.concatenate([rows for rows, _ in table.batches(5, shuffle=True, seed=4)])
    assert visited.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        (None, ["net_a/layer1.none", "net_b/fc.none", "net_b/layer1.avg"]),
        ("net_b", ["net_b/fc.none", "net_b/layer1.avg"]),
        ("net_b/layer1", ["net_b/layer1.avg"]),
        ("net_a/layer1.none", ["net_a/layer1.none"]),
    ],
)
def test_selectors(store: Path, pattern: str | None, found: list[str]) -> None:
    assert [table.name for table in open_store(store).select(pattern)] == found


def test_selectors_that_fail_list_what_is_there(store: Path) -> None:
    opened = open_store(store)
    with pytest.raises(SelectorError, match=r"did you mean .*net_b/fc\.none"):
        opened["net_b/fx"]
    with pytest.raises(SelectorError, match=r"2 tables match.*net_b/fc\.none, net_b/layer1\.avg"):
        opened["net_b"]


def test_of_many_tables_none_like_it_the_list_is_named() -> None:
    names = [f"resnet{n}/avgpool.avg" for n in range(20)]
    with pytest.raises(SelectorError, match=r"^s:vgg: .*; featkit ls s lists the 20 that are"):
        match_tables(names, "vgg", "s")
    with pytest.raises(SelectorError, match="^s:vgg: no such table; there is resnet0, resnet0/avg"):
        match_tables(names[:1], "vgg", "s")


@pytest.mark.parametrize(
    "part", ["samples.h5", "net_b", "net_b/fc.none.h5", "net_b/fc", "net_c", "net_c/x.h5"]
)
def test_a_part_of_a_store_names_the_store(store: Path, part: str) -> None:
    with pytest.raises(StoreError) as refused:
        open_store(store / part)
    assert str(refused.value) == (
        f"{store / part}: a part of the store {store}, not a store; give {store}, "
        f"{store}:BACKBONE or {store}:BACKBONE/TAP"
    )


def test_a_folder_with_a_colon_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    assert split_selector(str(tmp_path / "a:b")) == (tmp_path / "a:b", None)
    assert split_selector(f"{tmp_path}/a:b:net") == (tmp_path / "a:b", "net")


def test_other_files_and_newer_formats_are_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a featkit store"):
        open_store(tmp_path)
    path = store / "net_b" / "fc.none.h5"
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 2
    with pytest.raises(StoreError, match="format version 2.*upgrade"):
        open_store(store)["net_b/fc"]
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = "other"
    with pytest.raises(StoreError, match="not a featkit-table"):
        open_store(store)["net_b/fc"]
    path.write_bytes(b"no hdf5 at all")
    with pytest.raises(StoreError, match="cannot be read"):
        open_store(store)["net_b/fc"]
    (store / "samples.h5").write_bytes(b"no hdf5 at all")
    with pytest.raises(StoreError, match="cannot be read"):
        open_store(store)


def test_a_table_of_another_length_is_refused(store: Path) -> None:
    make_table(store, "m", "net_c/fc.none", np.zeros((5, 2), np.float32))
    with pytest.raises(StoreError, match="5 rows.*12 samples"):
        open_store(store)["net_c"]


def test_four_processes_read_at_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((4000, 64)).astype(np.float32)
    manifest = make_samples(tmp_path / "s", np.zeros(4000), ["one"])
    make_table(tmp_path / "s", manifest, "net/fc.none", features)
    code = (
        "import featkit, sys\n"
        f"table = featkit.open_store({str(tmp_path / 's')!r})['net']\n"
        "print('open', flush=True); sys.stdin.readline()\n"
        "print(sum(float(x.sum()) for _, x in table.batches(100, shuffle=True)))"
    )
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    assert [r.stdout.readline() for r in readers if r.stdout] == ["open\n"] * 4
    totals = [float(reader.communicate("\n")[0]) for reader in readers]
    np.testing.assert_allclose(totals, features.sum(dtype=np.float64), rtol=1e-4)


def test_sealed_by_hand_is_sealed(store: Path) -> None:
    path = store / "net_b" / "fc.none.h5"
    before = path.read_bytes()
    seal_by_hand(path, "featkit-table")
    assert path.read_bytes() == before
