"""How much memory there is to be had."""

from __future__ import annotations

import os
import re
from pathlib import Path


def free_memory() -> int:
    """Return the bytes that can be had without swapping; all there are where that is not told."""
    told = Path("/proc/meminfo")
    if told.exists():
        found = re.search(r"MemAvailable:\s+(\d+) kB", told.read_text())
        if found:
            return int(found[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
