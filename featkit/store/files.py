"""Files that are whole or absent, and that know when their bytes change.

Every HDF5 file of a store starts with a user block of 512 bytes, one line of text that names the
format and the sha256 of all that follows. HDF5 readers skip it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
import h5py

from featkit.errors import DamagedError, DiskFullError, StoreError
from featkit.store.schema import LIBVER

USERBLOCK = 512

_ZEROS = 2**24
"""Bytes that are written at once where space cannot be reserved otherwise."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_PLACE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOENT,
}


def free_bytes(folder: Path) -> int:
    """Return the free space, in bytes, of the disk that holds (or will hold) ``folder``."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def size_text(count: float) -> str:
    """Return a number of bytes for people.

    Example:
        >>> size_text(8_192), size_text(3_300_000_000)
        ('8.2 kB', '3.30 GB')
    """
    for unit, scale, digits in (("GB", 1e9, 2), ("MB", 1e6, 1), ("kB", 1e3, 1)):
        if count >= scale:
            return f"{count / scale:.{digits}f} {unit}"
    return f"{count:.0f} B"


@contextmanager
def explain_full_disk(what: str, folder: Path, kept: str = "") -> Iterator[None]:
    """Turn a disk that is full into an error that says what to do.

    Args:
        what: What was being written.
        folder: Where.
        kept: What the same command goes on from; empty if it begins again.

    Raises:
        DiskFullError: No space or quota is left.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        before, after = (f"{kept}; ", ", it goes on from there") if kept else ("", "")
        raise DiskFullError(
            f"disk full while writing {what} ({size_text(free_bytes(folder))} free at {folder}): "
            f"{before}free some space and run the same command again{after}"
        ) from error


@contextmanager
def explain_write_errors(
    what: str, folder: Path, kept: str = "rows written so far are safe"
) -> Iterator[None]:
    """Turn the operating system's refusal to write into an error that says what to do.

    Args:
        what: What was being written.
        folder: Where.
        kept: What the same command goes on from; empty if it begins again.

    Raises:
        DiskFullError: No space or quota is left.
        StoreError: The place cannot be written to for another reason.
    """
    try:
        with explain_full_disk(what, folder, kept):
            yield
    except OSError as error:
        if error.errno in _NO_PLACE:
            raise StoreError(
                f"cannot write {what} to {folder} ({error.strerror}): choose a folder that is "
                f"there and that you may write to"
            ) from error
        raise


@contextmanager
def holding(folder: Path, lock_file: str, busy: str) -> Iterator[None]:
    """Make a folder and hold its lock; the system lets go of it when the process ends, however.

    Args:
        folder: Made with those above it.
        lock_file: Its name.
        busy: What another process does that holds it.

    Raises:
        StoreError: Another process holds it.
    """
    make_folder(folder)
    lock = filelock.FileLock(folder / lock_file)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise StoreError(
            f"{folder}: another process is {busy}; wait until it has finished"
        ) from None
    try:
        yield
    finally:
        lock.release()


def sync_folder(folder: Path) -> None:
    """Make the names inside ``folder`` survive a power cut, where the file system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # no folders are synced there
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they survive a power cut."""
    for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
        missing.mkdir(exist_ok=True)
        sync_folder(missing.parent)
    folder.mkdir(exist_ok=True)  # refuses a file of that name


def _seal_line(kind: str, digest: str) -> bytes:
    return f"{kind} sha256:{digest}\n".encode().ljust(USERBLOCK, b"\0")


def write_sealed(path: Path, kind: str, fill: Callable[[h5py.File], None]) -> None:
    """Write a small HDF5 file, built in memory, by atomic rename.

    HDF5 itself never touches the disk, so a full disk is an ordinary ``OSError``.

    Args:
        path: The file that appears.
        kind: Its format name.
        fill: Puts the contents into the open file.
    """
    with h5py.File(path.name, "w", driver="core", backing_store=False, libver=LIBVER) as file:
        fill(file)
        file.flush()
        image = file.id.get_file_image()
    write_whole(path, _seal_line(kind, hashlib.sha256(image).hexdigest()) + image)


def reserve_space(descriptor: int, size: int) -> None:
    """Let a file have so many bytes, with space for them on the disk.

    Raises:
        OSError: There is no space.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    for start in range(0, size, _ZEROS):
        os.pwrite(descriptor, bytes(min(_ZEROS, size - start)), start)


@contextmanager
def writing_hdf5(path: Path, size: int, **options: Any) -> Iterator[h5py.File]:
    """Let HDF5 write a file that may be larger than memory.

    HDF5 does not survive a disk that is full, and ends the process: space is reserved before.

    Args:
        path: The file; what it held is gone.
        size: Bytes that the file will have at most.
        options: Of :class:`h5py.File`.

    Raises:
        OSError: There is no space.
    """
    with path.open("wb") as held:
        reserve_space(held.fileno(), size)
    with h5py.File(path, "w", locking=False, **options) as file:  # the lock on it is ours
        with path.open("rb+") as held:
            reserve_space(held.fileno(), size)  # which HDF5 has given back
        yield file
        file.flush()
        end = file.id.get_filesize()
    os.truncate(path, end)


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Let a file appear whole, by atomic rename, or stay as it was before.

    Its bytes are on the disk before it has its name, and its name is before anything that follows.

    Args:
        path: The file.

    Yields:
        What to write in its place; it is gone if that fails.

    Raises:
        OSError: It cannot be written.
        StoreError: Another process is writing it.
    """
    temporary = path.with_name(path.name + ".tmp")
    with _writing_alone(temporary, path):
        try:
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


@contextmanager
def _writing_alone(temporary: Path, path: Path) -> Iterator[None]:
    """Hold a lock on the file that is written, which ends with the process, however."""
    if os.name != "posix":
        yield
        return
    import fcntl

    with temporary.open("ab") as held:
        busy = StoreError(f"{path}: another process is writing it; wait until it has finished")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # no locks are kept there
                raise
        if _number_of(temporary) != os.fstat(held.fileno()).st_ino:
            raise busy  # it has just given the file that was opened here its name
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(held, fcntl.LOCK_UN)  # also of what was forked meanwhile


def _number_of(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file by atomic rename, so that it is there whole or as it was before.

    Raises:
        OSError: It cannot be written.
    """
    with appearing(path) as temporary:
        temporary.write_bytes(content)


def seal(path: Path, kind: str) -> None:
    """Hash a finished file and write its first line.

    Cost: one read of the file.
    """
    with path.open("r+b") as file:
        file.seek(USERBLOCK)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        file.write(_seal_line(kind, digest))
        file.flush()
        os.fsync(file.fileno())


def check_seal(path: Path, kind: str) -> None:
    """Hash a file of a known kind and compare with its first line.

    Cost: one read of the file.

    Raises:
        DamagedError: Any byte differs.
    """
    with path.open("rb") as file:
        block = file.read(USERBLOCK)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if block != _seal_line(kind, digest):
        raise DamagedError(
            f"{path}: its bytes are not the ones that were written (sha256 differs); delete the "
            f"file and extract again"
        )
