"""HDF5 that says what it should not, under a right seal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from featkit.errors import DamagedError, StoreError
from featkit.store.reader import open_store
from featkit.store.verify import verify_store

from .conftest import seal_by_hand

TABLE = "net_b/fc.none.h5"


def far(store: Path) -> Path:
    """A file beside the store, that nobody has named; set back so that reading it is noted."""
    path = store.parent / "far.h5"
    with h5py.File(path, "w") as file:
        file["label"] = np.zeros(12, np.int64)
        file["valid"] = np.ones(12, bool)
        file["path"] = [f"{i}" for i in range(12)]
        file["features"] = np.zeros((12, 5), np.float32)
    os.utime(path, (1, 2))
    return path


def link(file: h5py.File, name: str) -> None:
    file[name] = h5py.ExternalLink("../far.h5", name)


def link_of_table(file: h5py.File, name: str) -> None:
    file[name] = h5py.ExternalLink("../../far.h5", name)


def loop(file: h5py.File, name: str) -> None:
    file[name] = h5py.SoftLink(f"/{name}")


def virtual(file: h5py.File, name: str) -> None:
    layout = h5py.VirtualLayout((12,), "i8")
    layout[:] = h5py.VirtualSource("../far.h5", "label", (12,))
    file.create_virtual_dataset(name, layout)


def elsewhere(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (12,), "i8", external=[("../far.h5", 0, 96)])


def unwritten(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (2**40,), "i8")


def packed(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (2**33,), "i8", chunks=(2**17,), compression="gzip")


def typed(file: h5py.File, name: str) -> None:
    file[name] = np.dtype("f4")


def nothing(file: h5py.File, name: str) -> None:
    file[name] = h5py.Empty("f4")


def group(file: h5py.File, name: str) -> None:
    file.create_group(name)


def data(value: Any, **more: Any) -> Callable[[h5py.File, str], None]:
    return lambda file, name: file.create_dataset(name, data=value, **more) and None


CHANGES = [link, loop, virtual, elsewhere, unwritten, packed, typed, nothing, group]


def put(path: Path, kind: str, name: str, change: Callable[[h5py.File, str], None]) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]
        change(file, name)
    seal_by_hand(path, kind)


def refused(store: Path) -> str:
    with pytest.raises(StoreError) as error:
        [table.numpy() for table in open_store(store).tables()]
    assert str(error.value).isprintable()
    return str(error.value)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["label", "path"])
def test_samples_lie_in_their_file(store: Path, name: str, change: Any) -> None:
    outside = far(store)
    put(store / "samples.h5", "featkit-samples", name, change)
    assert "samples.h5: cannot be read" in refused(store)
    assert outside.stat().st_atime == 1


@pytest.mark.parametrize("change", [link_of_table, *CHANGES[1:]])
@pytest.mark.parametrize("name", ["features", "valid", "failed_row", "failed_reason"])
def test_rows_lie_in_their_file(store: Path, name: str, change: Any) -> None:
    outside = far(store)
    put(store / TABLE, "featkit-table", name, change)
    assert "fc.none.h5: cannot be read" in refused(store)
    assert outside.stat().st_atime == 1
    assert any("cannot be read" in str(check.problems) for check in verify_store(store))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("digest", np.zeros((11, 32), np.uint8), "digest is (11, 32), wanted (12, 32)"),
        ("digest", np.zeros((12, 32), np.int8), "digest is of type int8"),
        ("label", np.full(12, 3), "label counts beyond the classes"),
        ("label", np.full(12, -1), "label counts beyond the classes"),
        ("label", np.zeros((12, 2), np.uint8), "label is (12, 2), wanted (12,) or (12, 3)"),
        ("label", np.zeros(12), "label is of type float64"),
        ("path", np.zeros(24), "path holds no text"),
        ("path", np.array([b"a" * 16] * 12), "path holds no text"),
    ],
)
def test_samples_are_what_they_should_be(store: Path, name: str, value: Any, said: str) -> None:
    put(store / "samples.h5", "featkit-samples", name, data(value))
    assert said in refused(store)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("features", np.zeros((12, 5)), "features is of type float64"),
        ("features", np.zeros(12, np.float32), "features is (12,)"),
        ("valid", np.ones(11, bool), "valid is (11,)"),
        ("failed_row", np.array([99]), "failed_row counts beyond the rows"),
        ("failed_row", np.array([1, 2]), "failed_reason is (1,), wanted (2,)"),
    ],
)
def test_rows_are_what_they_should_be(store: Path, name: str, value: Any, said: str) -> None:
    put(store / TABLE, "featkit-table", name, data(value))
    assert said in refused(store)


@pytest.mark.parametrize("value", [[1, 2], "[]", "null", "[" * 5000, '{"samples": 1}', 3, b"\xff"])
def test_provenance_is_an_object(store: Path, value: Any) -> None:
    with h5py.File(store / TABLE, "r+") as file:
        file.attrs["provenance"] = value
    assert "cannot be read" in refused(store)


@pytest.mark.parametrize(
    ("name", "value"), [("format", [1, 2]), ("version", "x"), ("version", [1])]
)
def test_a_header_of_another_kind(store: Path, name: str, value: Any) -> None:
    with h5py.File(store / "samples.h5", "r+") as file:
        file.attrs[name] = value
    assert "was it put there by hand?" in refused(store)


def test_strings_are_no_longer_than_their_file(store: Path) -> None:
    """A million names that are all one long one would take a thousand times the file."""
    path = store / "samples.h5"
    put(path, "featkit-samples", "path", data(["x" * 9000] * 12, dtype=h5py.string_dtype()))
    with h5py.File(path) as file:
        offset = file["path"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[offset : offset + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(content)
    seal_by_hand(path, "featkit-samples")
    assert "path holds more text than the file" in refused(store)


def test_a_lost_bit_in_the_samples_is_said(store: Path) -> None:
    path = store / "samples.h5"
    with h5py.File(path) as file:
        offset = file["label"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="not the ones that were written"):
        open_store(store)
