"""``project`` as a user runs it."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Run
from tests.cli.test_spectrum import declared  # noqa: F401 - a fixture
from tests.store.conftest import make_samples, make_table


def make(path: Path, **models: np.ndarray) -> Path:
    """Models that see the same three classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    seen = rng.standard_normal((3, 30))[labels] * 3 + rng.standard_normal((120, 30))
    manifest = make_samples(path, labels, ["ant", "bee", "cow"])
    for name, x in (models or {"one": seen, "two": seen @ rng.standard_normal((30, 60))}).items():
        make_table(path, manifest, f"{name}/fc.none", x.astype(np.float32), weights=name)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make(tmp_path / "s")


def test_project(run: Run, store: Path, tmp_path: Path) -> None:
    asked = ["project", store, "--methods", "tsne"]
    status, out, err = run(*asked, "-o", tmp_path / "out")
    assert status == 0
    assert err == "note: t-SNE sees the first 50 principal components of wider tables\n"
    lines = out.splitlines()
    assert lines[0].split() == [
        "features", "method", "n", "trustworthiness", "knn_2d", "knn_features",
    ]  # fmt: skip
    assert [line.split()[:3] for line in lines[1:3]] == [
        ["one/fc", "tsne", "120"], ["two/fc", "tsne", "120"],
    ]  # fmt: skip
    assert lines[3:] == [f"saved in {tmp_path / 'out'}: result.json, tables, 1 figure"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "result.json", "projection.csv", "quality.csv", "arrays.h5", "projection.png",
    }  # fmt: skip
    with (tmp_path / "out" / "projection.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 240
    assert list(rows[0]) == ["features", "method", "image", "class", "x", "y"]
    assert (rows[4]["image"], rows[4]["class"]) == ("0004.png", "bee")
    status, out, _ = run(*asked, "--json")
    content = json.loads(out)
    assert content["tables"] == json.loads((tmp_path / "out" / "result.json").read_text())["tables"]
    assert content["config"]["methods"] == ["tsne"]


def test_help_names_the_sources(run: Run) -> None:
    assert "UMAP and t-SNE of tables, coloured by class." in run("--help")[1]
    text = " ".join(run("project", "--help")[1].split())
    assert "project [OPTIONS] STORE..." in text
    assert "--metric [euclidean|cosine]" in text
    assert "arXiv:1802.03426" in text


def test_without_umap_one_line_says_what_to_do(
    run: Run, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    status, out, err = run("project", store)
    assert (status, out) == (1, "")
    assert err == (
        "featkit: umap needs the package umap-learn; install it with "
        'pip install "featkit[explain]", or use --methods tsne\n'
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "Missing argument 'STORE...'"),
        (["nowhere"], "nowhere"),
        (["s:on"], "s:on: no such table; did you mean one"),
        (["s", "--methods", "pca"], "'pca' is not one of 'umap', 'tsne'"),
        (["s", "--methods", ","], "methods is empty: give umap, tsne or both"),
        (["s", "--metric", "l1"], "'l1' is not one of 'euclidean', 'cosine'"),
        (["s", "--neighbors", "120"], "one/fc: 120 rows, and neighbors 120 takes 121 or more"),
        (["s", "--perplexity", "40"], "one/fc: 120 rows, and perplexity 40 takes 121 or more"),
        (["s", "--min-dist", "2"], "min_dist is 2: give a number from 0 to 1"),
        (["s", "--samples", "10"], "one/fc: 10 rows, and neighbors 15 takes 16 or more: lower"),
        (["s", "--seed", "-1"], "seed is -1"),
        (["flat"], "same/fc: all 120 rows are the same: there is nothing to project"),
        (["blind"], "none/fc: none of its 120 images could be read"),
        (["maps:planes/fc"], "needs rows of d numbers, and these are (2, 3, 3)"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    given: list[str], message: str, run: Run, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.parent)
    make(Path("flat"), same=np.ones((120, 4)))
    make(Path("blind"), none=np.full((120, 4), np.nan))
    make(Path("maps"), planes=np.ones((120, 2, 3, 3)))
    status, out, err = run("project", *given, "-o", "out")
    assert status in (1, 2)
    assert message in err
    assert err.startswith("featkit: ")
    assert err.count("\n") == 1
    assert out == ""
    assert not Path("out").exists()
