"""Seals, atomic files, and errors of the disk."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest

from featkit.errors import DamagedError, DiskFullError, StoreError
from featkit.store.files import (
    appearing,
    check_seal,
    explain_full_disk,
    explain_write_errors,
    make_folder,
    seal,
    size_text,
    write_sealed,
    write_whole,
)
from tests.processes import run_forked


def fill(file: h5py.File) -> None:
    file["x"] = np.arange(100)


def test_any_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_sealed(path, "kind", fill)
    check_seal(path, "kind")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    places = [0, 5, 20, 80, 511, 512, len(whole) - 1, *rng.integers(0, len(whole), 60)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        with pytest.raises(DamagedError):
            check_seal(path, "kind")
    for cut in (0, 100, 512, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DamagedError):
            check_seal(path, "kind")


def test_sealed_files_are_plain_hdf5_with_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        write_sealed(tmp_path / name, "kind", fill)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["x"][...].tolist() == list(range(100))
    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name] == []


def test_seal_of_a_file_written_by_h5py(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", userblock_size=512) as file:
        fill(file)
    with pytest.raises(DamagedError):
        check_seal(path, "kind")
    seal(path, "kind")
    check_seal(path, "kind")
    assert path.read_bytes().startswith(b"kind sha256:")


@pytest.mark.parametrize(
    ("number", "kind", "wanted"),
    [
        (errno.ENOSPC, DiskFullError, "free some space"),
        (errno.EDQUOT, DiskFullError, "free some space"),
        (errno.EROFS, StoreError, "choose a folder"),
        (errno.EACCES, StoreError, "choose a folder"),
    ],
)
def test_write_errors_say_what_to_do(
    tmp_path: Path, number: int, kind: type[Exception], wanted: str
) -> None:
    with pytest.raises(kind, match=wanted), explain_write_errors("rows", tmp_path):
        raise OSError(number, "refused")
    with pytest.raises(OSError, match="other"), explain_write_errors("rows", tmp_path):
        raise OSError(errno.EIO, "other")


def test_sizes_are_decimal() -> None:
    assert [size_text(x) for x in (999, 1e3, 1.5e6, 2e9)] == [
        "999 B",
        "1.0 kB",
        "1.5 MB",
        "2.00 GB",
    ]


def observed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that are synced, and those that appear, in order."""
    seen: list[str] = []
    sync, replace = os.fsync, Path.replace

    def noted(descriptor: int) -> None:
        sync(descriptor)
        seen.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")

    def named(self: Path, target: Path) -> Path:
        seen.append(f"{target.name} appears")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", named)
    return seen


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_bytes_are_on_the_disk_before_their_name_and_the_name_before_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = observed(monkeypatch)
    make_folder(tmp_path / "new" / "deep")
    assert seen == [f"sync {tmp_path.name}", "sync new"]
    seen.clear()
    write_sealed(tmp_path / "new" / "a.h5", "kind", fill)
    assert seen == ["sync a.h5.tmp", "a.h5 appears", "sync new"]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_whole(path, b"old")
    with suppress(KeyboardInterrupt), appearing(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert path.read_bytes() == b"old"
    with pytest.raises(FileExistsError):
        make_folder(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_is_told_with_what_goes_on_and_without(tmp_path: Path) -> None:
    for kept, wanted in (
        (
            "all is safe",
            r"free at .*: all is safe; free some space and run .* again, it goes on from",
        ),
        ("", r"disk full while writing rows \(.* free at .*\): free some space and run .* again$"),
    ):
        (tmp_path / "a.tmp").symlink_to("/dev/full")
        with pytest.raises(DiskFullError, match=wanted), explain_full_disk("rows", tmp_path, kept):
            write_whole(tmp_path / "a", b"bytes")
        assert list(tmp_path.iterdir()) == []


HDF5_UNDER_A_LIMIT = """
import resource, sys
from pathlib import Path
import numpy as np
from featkit.store.files import writing_hdf5
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    with writing_hdf5(Path(sys.argv[1]), 400_000) as file:
        file["names"] = ["abc"] * 1000
        rows = file.create_dataset("rows", (4000, 16), np.float32)
        for start in range(0, 4000, 100):
            rows[start : start + 100] = start
    print("written")
except OSError as error:
    print(error.errno)
"""


@pytest.mark.parametrize("limit", [100, 8_000, 250_000])
def test_hdf5_meets_no_disk_that_is_full(tmp_path: Path, limit: int) -> None:
    ended = run_forked(HDF5_UNDER_A_LIMIT, tmp_path / "a.h5", limit)
    assert (ended.returncode, ended.stdout.strip()) == (0, str(errno.EFBIG)), ended.stderr


def test_hdf5_writes_what_h5py_reads(tmp_path: Path) -> None:
    ended = run_forked(HDF5_UNDER_A_LIMIT, tmp_path / "a.h5", 400_000)
    assert ended.stdout == "written\n", ended.stderr
    assert (tmp_path / "a.h5").stat().st_size < 310_000
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["names"].asstr()[...].tolist() == ["abc"] * 1000
        wanted = np.repeat(np.arange(0, 4000, 100), 100)
        np.testing.assert_array_equal(file["rows"][...], np.tile(wanted[:, None], 16))


def test_two_processes_do_not_write_one_file_at_once(tmp_path: Path) -> None:
    other = (
        "import sys; from pathlib import Path; from featkit.store.files import write_whole\n"
        "write_whole(Path(sys.argv[1]), b'other')"
    )
    path = tmp_path / "a"
    with appearing(path) as temporary:
        temporary.write_bytes(b"half of ")
        assert "another process is writing it" in run_forked(other, path).stderr
        with temporary.open("ab") as file:
            file.write(b"this")
    assert path.read_bytes() == b"half of this"
    assert not run_forked(other, path).returncode
    assert path.read_bytes() == b"other"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_file_that_another_has_just_finished_is_not_written_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was opened while the other still wrote it, and has its name when the lock is to be had."""
    fcntl = pytest.importorskip("fcntl")
    path, flock = tmp_path / "a", fcntl.flock

    def others_end(file: object, how: int) -> None:
        if not path.exists():
            path.with_name("a.tmp").write_bytes(b"of another")
            path.with_name("a.tmp").replace(path)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", others_end)
    with pytest.raises(StoreError, match="another process is writing it"):
        write_whole(path, b"mine")
    assert path.read_bytes() == b"of another"
    write_whole(path, b"mine")
    assert path.read_bytes() == b"mine"
