"""What a long work says of itself on stderr: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from featkit.errors import one_line
from featkit.parallel.group import is_first

INTERVAL = 30.0
"""Seconds between two lines of a log."""

PATIENCE = 2.0
"""Seconds after which a terminal shows how long something takes."""


def progress_bar(
    total: int | None, what: str, unit: str, *, show: bool = True, **options: Any
) -> tqdm[Any]:
    """Open a bar where stderr is a terminal, and otherwise what writes plain lines.

    A line comes every :data:`INTERVAL` seconds in which something is done, and one at the end if
    it took that long: what, done of how many, rate, time left.

    Args:
        total: How many there are to do; None where this is not known.
        what: What is done, in a word.
        unit: One of the things; ``B`` for bytes, which are told in thousands and millions.
        show: Whether to say anything; of several processes only the first one does.
        options: Others of :class:`tqdm.tqdm`, as ``initial`` or ``delay``.

    Returns:
        A context with ``update(n)``, ``set_postfix(name=value)`` and ``refresh()`` of tqdm.

    Example:
        >>> with progress_bar(1000, "hashing", "img", show=False) as bar:
        ...     _ = bar.update(10)
    """
    kind = tqdm if sys.stderr.isatty() else _Log
    return kind(
        total=total,
        desc=one_line(what),
        unit=unit,
        unit_scale=unit == "B",
        file=sys.stderr,
        disable=not (show and is_first()),
        **options,
    )


@contextmanager
def clock(what: str) -> Iterator[None]:
    """Show how long something takes that nobody counts: a time on a terminal, lines in a log.

    A terminal has it after :data:`PATIENCE`, every second, until the end, which takes it away; a
    log has a line every :data:`INTERVAL`.

    Args:
        what: What is done, in a word.

    Example:
        >>> with clock("knn"):
        ...     pass
    """
    ended = threading.Event()
    thread = threading.Thread(target=_tell_time, args=(one_line(what), ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _tell_time(what: str, ended: threading.Event) -> None:
    started, is_terminal = time.monotonic(), sys.stderr.isatty()
    before, after = ("\r", "\x1b[K") if is_terminal else ("", "\n")
    wait, has_told = PATIENCE if is_terminal else INTERVAL, False
    while not ended.wait(wait):
        elapsed = tqdm.format_interval(round(time.monotonic() - started))
        sys.stderr.write(f"{before}{what}: at work for {elapsed}{after}")
        sys.stderr.flush()
        wait, has_told = min(1.0, PATIENCE) if is_terminal else INTERVAL, True
    if is_terminal and has_told:
        sys.stderr.write(before + after)
        sys.stderr.flush()


class _Log(tqdm):  # type: ignore[misc]
    """A bar that is written as lines; it counts, and tells rate and time left, as any other."""

    def __init__(self, **options: Any) -> None:
        self._next = INTERVAL
        super().__init__(**options, gui=True)  # gui: tqdm itself writes nothing

    def display(self, *_: Any, **__: Any) -> bool:
        """Write a line if it is time for one."""
        elapsed = self.format_dict["elapsed"]
        if elapsed >= self._next:
            self._next = elapsed + INTERVAL
            self._write("{remaining} left")
        return True

    def close(self) -> None:
        """Write the last line, if it took long enough for any."""
        if not self.disable and self.format_dict["elapsed"] >= INTERVAL:
            self._ema_dt = lambda: None  # the rate of the whole, as in tqdm's own last line
            self._write("in {elapsed}")
        super().close()

    def clear(self, *_: Any, **__: Any) -> None:
        """Leave what is written: lines of a log are not taken back."""

    def _write(self, time: str) -> None:
        done = "{n_fmt}/{total_fmt} {unit} ({percentage:.0f}%)"
        if self.total is None or self.n > self.total:
            done = "{n_fmt} {unit}"
        line = f"{{desc}}: {done}, {{rate_fmt}}, {time}{{postfix}}"
        meter = self.format_meter(**{**self.format_dict, "bar_format": line, "ncols": None})
        self.fp.write(f"{one_line(meter)}\n")
        self.fp.flush()
