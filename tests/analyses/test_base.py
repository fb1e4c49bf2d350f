"""Results are saved as others read them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from featkit.analyses.base import Result
from featkit.errors import UsageError


def result() -> Result:
    return Result(
        "thing",
        {"k": (1, 2)},
        {"score": np.float32(0.5), "bad": float("nan")},
        {"rows": [{"name": "a", "x": np.int64(1)}, {"name": "b,c", "y": 2.5}]},
        {"group/values": np.arange(6).reshape(2, 3), "names": np.array(["ä", "b"])},
    )


def test_json_is_strict_and_complete(tmp_path: Path) -> None:
    result().save(tmp_path / "out")
    text = (tmp_path / "out" / "result.json").read_text()
    assert text == result().to_json()
    content = json.loads(text, parse_constant=pytest.fail)
    assert content.keys() == {
        "analysis", "featkit", "config", "scalars", "tables", "provenance", "notes"
    }  # fmt: skip
    assert content["scalars"] == {"score": 0.5, "bad": None}
    assert content["config"] == {"k": [1, 2]}
    assert content["tables"]["rows"][0] == {"name": "a", "x": 1}


def test_tables_and_arrays_are_read_back(tmp_path: Path) -> None:
    result().save(tmp_path)
    with (tmp_path / "rows.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"name": "a", "x": "1", "y": ""},
            {"name": "b,c", "x": "", "y": "2.5"},
        ]
    with h5py.File(tmp_path / "arrays.h5") as file:
        np.testing.assert_array_equal(file["group/values"][...], np.arange(6).reshape(2, 3))
        assert file["names"].asstr()[...].tolist() == ["ä", "b"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write the result"):
        result().save(tmp_path / "file")
