"""Tables made from tables: in parts, with holes, and never over something else."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from featkit.store import derived
from featkit.store.derived import find_table, write_derived
from featkit.store.reader import open_store
from featkit.store.verify import verify_store
from featkit.store.writer import TableSpec

ROWS = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)


def spec(store: Path, seed: int = 0) -> TableSpec:
    provenance = {
        "backbone": "derived", "tap": "psi", "pooling": "none", "preprocessing": None,
        "samples": open_store(store).samples.manifest, "precision": "fp32", "seed": seed,
    }  # fmt: skip
    return TableSpec("made", "psi", "none", "by hand", provenance, 12, (5,), "float32")


@pytest.mark.parametrize("part_bytes", [1, 100, 64e6])
def test_in_any_number_of_parts(
    store: Path, part_bytes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derived, "PART_BYTES", part_bytes)
    whole = np.delete(ROWS, [3, 11], 0)
    write_derived(open_store(store), spec(store), whole, {3: "net: broken", 11: "net: gone"})
    with h5py.File(store / "made" / "psi.none.h5") as file:
        np.testing.assert_array_equal(np.delete(file["features"], [3, 11], 0), whole)
        assert np.isnan(file["features"][[3, 11]]).all()
        assert np.flatnonzero(~file["valid"][...]).tolist() == [3, 11]
        assert file["failed_reason"].asstr()[...].tolist() == ["net: broken", "net: gone"]
    assert not any(check.problems for check in verify_store(store))
    assert not list((store / ".partial").iterdir())


def test_one_takes_the_place_of_another(store: Path) -> None:
    opened = open_store(store)
    assert find_table(opened, "made/psi.none") is None
    write_derived(opened, spec(store), ROWS, {})
    write_derived(opened, spec(store, 1), np.delete(ROWS, 2, 0) + 1, {2: "gone"})
    found = find_table(opened, "made/psi.none")
    assert found is not None
    assert found.key == spec(store, 1).key
    np.testing.assert_array_equal(found.numpy()[3:], ROWS[3:] + 1)
    assert found.failures == {2: "gone"}
    assert not any(check.problems for check in verify_store(store))


KILLED = """
import os, signal, sys
import numpy as np
from pathlib import Path
from featkit.store import derived, writer
from tests.store.test_derived import ROWS, spec
from featkit.store.reader import open_store
derived.PART_BYTES = 1
write, count = writer.PartialTable.write, 0
def counted(*arguments):
    global count
    if count == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1
    write(*arguments)
writer.PartialTable.write = counted
store = Path(sys.argv[1])
derived.write_derived(open_store(store), spec(store), ROWS, {})
"""


def test_killed_in_the_middle_nothing_appears_and_the_next_begins_anew(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", KILLED, store], cwd=root)
    assert done.returncode == -signal.SIGKILL
    assert not (store / "made").exists()
    (folder,) = (store / ".partial").iterdir()
    assert len(list(folder.glob("part-*.h5"))) == 5
    monkeypatch.setattr(derived, "PART_BYTES", 1)
    write_derived(open_store(store), spec(store), ROWS + 1, {})
    np.testing.assert_array_equal(open_store(store)["made"].numpy(), ROWS + 1)
    assert not any(check.problems for check in verify_store(store))
