"""Arrays come back from the scratch file as they were given, and a full disk ends nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from featkit.analyses.dissect import scratch
from featkit.analyses.dissect.scratch import Scratch


def arrays(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.standard_normal((3, 4, 5)).astype(np.float32),
        rng.integers(0, 9, (2, 7), np.int32).T,
        np.zeros((0, 3)),
        rng.integers(0, 255, (8, 8, 3), np.uint8)[:, ::2],
    ]


def test_arrays_come_back_in_any_order() -> None:
    with Scratch() as kept:
        for row in (4, 0, 9):
            assert kept.keep(row, arrays(row))
            np.testing.assert_equal(kept.read(4), arrays(4))
        for row in (9, 4, 0):
            np.testing.assert_equal(kept.read(row), arrays(row))
        assert [row in kept for row in (0, 1, 4, 9)] == [True, False, True, True]


def test_what_exceeds_the_room_is_not_kept_nor_anything_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scratch, "MOST", 1000)
    with Scratch() as kept:
        assert kept.keep(0, [np.ones(100)])
        assert not kept.keep(1, [np.ones(100)])
        assert not kept.keep(2, [np.ones(1)])
        np.testing.assert_array_equal(kept.read(0), [np.ones(100)])


def test_the_file_has_no_name_and_vanishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Scratch() as kept:
        kept.keep(0, [np.ones(10_000)])
        assert os.name != "posix" or not list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    with Scratch() as kept:
        assert not kept.keep(0, [np.ones(3)])


FULL = """
import resource, signal, numpy as np
from featkit.analyses.dissect.scratch import Scratch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Scratch() as kept:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    taken = [kept.keep(row, [np.full(300, row), np.ones(200)]) for row in range(5)]
    assert taken == [True, True, False, False, False], taken
    for row in range(2):
        assert (kept.read(row)[0] == row).all() and (kept.read(row)[1] == 1).all()
"""


@pytest.mark.skipif(os.name != "posix", reason="needs limits of the system")
def test_a_disk_that_fills_up_meanwhile() -> None:
    """The system itself refuses to write beyond 10,000 bytes, in the middle of an array."""
    done = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
