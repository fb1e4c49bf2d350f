"""How much memory there is to be had."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_GROUP_FILES = {  # limit, what is used of it, what names in memory.stat begin with, by version
    "": ("memory.max", "memory.current", ""),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}
_PROCESS = {"RLIMIT_DATA": "VmData", "RLIMIT_AS": "VmSize"}


def free_memory() -> int:
    """Return the bytes that this process can have without swapping.

    The least of what the machine has, what the control groups of the process leave (containers and
    batch systems set them), and what its own limits leave (``ulimit -d``, ``-v``).
    """
    return max(0, min([free_for_files(), *_limits()]))


def free_for_files() -> int:
    """Return the bytes of files that can stay in memory; limits of a process count none."""
    return max(0, min([_machine(), *_groups()]))


def _machine() -> int:
    """Return what can be had; all there is where that is not told."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", _text(Path("/proc/meminfo")))
    if found:
        return int(found[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _groups() -> Iterator[int]:
    """Yield what each group leaves that the process is in; the kernel can drop pages of files."""
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, controllers, inside = line.split(":", 2)
        for controller in _GROUP_FILES.keys() & controllers.split(","):
            root = _GROUPS / controller
            limit, used, prefix = _GROUP_FILES[controller]
            folder = root / inside.lstrip("/")
            for group in (folder, *folder.parents):
                most = _text(group / limit).strip()
                if most.isdigit():
                    pages = re.findall(
                        rf"(?m)^{prefix}(?:in)?active_file (\d+)$", _text(group / "memory.stat")
                    )
                    # the counts of pages are told late
                    yield int(most) - max(0, int(_text(group / used)) - sum(map(int, pages)))
                if group == root:
                    break


def _limits() -> Iterator[int]:
    """Yield what each limit of the process leaves."""
    status = _text(Path("/proc/self/status"))
    if not status:
        return
    import resource  # which only Unix has

    for limit, name in _PROCESS.items():
        most, _ = resource.getrlimit(getattr(resource, limit))
        held = re.search(rf"(?m)^{name}:\s+(\d+) kB", status)
        if most != resource.RLIM_INFINITY and held:
            yield most - int(held[1]) * 1024


def _text(path: Path) -> str:
    """Return what the kernel tells in a file; nothing where there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""
