"""A process whose private memory the kernel bounds, and what it held at most."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIELDS = {"anonymous": ("RssAnon",), "file": ("RssFile", "RssShmem"), "data": ("VmData",)}
"""What is looked at, by the names of the kernel."""

BOUNDED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]),) * 2)
os.execvp(sys.argv[2], sys.argv[2:])
"""

INTERVAL = 0.02
"""Seconds between two looks."""


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        status: 0, or what it failed with.
        seconds: How long it ran.
        peaks: Most bytes of each kind that were seen.
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
        cap: Bytes of memory that is private and writable (``RLIMIT_DATA``), reserved or touched.
        folder: Where it runs.
    """
    peaks = dict.fromkeys(FIELDS, 0)
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as error:
        process = subprocess.Popen(
            [sys.executable, "-c", BOUNDED, str(cap), *command],
            stdout=output,
            stderr=error,
            cwd=folder,
        )
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            for name, held in _held(status).items():
                peaks[name] = max(peaks[name], held)
            time.sleep(INTERVAL)
        seconds = time.perf_counter() - started
        output.seek(0)
        error.seek(0)
        return Ended(process.returncode, seconds, peaks, output.read(), error.read())


def _held(status: Path) -> dict[str, int]:
    """Return the bytes of each kind; nothing of a process that has ended."""
    try:
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    except (OSError, ValueError):
        return {}
    return {
        name: sum(1024 * int(lines[one].split()[0]) for one in ones)
        for name, ones in FIELDS.items()
        if all(one in lines for one in ones)
    }
