"""Analyses of vectors, asked of stores that hold maps too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Run
from tests.store.conftest import make_samples, make_table


def make(path: Path, seed: int, vectors: bool = True) -> Path:
    """Two models, one with maps of a layer and tokens of another."""
    rng = np.random.default_rng(seed)
    labels = np.arange(60) % 3
    manifest = make_samples(path, labels, ["ant", "bee", "cow"])
    x = rng.standard_normal((60, 6)).astype(np.float32)
    x[np.arange(60), labels] += 3
    noise = rng.standard_normal((60, 6)).astype(np.float32)
    maps = x[:, :, None, None] + np.array([[-1.0, 1.0], [2.0, -2.0]], np.float32)
    make_table(path, manifest, "one/conv1.none", maps, weights="one")
    make_table(path, manifest, "one/block.none", noise.reshape(60, 2, 3), weights="one")
    if vectors:
        make_table(path, manifest, "one/fc.none", noise, weights="one")
        make_table(path, manifest, "two/fc.none", x, weights="two")
    return path


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    return make(tmp_path / "train", 0), make(tmp_path / "test", 1)


TWO_SIDED = {
    "knn": (),
    "probe": ("--protocol", "unregularised"),
    "fewshot": ("--ways", 3, "--episodes", 5),
    "pair-ensemble": ("--protocol", "unregularised"),
    "best-subset": (),
}
ONE_SIDED = {
    "spectrum": (),
    "similarity": ("--k", 3),
    "project": ("--methods", "tsne", "--perplexity", 5),
}


@pytest.mark.parametrize("command", [*TWO_SIDED, *ONE_SIDED])
def test_a_store_stands_for_its_vectors(
    command: str, sides: tuple[Path, Path], run: Run, tmp_path: Path
) -> None:
    """The numbers are those of stores that never had maps."""
    options = (TWO_SIDED | ONE_SIDED)[command]
    given = sides if command in TWO_SIDED else sides[:1]
    status, out, err = run(command, *given, *options, "--json")
    assert status == 0, err
    found = json.loads(out)
    notes = [f"{side}: 2 tables of maps or tokens left out" for side in given]
    assert [note for note in found["notes"] if note.endswith("left out")] == notes
    assert all(f"note: {note}" in err for note in notes)
    for side in given:
        for file in ("conv1.none.h5", "block.none.h5"):
            (side / "one" / file).unlink()
    status, out, _ = run(command, *given, *options, "--json")
    assert status == 0
    wanted = json.loads(out)
    assert (found["tables"], found["scalars"]) == (wanted["tables"], wanted["scalars"])
    assert [note for note in found["notes"] if note not in notes] == wanted["notes"]


def test_a_backbone_stands_for_its_vectors_too(sides: tuple[Path, Path], run: Run) -> None:
    one, two = (f"{sides[0]}:{name}" for name in ("one", "two"))
    status, out, err = run("spectrum", one, two, one, "--json")
    assert status == 0
    assert [row["features"] for row in json.loads(out)["tables"]["spectrum"]] == [
        "one/fc", "two/fc",
    ]  # fmt: skip
    assert err.count("left out") == err.count(f"{one}: 2 tables") == 1


@pytest.mark.parametrize("tap", ["one/conv1", "one/conv1.none", "one/block"])
def test_maps_that_are_named_are_refused(tap: str, sides: tuple[Path, Path], run: Run) -> None:
    both = [f"{side}:{tap}" for side in sides]
    for command in ("knn", "probe", "fewshot", "spectrum", "similarity", "project", "best-subset"):
        status, out, err = run(command, *both)
        assert (status, out) == (2, "")
        assert "needs rows of d numbers, and these are (" in err
    status, out, err = run("pair-ensemble", *sides, "--features", f"two,{tap}")
    assert (status, out) == (2, "")
    assert "needs rows of d numbers, and these are (" in err


def test_a_tap_that_is_named_means_its_maps_too(tmp_path: Path, run: Run) -> None:
    manifest = make_samples(tmp_path / "s", [0, 1] * 5, ["ant", "bee"])
    maps = np.random.default_rng(0).standard_normal((10, 4, 2, 3)).astype(np.float32)
    make_table(tmp_path / "s", manifest, "one/conv1.none", maps)
    make_table(tmp_path / "s", manifest, "one/conv1.max", maps.max((2, 3)))
    assert run("spectrum", f"{tmp_path / 's'}:one")[0] == 0
    status, _, err = run("spectrum", f"{tmp_path / 's'}:one/conv1")
    assert status == 2
    assert "conv1.none.h5: needs rows of d numbers, and these are (4, 2, 3)" in err


def test_a_store_of_maps_alone_is_refused(tmp_path: Path, run: Run) -> None:
    store = make(tmp_path / "maps", 0, vectors=False)
    for given in (["spectrum", store], ["spectrum", f"{store}:one"], ["knn", store, store]):
        status, _, err = run(*given)
        assert status == 2
        assert "needs rows of d numbers, and these are (" in err


@pytest.mark.parametrize("command", ["knn", "probe"])
def test_taps_reach_the_maps(command: str, sides: tuple[Path, Path], run: Run) -> None:
    """One's vectors are noise, and its maps have means that tell the classes."""
    both = [f"{side}:one" for side in sides]
    status, out, err = run(command, *both, *TWO_SIDED[command], "--taps", "all", "--json")
    assert status == 0, err
    result = json.loads(out)
    assert [row["features"] for row in result["tables"]["layers"]] == [
        "one/block (avg)", "one/conv1 (avg)", "one/fc",
    ]  # fmt: skip
    (row,) = result["tables"]["accuracy"]
    assert row["features"] == "one/conv1 (avg)"
    assert row["top1"] > 0.8
    assert "left out" not in err
    status, _, err = run(command, *both, "--taps", "conv1,nope")
    assert status == 2
    assert "one has no tap nope" in err
    assert "block, conv1, fc" in err
