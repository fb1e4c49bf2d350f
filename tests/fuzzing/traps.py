"""A parser that does what none may, so that the watch can be seen to see it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import h5py
from hypothesis import strategies as st

from featkit.errors import FeatkitError
from tests.fuzzing.target import Case, Target


def _lay_out(folder: Path) -> None:
    with h5py.File(folder / "../outside/far.h5", "w") as file:
        file["x"] = range(8)
    (folder / "../outside/raw").write_bytes(bytes(64))
    with h5py.File(folder / "near.h5", "w") as file:
        file["link"] = h5py.ExternalLink("../outside/far.h5", "x")
        file.create_dataset("storage", 8, "i8", external=[("../outside/raw", 0, 64)])


def _read_near(name: str) -> object:
    with h5py.File("near.h5", locking=False) as file:
        return file[name][...].tolist()


def _refuse_in_two_lines() -> None:
    error = FeatkitError("")
    error.args = ("one\ntwo",)
    raise error


def _spin() -> None:
    begun = time.process_time()
    while time.process_time() - begun < 0.5:
        pass


_TRAPS: dict[str, Callable[[Path], object]] = {
    "open": lambda _: len(Path("/etc/passwd").read_bytes()),
    "write": lambda folder: (folder.parent / "outside" / "new").write_bytes(b"x"),
    "run": lambda _: subprocess.run(["true"], check=True).returncode,
    "exec": lambda _: exec("x = 1"),
    "memory": lambda _: len(bytearray(600 << 20)),
    "much memory": lambda _: len(bytearray(8 << 30)),
    "two lines": lambda _: _refuse_in_two_lines(),
    "slow": lambda _: _spin(),
    "hang": lambda _: time.sleep(600),
    "die": lambda _: os.kill(os.getpid(), signal.SIGSEGV),
    "link": lambda _: _read_near("link"),
    "storage": lambda _: _read_near("storage"),
}


def _read(folder: Path, words: tuple[str, ...]) -> object:
    return [_TRAPS[word](folder) for word in words]


TRAPS = Target(
    name="traps", kind="traps", modules=(), lay_out=_lay_out,
    cases=lambda _: st.builds(Case), starts=lambda *_: True, read=_read,
)  # fmt: skip

SEEN = {
    "open": "touches what it may not: open ('/etc/passwd'",
    "write": "touches what it may not: open",
    "run": "touches what it may not: subprocess.Popen",
    "exec": "touches what it may not: compile",
    "memory": "memory: 6",
    "much memory": "MemoryError",
    "two lines": "one\ntwo at ",
    "die": "crashes SIGSEGV",
}
"""What is said of each."""

SEEN_BY_TIMES = {
    "link": "touches what it may not: reads far.h5",
    "storage": "touches what it may not: reads raw",
}
"""What is said of those that read by C code, where the disk keeps the time of reading."""
