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
        for _ in range(3):  # by then every block has its place
            step()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            step()
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
print(faults(kept_memory()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux")
def test_steps_take_no_new_pages_after_the_first() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    pages_of_a_step = 4 * 3_000_000 * 4 // 4096
    assert int(done.stdout) < pages_of_a_step / 10
