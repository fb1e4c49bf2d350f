"""A process whose memory a control group bounds, and what it held at most."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GROUPS = Path("/sys/fs/cgroup")

JOINS = "import os, sys; open(sys.argv[1], 'w').write('0'); os.execvp(sys.argv[2], sys.argv[2:])"
"""The process joins the group before it becomes what is run, so that all of it is counted."""

INTERVAL = 0.02
"""Seconds between two looks."""


@dataclass(frozen=True)
class Names:
    """What the files of a control group are called, in one version of the kernel's interface.

    Attributes:
        limit: The bound.
        swap: The bound of what is swapped, or of memory and swap together.
        together: Whether `swap` bounds both.
        kinds: What is looked at, and its name in ``memory.stat``.
    """

    limit: str
    swap: str
    together: bool
    kinds: dict[str, str]


FIRST = Names(
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    together=True,
    kinds={"anonymous": "rss", "cached": "cache", "mapped": "mapped_file"},
)
SECOND = Names(
    "memory.max",
    "memory.swap.max",
    together=False,
    kinds={"anonymous": "anon", "cached": "file", "mapped": "file_mapped"},
)


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        status: 0, or what it failed with; -9 where it needed more than its bound by itself.
        seconds: How long it ran.
        peaks: Most bytes of each kind that were seen in its group: anonymous memory, pages of
            files (those of memory's own file systems too), and of these what is mapped.
        output: What it printed.
        error: What it printed to stderr.
    """

    status: int
    seconds: float
    peaks: dict[str, int]
    output: str
    error: str

    def told(self) -> dict[str, Any]:
        """Return what is kept of it."""
        return {"status": self.status, "seconds": self.seconds, **self.peaks}


def run_capped(command: Sequence[str], *, cap: int, folder: Path | None = None) -> Ended:
    """Run a command to its end.

    Args:
        command: Program and arguments.
        cap: Bytes of memory that it and its children may hold together, without swap. Pages of
            files are in it; the kernel drops these before it kills.
        folder: Where it runs.

    Raises:
        SystemExit: No group can be made.
    """
    with (
        _group(cap) as (group, names),
        tempfile.TemporaryFile("w+") as output,
        tempfile.TemporaryFile("w+") as error,
    ):
        peaks = dict.fromkeys(names.kinds, 0)
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", JOINS, str(group / "cgroup.procs"), *command],
            stdout=output,
            stderr=error,
            cwd=folder,
        )
        try:
            while process.poll() is None:
                held = (group / "memory.stat").read_text()
                for kind, name in names.kinds.items():
                    found = re.search(rf"(?m)^{name} (\d+)$", held)
                    peaks[kind] = max(peaks[kind], int(found[1]) if found else 0)
                time.sleep(INTERVAL)
        finally:
            process.kill()
            process.wait()
        seconds = time.perf_counter() - started
        output.seek(0)
        error.seek(0)
        return Ended(process.returncode, seconds, peaks, output.read(), error.read())


@contextmanager
def _group(cap: int) -> Iterator[tuple[Path, Names]]:
    """Make a group of this bound below that of this process, and remove it at the end."""
    above, names = _own_group()
    try:
        group = Path(tempfile.mkdtemp(prefix="capped.", dir=above))
    except OSError as why:
        raise SystemExit(f"{why}: a control group of memory has to be made here (as root)") from why
    try:
        try:
            (group / names.limit).write_text(str(cap))
            if (group / names.swap).exists():
                (group / names.swap).write_text(str(cap if names.together else 0))
        except OSError as why:
            raise SystemExit(f"{why}: the group above passes no bound of memory on") from why
        yield group, names
    finally:
        _remove(group)


def _remove(group: Path) -> None:
    """End what is left in a group, and remove it."""
    for _ in range(100):
        for process in (group / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        with suppress(OSError):  # those that end are in it for a moment
            return group.rmdir()
        time.sleep(INTERVAL)
    raise SystemExit(f"{group} cannot be removed")


def _own_group() -> tuple[Path, Names]:
    """Return the folder of this process' group, or one above, and what its files are called."""
    own = dict[str, str]()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, inside = line.split(":", 2)
        own |= dict.fromkeys(controllers.split(","), inside.lstrip("/"))
    if "memory" in own:
        return GROUPS / "memory" / own["memory"], FIRST
    group = GROUPS / own.get("", "")
    # a group that has processes passes nothing on
    while group != GROUPS and "memory" not in _text(group / "cgroup.subtree_control").split():
        group = group.parent
    return group, SECOND


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
