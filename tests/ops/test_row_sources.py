"""Rows that are read when they are asked for, against arrays."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from featkit.errors import UsageError
from featkit.ops.combine import CombinedRows, combine
from featkit.ops.neighbors import nearest_neighbors, unit_rows
from featkit.ops.row_sources import RowSource, SelectedRows, is_mapped

X = np.random.default_rng(0).standard_normal((500, 12)).astype(np.float32)
Y = np.random.default_rng(1).standard_normal((500, 7)).astype(np.float32)


@pytest.mark.parametrize("left_out", [[], [0], [499], [3, 4, 5, 200], range(0, 500, 2)])
def test_selected_rows_are_those_of_an_array(left_out):
    keep = np.ones(500, bool)
    keep[list(left_out)] = False
    rows, wanted = SelectedRows(X, keep), X[keep]
    assert rows.shape == wanted.shape
    assert rows.dtype == np.float32
    assert len(rows) == len(wanted)
    assert isinstance(rows, RowSource)
    np.testing.assert_array_equal(np.asarray(rows), wanted)
    for part in (slice(0, 0), slice(0, 9), slice(100, 2000), np.array([0, 7, 8, 230])):
        np.testing.assert_array_equal(rows[part], wanted[part])


def test_rows_without_a_gap_are_not_copied():
    assert np.shares_memory(SelectedRows(X, np.arange(500) != 9)[20:40], X)


def test_a_selection_of_a_selection():
    twice = SelectedRows(SelectedRows(X, np.arange(500) % 2 == 0), np.arange(250) % 5 > 0)
    np.testing.assert_array_equal(np.asarray(twice), X[::2][np.arange(250) % 5 > 0])


@pytest.mark.parametrize("keep", [np.ones(499, bool), np.arange(500), np.ones((500, 1), bool)])
def test_what_selects_nothing(keep):
    with pytest.raises(UsageError, match="give 500 truth values"):
        SelectedRows(X, keep)


@pytest.mark.parametrize("how", ["average", "concat"])
def test_combined_rows_are_those_of_an_array(how):
    models = [X, X * 3 + 1] if how == "average" else [X, Y]
    keep = np.arange(500) % 7 > 0
    rows = CombinedRows([SelectedRows(x, keep) for x in models], how)
    wanted = combine([x[keep] for x in models], how)
    assert rows.shape == wanted.shape
    np.testing.assert_array_equal(np.asarray(rows), wanted)
    np.testing.assert_array_equal(rows[17:99], wanted[17:99])
    for mine, theirs in zip(
        nearest_neighbors(rows, rows, 5, exclude_self=True, device="cpu"),
        nearest_neighbors(wanted, wanted, 5, exclude_self=True, device="cpu"),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_combinations_that_do_not_fit():
    with pytest.raises(UsageError, match="average: the models have different widths"):
        CombinedRows([X, Y], "average")
    with pytest.raises(UsageError, match=r"different numbers of rows, \[400, 500\]"):
        CombinedRows([X, Y[:400]], "concat")


def test_datasets_of_h5py_are_searched_as_they_are(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["rows"] = X.astype(np.float16)
        for mine, theirs in zip(
            nearest_neighbors(file["rows"], file["rows"], 5, exclude_self=True, device="cpu"),
            nearest_neighbors(*[X.astype(np.float16)] * 2, 5, exclude_self=True, device="cpu"),
            strict=True,
        ):
            np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(
            unit_rows(file["rows"]).array, unit_rows(X.astype(np.float16)).array
        )


def test_what_is_a_file_mapped_into_memory(tmp_path):
    X.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", np.float32, "r", shape=X.shape)
    assert is_mapped(np.asarray(mapped)[3:, :4])
    assert not is_mapped(mapped + 1)
