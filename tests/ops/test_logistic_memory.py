"""A real bound on private memory: what it lets through, and what it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROBE = """
import pathlib, resource, sys
import numpy as np
from featkit.ops.linear_probe import LinearProbe
x, y = np.load(sys.argv[1], mmap_mode="r"), np.load(sys.argv[2])
LinearProbe((1.0,)).fit(x[:2000], y[:2000])
taken = int(pathlib.Path("/proc/self/status").read_text().split("VmData:")[1].split()[0])
resource.setrlimit(resource.RLIMIT_DATA, (taken * 1024 + int(sys.argv[3]),) * 2)
for given in (None, 0.02):
    try:
        probe = LinearProbe((1.0,), max_memory=given).fit(x, y)
        print(given, round(probe.score(x[::9], y[::9]), 3), probe.converged_)
    except (MemoryError, RuntimeError):
        print(given, "no memory")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="bounds private memory")
def test_rows_larger_than_the_memory_are_learned_from(tmp_path: Path) -> None:
    """Rows take 31 MB, and 30 MB are left for all that is private."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60_000, 128), np.float32)
    y = (x[:, :4].argmax(1) + (rng.random(len(x)) < 0.1)) % 4
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    told = subprocess.run(
        [sys.executable, "-c", PROBE, tmp_path / "x.npy", tmp_path / "y.npy", str(30_000_000)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert told[0] == "None no memory"
    given, right, converged = told[1].split()
    assert (given, converged) == ("0.02", "True")
    assert float(right) > 0.8
