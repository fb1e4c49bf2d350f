"""Approximate neighbours from a store: the index is made once, and real faults cost only time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from featkit.analyses.base import Result
from featkit.analyses.neighbors import KNN, KNNConfig
from featkit.errors import UsageError
from featkit.store.indexes import index_files
from featkit.store.reader import open_store
from featkit.store.verify import verify_store
from tests.ops.approximation import clustered
from tests.store.conftest import make_samples, make_table

NAMES = [str(i) for i in range(10)]


@pytest.fixture
def sides(tmp_path: Path) -> dict[str, Path]:
    """Two stores with two tables each; one image of each cannot be read."""
    for side, n, seed in (("train", 1500, 0), ("test", 400, 1)):
        x = clustered(n, 20, seed)
        manifest = make_samples(tmp_path / side, (x[:, 0] > 0) + 2 * (x[:, 1] > 0), NAMES)
        x[11] = np.nan
        make_table(tmp_path / side, manifest, "a/fc.none", x, weights="a")
        make_table(tmp_path / side, manifest, "b/fc.none", 2 + x[:, ::-1] ** 2, weights="b")
    return {"train": tmp_path / "train", "test": tmp_path / "test"}


def run(sides: dict[str, Path], pattern: str | None = "a", **config: object) -> Result:
    options = {"k": (5,), "device": "cpu", "approximate": "ivf"} | config
    tables = {side: open_store(store).select(pattern) for side, store in sides.items()}
    return KNN(KNNConfig(**options)).run(tables)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_the_second_run_takes_the_index_from_the_store(sides: dict[str, Path], kind: str) -> None:
    first = run(sides, approximate=kind)
    (path,) = index_files(sides["train"])
    made = path.stat().st_mtime_ns, path.read_bytes()
    again = run(sides, approximate=kind)
    assert (path.stat().st_mtime_ns, path.read_bytes()) == made
    assert again.tables == first.tables
    assert again.notes == first.notes
    assert index_files(sides["test"]) == []
    run(sides, approximate=kind, k=(1, 30), recall=0.5)  # the same index serves
    assert path.stat().st_mtime_ns == made[0]
    assert not any(check.problems for check in verify_store(sides["train"]))


@pytest.mark.parametrize("alone", [False, True])
def test_recall_is_measured_and_told(sides: dict[str, Path], alone: bool) -> None:
    if alone:
        sides["test"] = sides["train"]
    result = run(sides, recall=0.8)
    x, y = (open_store(store)["a"] for store in sides.values())
    bank, queries = x.numpy()[x.valid], y.numpy()[y.valid]
    exact = run(sides, approximate=None).tables["accuracy"][0]["top1"]
    assert result.tables["accuracy"][0]["top1"] == pytest.approx(exact, abs=0.05)
    (row,) = result.tables["recall"]
    assert (row["features"], row["k"], row["compared"]) == ("a/fc", 5, min(1000, len(queries)))
    assert 0.7 < row["low"] < row["recall"] < row["high"] < 0.95
    assert result.scalars["recall"] == row["recall"]
    (note,) = result.notes
    assert note.startswith("a/fc: accuracy of approximate neighbours (ivf, ")
    assert f"{row['recall']:.1%} of the 5 nearest are found (95 % interval" in note
    if not alone:  # by scikit-learn
        peer = NearestNeighbors(n_neighbors=5, metric="cosine", algorithm="brute").fit(bank)
        distances, _ = peer.kneighbors(queries)
        from featkit.ops.approximate import ApproximateNeighbors

        index = ApproximateNeighbors(5, "ivf", 0.8, "cpu").fit(bank)
        found, _ = index.kneighbors(queries)
        share = (found >= 1 - distances[:, -1:] - 1e-6).mean()
        assert row["recall"] == pytest.approx(share, abs=1e-9)


def test_all_tables_and_combinations_have_indexes(sides: dict[str, Path]) -> None:
    result = run(sides, None, combine=("average", "concat"))
    assert [row["features"] for row in result.tables["recall"]] == [
        "a/fc", "b/fc", "average", "concat"
    ]  # fmt: skip
    assert len(index_files(sides["train"])) == 4
    assert result.scalars["recall"] == min(row["recall"] for row in result.tables["recall"])
    again = run(sides, None, combine=("concat", "average"))
    assert len(index_files(sides["train"])) == 4
    assert {r["features"]: r for r in again.tables["recall"]} == {
        r["features"]: r for r in result.tables["recall"]
    }


def test_a_damaged_index_is_made_anew(sides: dict[str, Path]) -> None:
    first = run(sides)
    (path,) = index_files(sides["train"])
    whole = path.read_bytes()
    for place in (3, 700, len(whole) - 5):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        path.write_bytes(bytes(damaged))
        again = run(sides)
        assert again.tables == first.tables
        assert again.notes[0].startswith("a/fc: an index is made anew: ")
        assert "its bytes are not the ones that were written" in again.notes[0]
        assert run(sides).notes == first.notes


def test_more_neighbours_than_an_index_was_made_for(sides: dict[str, Path]) -> None:
    run(sides)
    result = run(sides, k=(300,))
    assert "an index is made anew: it knows" in result.notes[0]
    assert len(run(sides, k=(300,)).notes) == 1
    assert len(index_files(sides["train"])) == 1


def test_a_table_that_is_made_anew_gets_another_index(sides: dict[str, Path]) -> None:
    run(sides)
    (old,) = index_files(sides["train"])
    for side, seed in (("train", 5), ("test", 6)):
        store = open_store(sides[side])
        x = clustered(len(store), 20, seed)
        make_table(sides[side], store.samples.manifest, "a/fc.none", x, weights="other")
    run(sides)
    (new,) = index_files(sides["train"])
    assert new != old


FAULTS = """
import pathlib, subprocess, sys
train, test, disk = map(pathlib.Path, sys.argv[1:])
from featkit.analyses.neighbors import KNN, KNNConfig
from featkit.store.reader import open_store
def run():
    tables = {"train": [open_store(disk / "train")["a"]], "test": [open_store(test)["a"]]}
    result = KNN(KNNConfig(k=(5,), device="cpu", approximate="ivf")).run(tables)
    print(result.scalars["recall"], "|", result.notes[0])
size = sum(f.stat().st_size for f in train.rglob("*.h5")) + 40_000
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)
subprocess.run(["cp", "-r", train, disk / "train"], check=True)
run()
print(sorted(f.name for f in (disk / "train").rglob("*.tmp")))
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
run()
"""


def test_a_full_disk_and_a_read_only_store(sides: dict[str, Path], tmp_path: Path) -> None:
    namespace = ["unshare", "--mount", "--map-root-user"]
    disk = tmp_path / "disk"
    disk.mkdir()
    trial = subprocess.run(
        [*namespace, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
        if shutil.which("unshare")
        else ["false"],
        capture_output=True,
    )
    if trial.returncode:
        pytest.skip("cannot mount a small disk here")
    done = subprocess.run(
        [*namespace, sys.executable, "-c", FAULTS, *map(str, sides.values()), str(disk)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    full, left, read_only = done.stdout.splitlines()
    wanted = run(sides).scalars["recall"]
    assert full.startswith(f"{wanted} | a/fc: the index was used and not kept: disk full while")
    assert left == "[]"
    assert read_only.startswith(f"{wanted} | a/fc: the index was used and not kept: cannot write")
    assert "Read-only file system" in read_only


def test_two_processes_at_once(sides: dict[str, Path]) -> None:
    command = [
        sys.executable,
        "-m",
        "featkit_cli",
        "knn",
        *(f"{side}:a" for side in sides.values()),
    ]
    command += ["--k", "5", "--approximate", "ivf", "--device", "cpu", "--json"]
    running = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    one, other = (json.loads(out) for out, _ in said)
    assert one["tables"] == other["tables"]
    assert one["scalars"]["recall"] == other["scalars"]["recall"]
    assert one["config"]["approximate"] == "ivf"
    assert len(index_files(sides["train"])) == 1
    assert not any(check.problems for check in verify_store(sides["train"]))


def test_a_k_that_is_too_large_is_refused_before_an_index_is_made(sides: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="k is 1499 and there are 1498 rows to choose from"):
        run({"train": sides["train"], "test": sides["train"]}, k=(1499,))
    assert index_files(sides["train"]) == []


def test_options_that_mean_nothing() -> None:
    with pytest.raises(UsageError, match="approximate 'lsh': use ivf or hnsw"):
        KNNConfig(approximate="lsh")  # type: ignore[arg-type]
    for recall in (0, 1.5):
        with pytest.raises(UsageError, match=f"recall is {recall}: give a share above 0"):
            KNNConfig(approximate="ivf", recall=recall)


LITTLE = """
import pathlib, resource, sys
import torch
torch.set_num_threads(1)
from featkit.analyses.neighbors import KNN, KNNConfig
from featkit.ops import inverted_file, neighbors
from featkit.store.reader import open_store
folder = pathlib.Path(sys.argv[1])
neighbors.CHUNK_FLOATS = inverted_file.CHUNK_FLOATS = 2**22
inverted_file.LISTS = 0.2
def run(train, **config):
    stores = {"train": train, "test": "test"}
    tables = {side: open_store(folder / name).tables() for side, name in stores.items()}
    return KNN(KNNConfig(k=(5,), device="cpu", **config)).run(tables).scalars["queries"]
def taken():
    told = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(told.split("VmData:")[1].split()[0])
kinds = {"combine": ("concat",)}, {"approximate": "ivf"}
for config in kinds:
    run("test", **config)
most = taken() + 150 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (most, most))
print([run("train", **config) for config in kinds])
table = open_store(folder / "train")["a"]
try:
    print(table.numpy()[table.valid].shape)
except MemoryError:
    print("no memory")
"""


def test_a_bank_may_be_larger_than_the_memory(tmp_path: Path) -> None:
    """Of private memory 157 MB are left, most of them for a product; a table has 176, and holes."""
    rng = np.random.default_rng(0)
    for side, n in (("train", 43_000), ("test", 60)):
        manifest = make_samples(tmp_path / side, np.arange(n) % 3, ["x", "y", "z"])
        for name in "ab":
            x = np.resize(rng.standard_normal((1000, 1024), np.float32), (n, 1024))
            x[::2600] = np.nan
            make_table(tmp_path / side, manifest, f"{name}/fc.none", x, weights=name)
            del x
    done = subprocess.run(
        [sys.executable, "-c", LITTLE, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout == "[59, 59]\nno memory\n", done.stderr
