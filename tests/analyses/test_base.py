"""Results are saved as others read them."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from featkit.analyses.base import (
    Figure,
    Result,
    check_folder,
    describe_run,
    result_folder,
    verify_result,
)
from featkit.errors import DiskFullError, StoreError, UsageError
from featkit.report.figures import draw_figures


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
        "analysis", "featkit", "config", "scalars", "tables", "provenance", "notes", "arrays",
        "figures", "sha256",
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


def test_a_result_of_another_analysis(tmp_path: Path) -> None:
    result().save(tmp_path)
    with pytest.raises(UsageError, match="holds a result of thing: give a folder that featkit knn"):
        Result.load(tmp_path, "knn")


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    result().save(tmp_path)
    loaded = Result.load(tmp_path, "thing")
    assert loaded.scalars == {"score": 0.5, "bad": None}
    assert loaded.tables == {"rows": [{"name": "a", "x": 1}, {"name": "b,c", "y": 2.5}]}
    told, wanted = (json.loads(one.to_json()) for one in (loaded, result()))
    assert told | {name: wanted[name] for name in ("arrays", "sha256")} == wanted
    assert not loaded.arrays


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_result_replaces_the_whole_of_an_earlier_one(tmp_path: Path) -> None:
    one = result()
    one.tables = {"rows": [{"name": "b", "x": 2}], "more": [{"x": 1}]}
    one.figures = [Figure(name, "bar", "rows", "", "name", "x") for name in ("kept", "gone")]
    one.save(tmp_path)
    draw_figures(one, tmp_path)
    for name in ("mine.csv", "mine.png", "mine.h5"):
        (tmp_path / name).write_text("mine")
    first = files(tmp_path)
    assert first >= {"rows.csv", "more.csv", "kept.png", "gone.png", "arrays.h5", "result.json"}
    one.save(tmp_path)
    assert files(tmp_path) == first
    two = Result("thing", {}, tables={"rows": [{"name": "a", "x": 1}]}, figures=one.figures[:1])
    two.save(tmp_path)
    draw_figures(two, tmp_path)
    assert files(tmp_path) == first - {"more.csv", "gone.png", "arrays.h5"}
    assert (tmp_path / "rows.csv").read_text() == "name,x\na,1\n"
    content = json.loads((tmp_path / "result.json").read_text())
    assert (content["figures"], content["arrays"]) == (["kept"], [])


def test_an_earlier_result_that_does_not_tell_its_figures(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(
        '{"analysis": "thing", "tables": {"old": [], "rows": []}}'
    )
    for name in ("old.csv", "rows.csv", "old.png"):
        (tmp_path / name).write_text("")
    result().save(tmp_path)
    assert files(tmp_path) == {"result.json", "rows.csv", "old.png", "arrays.h5"}


def test_of_two_results_no_file_is_left_beside_the_others(tmp_path: Path) -> None:
    """Not even where the second is stopped before its first file, or between its files."""
    first, second = result(), dataclasses.replace(result(), config={"k": (3,)})
    first.figures = [Figure("old", "line", "rows", "", "x", "y")]
    first.save(tmp_path)
    (tmp_path / "old.png").write_text("drawn")
    (tmp_path / "other.txt").write_text("of the user")
    first.save(tmp_path)  # the same was asked: what is there stays until it is replaced
    assert files(tmp_path) == {"result.json", "rows.csv", "arrays.h5", "old.png", "other.txt"}
    (tmp_path / "rows.csv.tmp").mkdir()  # it cannot be written
    with pytest.raises(UsageError, match="cannot write the result"):
        second.save(tmp_path)
    assert files(tmp_path) == {"rows.csv.tmp", "other.txt"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
@pytest.mark.parametrize("file", ["rows.csv", "arrays.h5", "result.json", "a.png"])
def test_a_full_disk_is_told_as_one(tmp_path: Path, file: str) -> None:
    found = result()
    found.tables["rows"][1]["x"] = 2
    found.figures = [Figure("a", "bar", "rows", "", "name", "x")]
    (tmp_path / f"{file}.tmp").symlink_to("/dev/full")
    write = draw_figures if file == "a.png" else Result.save
    with pytest.raises(DiskFullError, match="free some space and run the same command again$"):
        write(found, tmp_path)
    assert not list(tmp_path.glob("*.tmp"))
    assert file not in files(tmp_path)


def test_a_folder_is_held_for_one_result(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "answer"
    refused = pytest.raises(StoreError, match="another process is making a result there; wait")
    with result_folder(folder, "thing"), refused:
        result_folder(folder, "thing").__enter__()
    assert files(tmp_path) == set()  # no result came of it
    with result_folder(folder, "thing"):
        result().save(folder)
    assert files(folder) == {"result.json", "rows.csv", "arrays.h5"}
    with pytest.raises(UsageError, match="holds a result of thing"):
        result_folder(folder, "knn").__enter__()


def test_nothing_outside_of_the_folder_is_removed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    (tmp_path / "a.png").write_text("")
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("../a", str(tmp_path / "a")):
        told = {"analysis": "thing", "tables": {name: []}, "figures": [name]}
        (folder / "result.json").write_text(json.dumps(told))
        result().save(folder)
    assert files(tmp_path) == {"a.csv", "a.png", "out"}


def test_a_folder_of_another_analysis_is_refused_before_the_work(tmp_path: Path) -> None:
    result().save(tmp_path)
    before = files(tmp_path)
    with pytest.raises(UsageError, match="holds a result of thing: give another folder"):
        check_folder(tmp_path, "knn")
    assert files(tmp_path) == before
    check_folder(tmp_path, "thing")
    check_folder(tmp_path)
    check_folder(tmp_path / "new", "knn")
    for text in ("[1]", "{", '{"other": 1}', '{"tables": 3, "figures": [{}], "arrays": "a"}'):
        (tmp_path / "result.json").write_text(text)
        check_folder(tmp_path, "knn")
        result().save(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"holds no result .No such file or directory.: give a folder that featkit thing -o"),
        ('{"analysis": "thing"}', "result.json is not whole, or not featkit's: give a folder"),
        ('{"analysis": "thing", "config', "result.json is not whole"),
        ("[1]", "result.json is not whole"),
        ("\udcff", "result.json is not whole"),
    ],
)
def test_what_is_no_result(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "result.json").write_text(text, errors="surrogateescape")
    with pytest.raises(UsageError, match=message) as error:
        Result.load(tmp_path, "thing")
    assert "\n" not in str(error.value)


def test_what_a_result_was_made_from_can_be_a_result(tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True)
    class Config:
        k: int = 3

    result().save(tmp_path / "one")
    loaded = Result.load(tmp_path / "one", "thing")
    digest = hashlib.sha256((tmp_path / "one" / "result.json").read_bytes()).hexdigest()
    config, provenance = describe_run(Config(), {"dir": [loaded]})
    assert config == {"k": 3}
    assert provenance["inputs"] == {"dir": [{"result": str(tmp_path / "one"), "sha256": digest}]}
    assert not result().origin
    assert "origin" not in json.loads(loaded.to_json())


@pytest.mark.parametrize(
    ("old", "new"), [('"score": 0.5', '"score": 0.6'), ('"a"', '"b"'), ('"x": 1', '"x": 2')]
)
def test_what_was_changed_after_writing_is_refused(tmp_path: Path, old: str, new: str) -> None:
    result().save(tmp_path)
    path = tmp_path / "result.json"
    text = path.read_text()
    assert Result.load(tmp_path, "thing").scalars["score"] == 0.5
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UsageError, match="not whole, or not featkit's"):
        Result.load(tmp_path, "thing")
    assert [check.name for check in verify_result(tmp_path) if check.problems] == ["result.json"]


def test_verify_looks_at_arrays(tmp_path: Path) -> None:
    result().save(tmp_path)
    assert [check.problems for check in verify_result(tmp_path)] == [(), ()]
    path = tmp_path / "arrays.h5"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert [bool(check.problems) for check in verify_result(tmp_path)] == [False, True]


@pytest.mark.parametrize(
    "change",
    [
        {"tables": []}, {"tables": {"units": 3}}, {"tables": {"units": [3]}}, {"config": None},
        {"provenance": "x"}, {"notes": [1]}, {"analysis": ["thing"]}, {"scalars": [1]},
    ],
)  # fmt: skip
def test_values_of_other_kinds_are_no_result(tmp_path: Path, change: dict[str, Any]) -> None:
    content = json.loads(result().to_json()) | change
    del content["sha256"]
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="not whole, or not featkit's"):
        Result.load(tmp_path, "thing")


def test_json_without_an_end_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("[" * 100_000)
    with pytest.raises(UsageError, match="not whole, or not featkit's"):
        Result.load(tmp_path, "thing")
    check_folder(tmp_path, "thing")
