"""Rows of a mapped file in random order, with and without announcing them.

The process may hold half of the file, of which nothing is in memory before.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.capped import run_capped
from benchmarks.harness import command_line, interleaved, median_ratio, save
from featkit.ops.read_ahead import ReadAhead

BATCH = 256
SECONDS = 5.0
HERE = Path(__file__).resolve().parents[1]


def read_rows(path: Path, announced: bool) -> float:
    """Return how many rows a second are read."""
    table = np.load(path, mmap_mode="r")
    rng, count = np.random.default_rng(0), 0
    with ReadAhead([table] if announced else []) as ahead:
        rows = np.sort(rng.integers(0, len(table), BATCH))
        started = time.perf_counter()
        while time.perf_counter() - started < SECONDS:
            following = np.sort(rng.integers(0, len(table), BATCH))
            ahead.announce(following)
            table[rows].sum()
            rows, count = following, count + BATCH
        return count / (time.perf_counter() - started)


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", choices=["plain", "announced"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.work = given.work.resolve()
    path = given.work / "rows.npy"
    if given.alone:
        print(read_rows(path, given.alone == "announced"))
        return
    given.work.mkdir(parents=True, exist_ok=True)
    made = np.lib.format.open_memmap(path, "w+", np.float32, (given.rows, given.width))
    for start in range(0, given.rows, 2**16):
        made[start : start + 2**16] = start
    made.flush()
    size = made.nbytes
    del made

    def capped(how: str) -> float:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        command = [sys.executable, "-m", "benchmarks.read_ahead", str(given.work), "--alone", how]
        ended = run_capped(command, cap=size // 2, folder=HERE)
        if ended.status:
            raise SystemExit(ended.error)
        return float(ended.output)

    try:
        rates = interleaved(
            {how: lambda how=how: capped(how) for how in ("plain", "announced")}, given.repeats
        )
    finally:
        path.unlink()
    disk = given.work.stat().st_dev
    ahead = Path(f"/sys/class/bdi/{os.major(disk)}:{os.minor(disk)}/read_ahead_kb")
    kb = ahead.read_text().strip() if ahead.exists() else "?"
    plain, announced = (f"{statistics.median(rates[how]):,.0f}" for how in ("plain", "announced"))
    claims = [
        {
            "what": "rows in random order of a mapped file twice as large as memory, announced",
            "measured": f"{median_ratio(rates['announced'], rates['plain']):.1f}× as fast "
            f"({announced} for {plain} rows a second)",
            "target": "≥ 2×",
            "met": median_ratio(rates["announced"], rates["plain"]) >= 2,
            "sized": f"{given.rows:,} rows of {4 * given.width:,} bytes, {BATCH} at a time; "
            f"the system reads {kb} kB ahead",
        }
    ]
    save("read_ahead", command_line(parser, given), claims, rows_per_second=rates)


if __name__ == "__main__":
    main()
