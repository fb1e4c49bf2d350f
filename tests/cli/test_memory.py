"""Commands whose private memory the kernel bounds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.store.conftest import make_samples, make_table

BOUNDED = """
import pathlib, resource, sys
from featkit_cli.main import main
from featkit.analyses.probe import Probe
from featkit_cli.ensemble import ensemble_fit
taken = int(pathlib.Path("/proc/self/status").read_text().split("VmData:")[1].split()[0])
resource.setrlimit(resource.RLIMIT_DATA, (taken * 1024 + int(sys.argv[1]),) * 2)
main(sys.argv[2:])
"""


def bounded(left: int, *arguments: object) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, *map(str, (left, *arguments))],
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="bounds private memory")
def test_a_probe_of_a_table_larger_than_its_memory(tmp_path: Path) -> None:
    """A table takes 38 MB, and 40 MB are left; without a bound the rows are held, too."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 60_000), ("test", 500)):
        labels = rng.integers(0, 3, count)
        x = rng.standard_normal((count, 160), np.float32)
        x[np.arange(count), labels] += 3
        x[7] = np.nan
        manifest = make_samples(tmp_path / name, labels, ["ant", "bee", "cow"])
        make_table(tmp_path / name, manifest, "net/fc.none", x)
    asked = (
        60_000_000,
        "probe",
        tmp_path / "train",
        tmp_path / "test",
        "--protocol",
        "unregularised",
    )
    assert bounded(*asked) == (
        1,
        "",
        "featkit: no memory is left for this process: give it more, or bound what the command "
        "holds (--max-memory, where it is an option)\n",
    )
    status, shown, _ = bounded(*asked, "--max-memory", 0.02)
    assert status == 0
    assert "0.9" in shown


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--max-memory", "0"], "max_memory is 0.0: give GB, a number above 0"),
        (["--max-memory", "nan"], "max_memory is nan: give GB"),
        (["--max-memory", "1", "--protocol", "sgd"], "max_memory: sgd holds all rows"),
    ],
)
def test_bounds_that_mean_nothing(given: list[str], message: str) -> None:
    from featkit.analyses.probe import ProbeConfig
    from featkit.errors import UsageError

    named = dict(zip([flag[2:].replace("-", "_") for flag in given[::2]], given[1::2], strict=True))
    with pytest.raises(UsageError, match=message):
        ProbeConfig(**named | {"max_memory": float(named["max_memory"])})  # type: ignore[arg-type]


@pytest.mark.skipif(sys.platform != "linux", reason="bounds private memory")
def test_an_ensemble_of_tables_larger_than_its_memory(tmp_path: Path) -> None:
    """Two tables of 41 MB, an image of each unreadable; 110 MB are left.

    Copies of what is readable, of a combination and of ψ with its moments would take 530 MB.
    """
    rng = np.random.default_rng(0)
    for name, count in (("train", 40_000), ("test", 60)):
        labels = rng.integers(0, 3, count)
        manifest = make_samples(tmp_path / name, labels, ["ant", "bee", "cow"])
        for number, model in enumerate(("net_a", "net_b")):
            x = rng.random((count, 256), np.float32)
            x[np.arange(count), labels + 3 * number] += 4
            x[7 + number] = np.nan
            make_table(tmp_path / name, manifest, f"{model}/fc.none", x, weights=model)
    status, shown, told = bounded(
        110_000_000,
        "ensemble-fit", tmp_path / "train", "--test", tmp_path / "test", "-o", tmp_path / "two",
        "--epochs", 1, "--warmup", 0, "--batch-size", 8000, "--hidden", 16, "--k", "1,20",
        "--max-memory", 0.001, "--quiet",
    )  # fmt: skip
    assert (status, told) == (0, "")
    assert all(f"{name} " in shown for name in ("average", "concat", "ensemble"))
