"""Memory that stays with the process from one step to the next."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_ALL = 2**31 - 1
_MOST = 32 * 2**20
"""Where glibc's own, moving threshold ends up in a process that frees large blocks (64 bits)."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Let the C library keep what is freed, on Linux; elsewhere nothing changes.

    A step frees its activations and asks for the same amounts again. By default they come page by
    page from the system, which clears each, every time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        yield
        return
    mallopt(_MMAP_THRESHOLD, _ALL)
    mallopt(_TRIM_THRESHOLD, _ALL)
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, _MOST)
        mallopt(_TRIM_THRESHOLD, 2 * _MOST)
