"""Interleaved runs, medians, and a JSON that says where they were measured."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
LIBRARIES = (
    "featkit",
    "torch",
    "torchvision",
    "timm",
    "faiss-cpu",
    "scikit-learn",
    "numpy",
    "h5py",
)


def interleaved(
    alternatives: Mapping[str, Callable[[], float]], repeats: int
) -> dict[str, list[float]]:
    """Run every alternative once a round, in turn, and return the figures of each.

    Args:
        alternatives: By name, what runs once and returns its figure (seconds, bytes, …).
        repeats: Rounds; one more is run first and not counted.
    """
    figures: dict[str, list[float]] = {name: [] for name in alternatives}
    for round_ in range(repeats + 1):
        for name, run in alternatives.items():
            figure = run()
            print(f"  round {round_}/{repeats}  {name:<32} {figure:10.4f}", file=sys.stderr)
            if round_:
                figures[name].append(figure)
    return figures


def median_ratio(slow: list[float], fast: list[float]) -> float:
    """Return the median over the rounds of slow / fast."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def machine() -> dict[str, Any]:
    """Describe the machine and the versions of what was measured."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        cpu = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), cpu)
        flags = next((x for x in lines if x.startswith("flags")), "").split()
        wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
        cpu += " (" + " ".join(flag for flag in wanted if flag in flags) + ")"
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": platform.python_version(),
        "system": platform.system(),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def command_line(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> str:
    """Return the command that makes a result, with folders outside the repository named alike."""
    parts = [f"python -m benchmarks.{Path(sys.argv[0]).stem}"]
    for action in parser._actions:  # noqa: SLF001 - argparse has no public list
        value = getattr(arguments, action.dest, None)
        if action.dest == "help" or value in (None, action.default):
            continue
        flag = action.option_strings[0] if action.option_strings else ""
        for one in value if isinstance(value, list) else [value]:
            shown = action.metavar if isinstance(one, Path) else shlex.quote(str(one))
            parts.append(flag if one is True else f"{flag} {shown}".strip())
    return " ".join(parts)


def save(name: str, command: str, claims: list[dict[str, Any]], **details: Any) -> None:
    """Write ``results/NAME.json``.

    Args:
        name: Of the result.
        command: That makes it.
        claims: Rows of the table in the README: ``what``, ``measured``, ``target``, ``met``,
            ``sized`` (what was sized down, or how large it was).
        **details: Whatever else was measured.
    """
    RESULTS.mkdir(exist_ok=True)
    content = {
        "name": name,
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "claims": claims,
        **details,
    }
    path = RESULTS / f"{name}.json"
    path.write_bytes(f"{json.dumps(content, indent=1, ensure_ascii=False)}\n".encode())
    for claim in claims:
        print(f"{claim['what']}: {claim['measured']} (target {claim['target']})")
    print(f"saved {path}", file=sys.stderr)


def peak_memory(code: str, *arguments: str) -> int:
    """Run Python code in a process of its own and return its peak memory in bytes."""
    measured = (
        "import resource, sys\n"
        f"{code}\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", measured, *arguments], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])
