"""Ctrl-C that is heard wherever it falls."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_MOMENT = 0.05
"""Seconds after which a destructor has ended."""


@contextmanager
def lasting_interrupts() -> Iterator[None]:
    """Press Ctrl-C again where Python has dropped it.

    A ``KeyboardInterrupt`` that falls into a destructor or a callback of a weak reference is
    printed and forgotten, and the program goes on.
    """
    before = sys.unraisablehook

    def again(lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            timer = threading.Timer(_MOMENT, os.kill, (os.getpid(), signal.SIGINT))
            timer.daemon = True
            timer.start()
        else:
            before(lost)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before
