"""``plan.json`` and ``runs.jsonl`` that a disk or a hand has changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from featkit.store.fingerprint import signed_json
from featkit.store.plans import unfinished_tables
from featkit.store.reader import open_store
from featkit.store.verify import verify_store
from featkit.store.writer import remains
from tests.fuzzing.hdf5 import finish, make_store, part_file

from .conftest import seal_by_hand


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A store with a table of which two of three parts are there."""
    make_store(tmp_path / "store")
    return tmp_path / "store"


def plan_file(store: Path) -> Path:
    return next(store.glob(".partial/*/plan.json"))


def wrong(store: Path) -> list[str]:
    return [check.name for check in verify_store(store) if check.problems]


def test_a_lost_bit_in_a_plan_begins_the_table_again(begun: Path) -> None:
    sound = finish(begun, ())
    make_store(begun)
    path = plan_file(begun)
    path.write_text(path.read_text().replace('"batch_size": 4', '"batch_size": 2'))
    assert unfinished_tables(begun) == []
    assert wrong(begun) == [path.relative_to(begun).as_posix()]
    assert finish(begun, ()) == sound


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../../far"}, {"name": "net"}, {"name": 3}, {"rows": "12"}, {"rows": -1},
        {"plan": {"batch_size": 3, "part_rows": 4, "compiled": False}},
        {"plan": {"batch_size": 4, "part_rows": 4, "compiled": "no"}}, {"plan": []},
        {"provenance": {}}, {"provenance": None},
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_is_none(begun: Path, change: dict[str, Any]) -> None:
    path = plan_file(begun)
    content = json.loads(path.read_text()) | change
    content.pop("sha256")
    path.write_text(signed_json(content))
    assert unfinished_tables(begun) == []
    assert remains(begun) == [path.parent]


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "3", "", "\udcff"])
def test_a_plan_that_is_no_json(begun: Path, text: str) -> None:
    plan_file(begun).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert unfinished_tables(begun) == []


def test_parts_of_another_shape_are_made_again(begun: Path) -> None:
    sound = finish(begun, ())
    make_store(begun)
    part = begun / part_file(begun)
    with h5py.File(part, "r+") as file:
        del file["features"]
        file["features"] = np.zeros((4, 4), np.float32)
    seal_by_hand(part, "featkit-part")
    assert finish(begun, ()) == sound


def test_verify_looks_at_parts(begun: Path) -> None:
    assert wrong(begun) == []
    part = begun / part_file(begun)
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    assert wrong(begun) == ["net/conv.none.h5"]


@pytest.mark.parametrize(
    "log", [b"\xff\xfe\n", b'{"tables": 5}\n', b'{"tables": [[1], {}]}\n', b"[" * 100_000]
)
def test_a_damaged_log_costs_the_order_alone(begun: Path, log: bytes) -> None:
    (begun / "runs.jsonl").write_bytes(log)
    assert [table.name for table in open_store(begun).tables()] == ["net/fc.none"]
