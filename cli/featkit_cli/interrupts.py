"""Ctrl-C, and the system's request to end, that are heard wherever they fall."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_MOMENT = 0.05
"""Seconds after which a destructor has ended."""


@dataclass
class Stop:
    """Whether a command was told to stop.

    Attributes:
        number: The signal that was heard, None if none was.
    """

    number: int | None = None

    @property
    def exit_status(self) -> int:
        """128 and the signal's number, as shells say it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.number or signal.SIGINT)

    def hear(self, number: int, _frame: object) -> None:
        """Take note of a signal, and raise ``KeyboardInterrupt`` where the command is."""
        self.number = number
        raise KeyboardInterrupt


@contextmanager
def lasting_interrupts() -> Iterator[Stop]:
    """Stop a command by SIGINT (Ctrl-C) and SIGTERM, whatever it does at that moment.

    Both raise ``KeyboardInterrupt``. One that falls into a destructor or a callback of a weak
    reference is printed and forgotten by Python, and the program goes on: it is sent again. One
    that falls into the start of a compiled library may come out as another error: ``number`` then
    says what it was. Signals that whoever started the command has switched off stay so.

    Yields:
        What was heard.
    """
    stop = Stop()
    before = sys.unraisablehook

    def again(lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            number = stop.number or signal.SIGINT
            timer = threading.Timer(_MOMENT, os.kill, (os.getpid(), number))
            timer.daemon = True
            timer.start()
        else:
            before(lost)

    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                handlers[number] = signal.signal(number, stop.hear)
    sys.unraisablehook = again
    try:
        yield stop
    finally:
        # what a stop takes away half made has nothing to say
        sys.unraisablehook = before if stop.number is None else _say_nothing
        for number, handler in handlers.items():  # one that has stopped need not be told again
            signal.signal(number, handler if stop.number is None else signal.SIG_IGN)


def _say_nothing(_: object) -> None:
    """Be told of an error in a destructor."""
