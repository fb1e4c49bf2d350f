"""A parser that does what none may, so that the watch can be seen to see it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from hypothesis import strategies as st

from tests.fuzzing.target import Case, Target


def _read(folder: Path, words: tuple[str, ...]) -> object:
    match words:
        case ("open",):
            return len(Path("/etc/passwd").read_bytes())
        case ("write",):
            return (folder.parent / "outside" / "new").write_bytes(b"x")
        case ("run",):
            return subprocess.run(["true"], check=True).returncode
        case ("exec",):
            return exec("x = 1")
        case ("memory",):
            return len(bytearray(600 << 20))
        case ("much memory",):
            return len(bytearray(8 << 30))
        case ("die",):
            os.kill(os.getpid(), signal.SIGSEGV)
    return None


TRAPS = Target(
    name="traps", kind="traps", modules=(), lay_out=lambda _: None,
    cases=lambda _: st.builds(Case), starts=lambda *_: True, read=_read,
)  # fmt: skip

SEEN = {
    "open": "touches what it may not: open ('/etc/passwd'",
    "write": "touches what it may not: open",
    "run": "touches what it may not: subprocess.Popen",
    "exec": "touches what it may not: compile",
    "memory": "memory: 6",
    "much memory": "MemoryError",
    "die": "crashes SIGSEGV",
}
"""What is said of each."""
