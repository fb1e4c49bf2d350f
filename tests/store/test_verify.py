"""``verify`` finds what is wrong with a store."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from featkit.store.verify import verify_store

from .conftest import seal_by_hand


def problems(store: Path) -> dict[str, tuple[str, ...]]:
    return {check.name: check.problems for check in verify_store(store) if check.problems}


def test_a_sound_store(store: Path) -> None:
    checks = list(verify_store(store))
    assert [check.name for check in checks] == [
        "samples.h5",
        "net_a/layer1.none.h5",
        "net_b/fc.none.h5",
        "net_b/layer1.avg.h5",
    ]
    assert all(not check.problems for check in checks)
    assert checks[1].remarks == ("unreadable: 0007.png (broken)",)


@pytest.mark.parametrize("name", ["samples.h5", "net_b/fc.none.h5", "net_a/layer1.none.h5"])
def test_flipped_bytes_are_caught_wherever_they_are(store: Path, name: str) -> None:
    whole = (store / name).read_bytes()
    rng = np.random.default_rng(1)
    for place in rng.integers(0, len(whole), 25):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        (store / name).write_bytes(bytes(damaged))
        assert list(problems(store)) == [name]


def change(path: Path, dataset: str, row: int, value: object) -> None:
    with h5py.File(path, "r+") as file:
        file[dataset][row] = value
    seal_by_hand(path, "featkit-table")


@pytest.mark.parametrize(
    ("dataset", "row", "value", "found"),
    [
        ("features", 2, np.inf, "1 rows of readable images hold NaN"),
        ("features", 7, 1.0, "1 rows of unreadable images hold numbers"),
        ("valid", 3, False, "unreadable images hold numbers"),
        ("failed_row", 0, 4, "list of failures"),
    ],
)
def test_wrong_contents_under_a_right_seal(
    store: Path, dataset: str, row: int, value: object, found: str
) -> None:
    change(store / "net_b" / "fc.none.h5", dataset, row, value)
    assert found in " ".join(problems(store)["net_b/fc.none.h5"])


def test_tables_of_other_images_and_renamed_tables(store: Path) -> None:
    path = store / "net_b" / "fc.none.h5"
    path.rename(store / "net_b" / "fd.none.h5")
    assert "renamed" in problems(store)["net_b/fd.none.h5"][0]
    other = store / "net_a" / "layer1.none.h5"
    with h5py.File(other, "r+") as file:
        file.attrs["provenance"] = file.attrs["provenance"].replace('"samples":"', '"samples":"0')
    seal_by_hand(other, "featkit-table")
    found = " ".join(problems(store)["net_a/layer1.none.h5"])
    assert "other images" in found
    assert "its key" in found


def test_a_name_without_an_end_is_cut(store: Path) -> None:
    with h5py.File(store / "net_b" / "fc.none.h5", "r+") as file:
        file.attrs["backbone"] = "[" * 5000
    seal_by_hand(store / "net_b" / "fc.none.h5", "featkit-table")
    (line,) = problems(store)["net_b/fc.none.h5"]
    assert "renamed" in line
    assert len(line) < 300
