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
from featkit.ops.read_ahead import ReadAhead
from featkit.ops.row_sources import SelectedRows

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")

ROWS, WIDTH = 20_000, 300  # 24 MB, rows of a third of a page
HEADER = list(range(40))  # rows that may be read with what says how long a row is


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.memmap[Any, Any]:
    """A mapped file none of whose pages is in memory, and which would not fit."""
    if "tmpfs" in subprocess.run(["df", "-T", tmp_path], capture_output=True, text=True).stdout:
        pytest.skip("what is in tmpfs is in memory")
    monkeypatch.setattr(read_ahead, "free_memory", lambda: 4 * ROWS * WIDTH - 1)
    path = tmp_path / "rows.npy"
    np.save(path, np.arange(ROWS, dtype=np.float32)[:, None] * np.ones(WIDTH, np.float32))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    found = np.load(path, mmap_mode="r")
    if resident(found).size > 10:
        pytest.skip("this file system keeps pages that are to be dropped")
    return found


def resident(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the pages of a mapped array, from its beginning on, that are in memory."""
    first = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    size = array.ctypes.data + array.nbytes - first
    told = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    libc = ctypes.CDLL(None, use_errno=True)
    assert not libc.mincore(ctypes.c_void_p(first), ctypes.c_size_t(size), told)
    return np.flatnonzero(np.frombuffer(told, np.uint8) & 1)


def pages(array: np.ndarray[Any, Any], rows: list[int]) -> set[int]:
    """Return the pages that rows lie on."""
    before = array.ctypes.data % mmap.PAGESIZE
    return {
        page
        for row in rows
        for page in range(
            (before + row * 4 * WIDTH) // mmap.PAGESIZE,
            (before + (row + 1) * 4 * WIDTH - 1) // mmap.PAGESIZE + 1,
        )
    }


def after(array: np.ndarray[Any, Any], wanted: set[int]) -> set[int]:
    """Return the pages in memory, when those wanted are, or 10 seconds later."""
    for _ in range(100):
        found = set(resident(array).tolist())
        if wanted <= found:
            return found
        time.sleep(0.1)
    return found


def test_rows_that_are_announced_are_read_and_no_others(table: np.memmap[Any, Any]) -> None:
    rows = [500, 700, 701, 702, 9000, ROWS - 1]
    beside = np.zeros((ROWS, 2))
    with ReadAhead([table, beside]) as ahead:
        ahead.announce(np.array(rows))
        ahead.announce(np.array([], np.int64))
        wanted = pages(table, rows)
        assert after(table, wanted) - pages(table, HEADER) == wanted
        assert table[12_345, 7] == 12_345
        alone = pages(table, [12_345])
        assert after(table, alone) - pages(table, HEADER) <= wanted | alone
    assert table[15_000, 7] == 15_000
    assert len(after(table, set())) > len(wanted | alone) + 8  # what lies around it


@pytest.mark.parametrize("behind", ["selected", "part", "selected part"])
def test_rows_are_those_of_what_is_given(table: np.memmap[Any, Any], behind: str) -> None:
    """The numbers of rows are not those in the file."""
    given, first = (table[100:], 100) if "part" in behind else (table, 0)
    keep = np.ones(len(given), bool)
    keep[[3, 4, 8]] = False
    given = SelectedRows(given, keep) if "selected" in behind else given
    rows = [150, 151, 6000]
    wanted = pages(table, [first + row + 3 * ("selected" in behind) for row in rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read_ahead, "free_memory", lambda: 1)
        with ReadAhead([given]) as ahead:
            ahead.announce(np.array(rows))
            assert after(table, wanted) - pages(table, HEADER) == wanted


def test_where_files_fit_into_memory_nothing_is_done(
    table: np.memmap[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "free_memory", lambda: 4 * ROWS * WIDTH)
    with ReadAhead([table]) as ahead:
        ahead.announce(np.array([9000]))
        time.sleep(0.2)
        assert not pages(table, [9000]) & set(resident(table).tolist())
