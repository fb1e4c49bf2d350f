"""Commands whose private memory the kernel bounds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from featkit.analyses.probe import ProbeConfig
from featkit.errors import UsageError
from tests.store.conftest import make_samples, make_table

BOUNDED = """
import json, pathlib, resource, sys
from featkit_cli.main import main

def status(arguments):
    try:
        main(arguments)
    except SystemExit as ended:
        return ended.code

left, first, *others = json.loads(sys.argv[1])
ended = [status(first)]  # loads all that is loaded on the way
taken = int(pathlib.Path("/proc/self/status").read_text().split("VmData:")[1].split()[0])
resource.setrlimit(resource.RLIMIT_DATA, (taken * 1024 + left,) * 2)
ended += map(status, others)
print(json.dumps(ended))
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bounds private memory")


def bounded(left: int, *commands: list[object]) -> tuple[list[int], str]:
    """Run commands in one process, of which all but the first may take so much memory."""
    asked = json.dumps([left, *([str(part) for part in command] for command in commands)])
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, asked], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def write(store: Path, count: int, width: int, models: int = 1) -> Path:
    """Write tables of three classes, of each of which one image cannot be read."""
    rng = np.random.default_rng(count)
    labels = rng.integers(0, 3, count)
    manifest = make_samples(store, labels, ["ant", "bee", "cow"])
    for model in range(models):
        x = rng.random((count, width), np.float32)
        x[np.arange(count), labels + 3 * model] += 1
        x[7 + model] = np.nan
        make_table(store, manifest, f"net{model}/fc.none", x, weights=str(model))
    return store


def test_a_probe_of_rows_that_its_memory_cannot_hold(tmp_path: Path) -> None:
    """Held rows take 41 MB and as much again in their eigenbasis; 60 MB are left."""
    little, large = write(tmp_path / "little", 2000, 128), write(tmp_path / "large", 100_000, 128)
    tail = [write(tmp_path / "test", 200, 128), "--protocol", "unregularised"]
    ended, told = bounded(
        60_000_000,
        ["probe", little, *tail],
        ["probe", large, *tail],
        ["probe", large, *tail, "--max-memory", "0.03"],
    )
    assert ended == [0, 1, 0]
    assert told == (
        "featkit: no memory is left for this process: give it more, or bound what the command "
        "holds (--max-memory, where it is an option)\n"
    )


def test_an_ensemble_of_tables_larger_than_its_memory(tmp_path: Path) -> None:
    """Two tables of 41 MB; 100 MB are left, of which a search takes one table.

    Copies of what is readable, of a combination and of ψ with its moments would take 330 MB.
    """
    little, large = write(tmp_path / "a", 2000, 256, 2), write(tmp_path / "b", 40_000, 256, 2)
    test, quick = write(tmp_path / "test", 60, 256, 2), ["--epochs", 1, "--warmup", 0, "--quiet"]
    quick += ["--batch-size", 1000, "--hidden", 16, "--k", 20, "--max-memory", 1e-4]
    ended, told = bounded(
        100_000_000,
        ["ensemble-fit", little, "--test", test, "-o", tmp_path / "one", *quick],
        ["ensemble-fit", large, "--test", test, "-o", tmp_path / "two", *quick],
    )
    assert (ended, told) == ([0, 0], "")
    rows = json.loads((tmp_path / "two" / "result.json").read_text())["tables"]["knn"]
    assert [row["features"] for row in rows][2:] == ["average", "concat", "ensemble"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_memory": 0.0}, "max_memory is 0.0: give GB, a number above 0"),
        ({"max_memory": float("nan")}, "max_memory is nan: give GB"),
        ({"max_memory": 1.0, "protocol": "sgd"}, "max_memory: sgd holds all rows"),
    ],
)
def test_bounds_that_mean_nothing(given: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ProbeConfig(**given)  # type: ignore[arg-type]
