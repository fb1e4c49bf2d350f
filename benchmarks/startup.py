"""How long the first answer takes: ``featkit --help`` and ``import featkit``."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.harness import command_line, interleaved, save


def process(*arguments: str) -> Callable[[], float]:
    """Return a function that runs Python once and gives the seconds."""

    def once() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        return time.perf_counter() - started

    return once


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    seconds = interleaved(
        {
            "python": process("-c", "pass"),
            "import featkit": process("-c", "import featkit"),
            "featkit --help": process("-m", "featkit_cli", "--help"),
        },
        given.repeats,
    )
    median = {name: statistics.median(times) for name, times in seconds.items()}
    beyond = median["import featkit"] - median["python"]
    sized = f"median of {given.repeats} processes"
    save(
        "startup",
        command_line(parser, given),
        [
            {
                "what": "featkit --help",
                "measured": f"{median['featkit --help']:.2f} s",
                "target": "< 0.5 s",
                "met": median["featkit --help"] < 0.5,
                "sized": sized,
            },
            {
                "what": "import featkit, beyond Python's start",
                "measured": f"{beyond:.3f} s",
                "target": "< 0.3 s",
                "met": beyond < 0.3,
                "sized": sized,
            },
        ],
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
