"""Ctrl-C where Python forgets it."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import contextlib, os, signal, time
from featkit_cli.interrupts import lasting_interrupts

class Destroyed:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

class Broken:
    def __del__(self):
        raise ValueError("another error")

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with {context}:
        Broken()
        Destroyed()
        time.sleep(2)
    print("went on")
except KeyboardInterrupt:
    print("stopped")
"""


def _ends(context: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(context=context)],
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.strip(), done.stderr


def test_ctrl_c_is_heard_in_a_destructor() -> None:
    said, errors = _ends("contextlib.nullcontext()")
    assert said == "went on"
    assert "KeyboardInterrupt" in errors
    said, errors = _ends("lasting_interrupts()")
    assert said == "stopped"
    assert "KeyboardInterrupt" not in errors
    assert "another error" in errors
