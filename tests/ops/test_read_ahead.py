"""Which pages of a file are in memory, asked of the kernel."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featkit.ops import read_ahead
from featkit.ops.read_ahead import PIECE, ReadAhead, announced, exceed_memory
from featkit.ops.row_sources import SelectedRows

ROWS, WIDTH = 20_000, 300  # 24 MB, rows of a third of a page
Array = np.ndarray[Any, Any]


@pytest.fixture
def table(tmp_path: Path) -> Array:
    """A mapped file of which no page is in memory but some of the first."""
    if sys.platform != "linux":
        pytest.skip("asks Linux")
    if "tmpfs" in subprocess.run(["df", "-T", tmp_path], capture_output=True, text=True).stdout:
        pytest.skip("what is in tmpfs is in memory")
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).random((ROWS, WIDTH), np.float32))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    found: Array = np.load(path, mmap_mode="r")
    if len(resident(found)) * mmap.PAGESIZE > 2**20:
        pytest.skip("this file system keeps pages that are to be dropped")
    return found


def resident(array: Array) -> set[int]:
    """Return the pages of a mapped array, from its beginning on, that are in memory."""
    first = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    size = array.ctypes.data + array.nbytes - first
    told = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    libc = ctypes.CDLL(None, use_errno=True)
    assert not libc.mincore(ctypes.c_void_p(first), ctypes.c_size_t(size), told)
    return set(np.flatnonzero(np.frombuffer(told, np.uint8) & 1).tolist())


def pages(array: Array, rows: list[int]) -> set[int]:
    """Return the pages that rows lie on."""
    before, size = array.ctypes.data % mmap.PAGESIZE, array[0].nbytes
    return {
        page
        for row in rows
        for page in range(
            (before + row * size) // mmap.PAGESIZE,
            (before + (row + 1) * size - 1) // mmap.PAGESIZE + 1,
        )
    }


def after(array: Array, wanted: set[int]) -> set[int]:
    """Return the pages in memory, when those wanted are, or 10 seconds later."""
    for _ in range(100):
        found = resident(array)
        if wanted <= found:
            return found
        time.sleep(0.1)
    return found


def test_rows_that_are_announced_are_read_and_few_others(table: Array) -> None:
    rows = [500, 700, 701, 702, 9000, ROWS - 1]
    before, wanted, alone = resident(table), pages(table, rows), pages(table, [12_345])
    with ReadAhead([table, np.zeros((ROWS, 2))]) as ahead:
        ahead.announce(np.array(rows))
        ahead.announce(np.array([], np.int64))
        assert wanted <= (found := after(table, wanted))
        assert len(found - before - wanted) <= 8
        assert np.isfinite(table[12_345]).all()
        found = resident(table)
        assert alone <= found
        assert len(found - before - wanted - alone) <= 8
    assert np.isfinite(table[15_000, 7])
    around = len(resident(table) - found)
    if around <= 8:
        pytest.skip("this system reads nothing around a page")
    assert around > 8


@pytest.mark.parametrize("behind", ["selected", "twice", "part", "selected part"])
def test_rows_are_those_of_what_is_given(table: Array, behind: str) -> None:
    """The numbers of rows are not those in the file."""
    given, first = (table[100:], 100) if "part" in behind else (table, 0)
    keep = np.ones(len(given), bool)
    keep[[3, 4, 8]] = False
    source: Any = SelectedRows(given, keep) if behind != "part" else given
    if behind == "twice":
        source = SelectedRows(source, keep[3:])
    left = 3 * (behind != "part") + 2 * (behind == "twice")  # the last 3 of 8 are 5, 6 and 9
    left += behind == "twice"
    rows = [1500, 1501, 6000]
    before, wanted = resident(table), pages(table, [first + row + left for row in rows])
    with ReadAhead([source]) as ahead:
        ahead.announce(np.array(rows))
        assert wanted <= (found := after(table, wanted))
        assert len(found - before - wanted) <= 8


def test_long_rows_are_read_whole(table: Array) -> None:
    """Some systems read no more than 128 kB of what they are told at once."""
    long, told = table.reshape(-1, 500 * WIDTH), []
    before, wanted = resident(table), pages(long, [20, 21, 30])
    madvise = mmap.mmap.madvise

    class Noted(mmap.mmap):
        def madvise(self, *given: int) -> None:
            told.append(given)
            madvise(self, *given)

    with ReadAhead([long]) as ahead:
        ahead.announce(np.array([20, 21, 30]))
        assert wanted <= (found := after(table, wanted))
        assert len(found - before - wanted) <= 8
    path = Path(str(table.filename))  # type: ignore[attr-defined]
    with path.open("rb") as file, Noted(file.fileno(), 0, prot=mmap.PROT_READ) as noted:
        rows = np.ndarray(long.shape, np.float32, noted, 128)
        ReadAhead([rows]).announce(np.array([20, 21, 30]))
        del rows
    assert max(length for _, _, length in told) <= PIECE
    covered = {start + i for _, start, length in told for i in range(0, length, mmap.PAGESIZE)}
    assert covered == {page * mmap.PAGESIZE for page in wanted}


@pytest.mark.parametrize("layout", ["reversed", "columns turned", "Fortran", "every other column"])
def test_rows_that_lie_in_pieces_are_left_alone(table: Array, layout: str) -> None:
    given = {
        "reversed": table[::-1],
        "columns turned": table[:, ::-1],
        "Fortran": table.reshape(WIDTH, ROWS).T,
        "every other column": table[:, ::2],
    }[layout]
    before = resident(table)
    with ReadAhead([given]) as ahead:
        ahead.announce(np.array([500, 9000]))
    assert resident(table) == before


def test_files_are_compared_with_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, np.zeros((1000, 10)))
    mapped = np.load(path, mmap_mode="r")
    selected = SelectedRows(mapped, np.ones(1000, bool))
    for free, sources, wanted in (
        (80_000, [mapped], False),
        (79_999, [mapped], True),
        (80_000, [mapped, selected], True),
        (0, [np.zeros((1000, 10))], False),
        (0, [], False),
    ):
        monkeypatch.setattr(read_ahead, "free_for_files", lambda free=free: free)
        assert exceed_memory(sources) == wanted


@pytest.mark.parametrize("mode", ["r", "c", "r+"])
def test_what_is_read_is_the_same(tmp_path: Path, mode: Any) -> None:
    """On every system, whether it can be told or not; rows may come twice."""
    wanted = np.random.default_rng(0).random((500, 700))
    np.save(tmp_path / "rows.npy", wanted)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode=mode)
    with ReadAhead([mapped, mapped[:, 100:300]]) as ahead:
        for rows in announced(np.split(np.arange(500), 5), ahead.announce):
            np.testing.assert_array_equal(mapped[rows], wanted[rows])
        ahead.announce(np.array([3, 3, 4, 4, 499]))


def test_each_is_announced_before_what_precedes_it_is_given() -> None:
    said: list[str] = []
    for one in announced("abc", said.append):
        said.append(one.upper())  # noqa: PERF401 - the order is what counts
    assert "".join(said) == "abAcBC"
    assert list(announced("", said.append)) == []
