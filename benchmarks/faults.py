"""Real faults for real runs: kills, a disk that is full, system calls that are counted."""

from __future__ import annotations

import csv
import ctypes
import hashlib
import importlib
import io
import json
import multiprocessing.util
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

LIMIT = 300.0
"""Seconds after which a run hangs."""

_MODULES = (
    "faiss",
    "featkit_cli.main",
    "featkit_cli.extract",
    "featkit_cli.ensemble",
    "featkit_cli.train",
    "featkit_cli.export",
    "featkit_cli.dissect",
    "featkit_cli.saliency",
    "featkit.analyses.dissect.analysis",
    "featkit.analyses.ensemble.run",
    "featkit.analyses.neighbors",
    "featkit.analyses.probe",
    "featkit.analyses.projection",
    "featkit.analyses.saliency.analysis",
    "featkit.analyses.diversity.analysis",
    "featkit.extraction.pipeline",
    "featkit.report.figures",
    "featkit.report.dissection",
    "featkit.trainers.deepcluster.method",
    "featkit.trainers.simclr",
    "featkit.trainers.treenet",
    "featkit.trainers.training",
    "sklearn.decomposition",
    "sklearn.manifold",
)
"""What runs import; a run that is forked from a process that has them starts at once."""


def preload() -> None:
    """Import what runs need, and compute nothing: a process with threads cannot be forked."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in _MODULES:
        importlib.import_module(name)


def pause(seconds: float) -> None:
    """Wait, also in a process that libfaketime tells the time, where ``time.sleep`` fails."""
    select.select([], [], [], seconds)


@dataclass
class Run:
    """A command that runs.

    Attributes:
        pid: Of its process, which leads a session of its own.
        log: What it says on stderr; stdout goes beside it.
        started: When, by the monotonic clock.
    """

    pid: int
    log: Path
    started: float
    status: int | None = None

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self.log.read_text("utf-8", "replace")

    @property
    def last(self) -> str:
        """The last line that it has said."""
        return (self.said.strip().splitlines() or [""])[-1]

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = status if pid else None
        return self.status is not None

    def wait(self) -> int:
        """Return its exit status, minus the signal if it was killed.

        Raises:
            TimeoutError: It hangs; it is killed.
        """
        while not self.over:
            if time.monotonic() - self.started > LIMIT:
                os.killpg(self.pid, signal.SIGKILL)
                raise TimeoutError(f"hangs: {self.said}")
            pause(0.002)
        assert self.status is not None
        return os.waitstatus_to_exitcode(self.status)

    def send(self, number: int, everyone: bool = False) -> bool:
        """Send a signal to the process, or to its children too; say whether it was there."""
        if self.over:
            return False
        (os.killpg if everyone else os.kill)(self.pid, number)
        return True

    @property
    def children(self) -> list[int]:
        """The processes that it has begun and that are alive."""
        return [
            pid for pid, group, state in processes() if group == self.pid != pid and state != "Z"
        ]


def processes() -> Iterator[tuple[int, int, str]]:
    """Yield number, group and state of every process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                yield int(entry.name), int(fields[2]), fields[0]


def start(
    arguments: Sequence[object],
    log: Path,
    before: Callable[[], None] | None = None,
    stopped: bool = False,
) -> Run:
    """Run ``featkit`` in a process forked from this one.

    Args:
        arguments: Of the command.
        log: File for what it says.
        before: Called in the new process first.
        stopped: Whether it waits for SIGCONT.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        if stopped:
            while not any(number == pid and state == "T" for number, _, state in processes()):
                pause(0.001)
        return Run(pid, log, time.monotonic())
    status = 1
    try:
        os.setsid()
        for number, file in ((1, log.with_suffix(".out")), (2, log)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if stopped:
            os.kill(os.getpid(), signal.SIGSTOP)
        if before is not None:
            before()
        from featkit_cli.start import main  # which is read here first, and hears signals

        main([str(argument) for argument in arguments])
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - told, and the process ends
        os.write(2, traceback.format_exc().encode())
    finally:
        with suppress(BaseException):
            multiprocessing.util._exit_function()  # noqa: SLF001 - as at the end of a process
            sys.stdout.flush()
        os._exit(status)


def finish(arguments: Sequence[object], log: Path) -> Run:
    """Run ``featkit`` to its end."""
    run = start(arguments, log)
    run.wait()
    return run


# what is the same

_NOT_COMPARED = {"runs.jsonl", ".lock", "times.csv", "times.png"}


def contents(*folders: Path) -> dict[str, str]:
    """Return the hash of every file that outputs consist of.

    Measured times are left out, and the times that files had when they were last hashed.
    """
    found = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
            if path.is_file() and path.name not in _NOT_COMPARED:
                name = f"{folder.name}/{path.relative_to(folder)}"
                found[name] = hashlib.sha256(_timeless(path)).hexdigest()
    return found


def _timeless(path: Path) -> bytes:
    content = path.read_bytes()
    if path.name == "result.json":
        record = json.loads(content)
        record.pop("sha256", None)  # of all of it, with its seconds
        return json.dumps(_without_seconds(record)).encode()
    if path.suffix == ".csv":
        rows = list(csv.DictReader(io.StringIO(content.decode())))
        return json.dumps(_without_seconds(rows)).encode()
    if path.name == "samples.h5":
        with h5py.File(path) as file:
            parts = [file[name][...].tolist() for name in sorted(file) if name != "stamp"]
            return repr((parts, sorted(file.attrs.items()))).encode()
    return content


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {n: _without_seconds(v) for n, v in value.items() if not n.endswith("seconds")}
    return [_without_seconds(v) for v in value] if isinstance(value, list) else value


# a disk

_REMOUNT, _READ_ONLY = 32, 1


class Disk:
    """A small disk in memory that can be made full, or read-only, while a command runs."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self._libc = ctypes.CDLL(None, use_errno=True)
        folder.mkdir(parents=True, exist_ok=True)
        self._mount(size, first=True)

    def _mount(self, size: int, read_only: bool = False, first: bool = False) -> None:
        flags = (0 if first else _REMOUNT) | (_READ_ONLY if read_only else 0)
        options = f"size={size}".encode()
        if self._libc.mount(b"tmpfs", str(self.folder).encode(), b"tmpfs", flags, options):
            raise OSError(ctypes.get_errno(), f"cannot mount {self.folder}")

    def fill(self, left: int = 0) -> None:
        """Leave so many bytes."""
        status = os.statvfs(self.folder)
        used = (status.f_blocks - status.f_bfree) * status.f_frsize
        self._mount(max(used + left, status.f_frsize))

    def free(self) -> None:
        """Let there be space again."""
        self._mount(self.size)

    def lock(self) -> None:
        """Allow no writing."""
        self._mount(self.size, read_only=True)

    def remove(self) -> None:
        """Take it away."""
        self._libc.umount2(str(self.folder).encode(), 2)
        self.folder.rmdir()


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Disk | None]:
    """Give a disk in memory; None where this user may not mount one."""
    try:
        disk = Disk(folder, size)
    except OSError:
        yield None
        return
    try:
        yield disk
    finally:
        disk.remove()


_WATCHED = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}


def on_change(folder: Path, number: int, act: Callable[[], None]) -> Callable[[], None]:
    """Return what makes a run act before its n-th change below a folder, or at its end.

    Args:
        folder: Where files are opened for writing, renamed, removed, or folders made.
        number: Which change, from 1.
        act: What is done; the run goes on afterwards.
    """
    below, left = f"{folder}{os.sep}", number

    def hook(event: str, given: tuple[Any, ...]) -> None:
        nonlocal left
        is_open = event == "open" and isinstance(given[2], int) and given[2] & os.O_ACCMODE
        if left and (is_open or event in _WATCHED) and str(given[0]).startswith(below):
            left -= 1
            if not left:
                act()

    return lambda: sys.addaudithook(hook)
