"""A file's digest is computed once, and again when the file is another."""

import hashlib
import os
import time

import pytest

from featkit.backbones.checkpoints import digest
from featkit.backbones.checkpoints.digest import file_sha256
from featkit.data import files

DATA = bytes(range(256)) * 1000


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "SETTLED_NS", 0)  # it is new, and yet stays as it is
    path = tmp_path / "net.pth"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def passes(monkeypatch):
    """How often a file was read."""
    seen = []

    def count(file, kind):
        seen.append(file.name)
        return file_digest(file, kind)

    file_digest = hashlib.file_digest
    monkeypatch.setattr(digest.hashlib, "file_digest", count)
    return seen


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_it_is_computed_once(file, passes, tmp_path):
    link = tmp_path / "link.pth"
    link.symlink_to(file)
    assert [file_sha256(path) for path in (file, file, link)] == [sha256(file)] * 3
    assert len(passes) == 1


def test_another_size_time_or_path_is_another_file(file, passes):
    file_sha256(file)
    status = file.stat()
    time.sleep(0.02)  # some ticks of the clock that files have their times from
    file.write_bytes(DATA[::-1])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # as cp -p and rsync leave it
    assert file_sha256(file) == sha256(file)
    file.write_bytes(DATA[1:])
    assert file_sha256(file) == sha256(file)
    moved = file.rename(file.with_name("moved.pth"))
    assert file_sha256(moved) == sha256(moved)
    assert len(passes) == 4


def test_a_file_that_may_still_be_written_to_is_read_each_time(file, passes, monkeypatch):
    monkeypatch.setattr(files, "SETTLED_NS", 10**15)
    assert [file_sha256(file) for _ in range(2)] == [sha256(file)] * 2
    assert len(passes) == 2


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b"null", b'{"stamp": 3}', b"\xff", bytes(99)])
def test_a_damaged_cache_costs_time_only(file, passes, tmp_path, note):
    file_sha256(file)
    (kept,) = (tmp_path / "cache" / "sha256").iterdir()
    kept.write_bytes(note)
    assert file_sha256(file) == file_sha256(file) == sha256(file)
    assert len(passes) == 2


def test_a_cache_that_cannot_be_written_costs_time_only(file, passes, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file, where a folder should be")
    assert file_sha256(file) == file_sha256(file) == sha256(file)
    assert len(passes) == 2
