"""Memory that stays, measured by the page faults of a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import contextlib, resource, torch
from featkit.trainers.memory import kept_memory

def step():
    return sum(torch.ones(3_000_000) for _ in range(4))  # 12 MB each

def faults(context):
    with context:
        counts = [resource.getrusage(resource.RUSAGE_SELF).ru_minflt]
        for _ in range(20):
            step()
            counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        return [after - before for before, after in zip(counts, counts[1:])]

torch.set_num_threads(1)
print(*faults(kept_memory()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux")
def test_most_steps_take_no_new_pages() -> None:
    """A block may find its place late, once; without kept memory every step takes all its pages."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    pages_of_a_step = 4 * 3_000_000 * 4 // 4096
    taken = [int(count) for count in done.stdout.split()]
    assert taken[0] > pages_of_a_step / 4
    assert sum(count > pages_of_a_step / 100 for count in taken) <= 5
