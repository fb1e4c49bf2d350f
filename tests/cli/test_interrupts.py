"""Ctrl-C where Python forgets it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_stop_a_command_whatever_comes_of_it(number: int) -> None:
    """Compiled libraries turn an interrupt at their start into errors of their own."""
    code = f"""
import os, signal
from featkit_cli.main import cli, main
signal.signal(signal.SIGINT, signal.default_int_handler)

def starts(*given, **named):
    try:
        os.kill(os.getpid(), {int(number)})
    except KeyboardInterrupt:
        raise ImportError("initialization failed")

cli.main = starts
main(["train", "simclr"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 128 + number
    assert done.stderr == "featkit: stopped; the same command goes on from here\n"


def test_stopped_while_the_command_is_read() -> None:
    code = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)

class Stops:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Stops())
import featkit_cli.start
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "featkit: stopped\n")


def test_a_stop_within_code_made_of_text_ends_as_any_other(tmp_path: Path) -> None:
    """Python itself ends by the signal then: after ``exec``, with ``python -m``."""
    (tmp_path / "stopped.py").write_text("""
import os, signal
from featkit_cli.main import cli, main
signal.signal(signal.SIGINT, signal.default_int_handler)
cli.main = lambda *given, **named: exec("os.kill(os.getpid(), signal.SIGINT)")
main(["extract"])
""")
    done = subprocess.run(
        [sys.executable, "-m", "stopped"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 130
    assert done.stderr == "featkit: stopped; the same command goes on from here\n"
