"""System calls of a run: all that change what is on the disk, and a kill at one of them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults import Run, pause, start

CALLS = {
    "rename": "rename,renameat,renameat2",
    "unlink": "unlink,unlinkat,rmdir",
    "mkdir": "mkdir,mkdirat",
    "sync": "fsync,fdatasync",
    "write": "write,pwrite64,ftruncate",
}
"""System calls that change what is on the disk, by kind."""

_LINE = re.compile(r"^(?:\[pid +\d+\] |\d+ +)?(\w+)\((.*)")


@dataclass(frozen=True)
class Call:
    """A system call of a run.

    Attributes:
        name: Of the call.
        count: Which call of this name it is, from 1.
        line: As strace writes it, with the paths of descriptors.
    """

    name: str
    count: int
    line: str


def has_strace() -> bool:
    """Whether system calls can be counted here."""
    return shutil.which("strace") is not None


def _attached(run: Run, log: Path, *options: str) -> subprocess.Popen[bytes]:
    """Attach strace to the main thread of a stopped run, and let it go on."""
    names = ",".join(CALLS.values())
    command = [
        "strace",
        "-p",
        str(run.pid),
        "-y",
        "-s",
        "0",
        "-o",
        str(log),
        "-e",
        f"trace={names}",
    ]
    tracer = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)
    while "TracerPid:\t0\n" in Path(f"/proc/{run.pid}/status").read_text():
        pause(0.002)
    os.kill(run.pid, signal.SIGCONT)
    return tracer


def traced(arguments: Sequence[object], log: Path) -> tuple[Run, list[Call]]:
    """Run a command and return every call that changed what is on the disk, in order."""
    run = start(arguments, log, stopped=True)
    told = log.with_suffix(".calls")
    tracer = _attached(run, told)
    run.wait()
    tracer.wait()
    counts: Counter[str] = Counter()
    calls = []
    for line in told.read_text("utf-8", "replace").splitlines():
        found = _LINE.match(line)
        if found:
            counts[found[1]] += 1
            calls.append(Call(found[1], counts[found[1]], line))
    return run, calls


def killed_at(arguments: Sequence[object], log: Path, call: Call) -> Run:
    """Run a command that is killed as it is about to make a system call."""
    run = start(arguments, log, stopped=True)
    inject = f"inject={call.name}:signal=SIGKILL:when={call.count}"
    tracer = _attached(run, log.with_suffix(".calls"), "-e", inject)
    run.wait()
    tracer.wait()
    return run


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """Return at most so many of them, from the first to the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / max(1, most - 1))] for i in range(most)]


def chosen_calls(calls: Sequence[Call], place: Path, most: int) -> list[Call]:
    """Return calls to be killed at: the last ones, and others evenly, of each kind."""
    ours = [call for call in calls if str(place) in call.line]
    found = []
    for names in CALLS.values():
        kind = [call for call in ours if call.name in names.split(",")]
        found += evenly(kind, most) if most < 3 else evenly(kind[:-2], most) + kind[-2:]
    return found
