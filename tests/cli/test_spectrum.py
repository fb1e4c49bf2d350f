"""``spectrum`` and ``similarity`` as a user runs them."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import featkit_cli.main
import numpy as np
import pytest

from tests.cli.conftest import Run
from tests.store.conftest import make_samples, make_table


@pytest.fixture(autouse=True)
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The analyses of ``pyproject.toml``, whichever featkit is installed."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    points = tomllib.loads(text)["project"]["entry-points"]["featkit.analyses"]
    found = {name: EntryPoint(name, at, "featkit.analyses") for name, at in points.items()}
    monkeypatch.setattr(featkit_cli.main, "analyses", lambda: found)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two models that see the same three classes, and one that sees nothing."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    seen = rng.standard_normal((3, 30))[labels] * 3 + rng.standard_normal((120, 30))
    manifest = make_samples(tmp_path / "s", labels, ["ant", "bee", "cow"])
    for name, x in {
        "one": seen,
        "two": seen @ rng.standard_normal((30, 40)),
        "blind": rng.standard_normal((120, 25)),
    }.items():
        make_table(tmp_path / "s", manifest, f"{name}/fc.none", x.astype(np.float32))
    return tmp_path / "s"


def test_spectrum(run: Run, store: Path, tmp_path: Path) -> None:
    status, out, err = run("spectrum", store, "-o", tmp_path / "out")
    assert status == 0
    assert (
        err
        == "note: alignment is of two images of one class: stores hold no two views of an image\n"
    )
    lines = out.splitlines()
    assert lines[0].split() == [
        "features", "n", "d", "effective_rank", "rank_share", "participation_ratio", "alpha",
        "alpha_r2", "uniformity", "uniformity_se", "alignment",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[1:4]] == ["blind/fc", "one/fc", "two/fc"]
    assert lines[-1].endswith("2 figures")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "result.json", "spectrum.csv", "arrays.h5", "singular_values.png", "effective_rank.png"
    }  # fmt: skip
    _, out, _ = run("spectrum", f"{store}:one", f"{store}:two", "--samples", 50, "--json")
    content = json.loads(out)
    assert [row["features"] for row in content["tables"]["spectrum"]] == ["one/fc", "two/fc"]
    assert content["config"] == {"samples": 50, "seed": 0}
    assert all(row["uniformity_se"] > 0 for row in content["tables"]["spectrum"])


def test_similarity(run: Run, store: Path, tmp_path: Path) -> None:
    status, out, err = run("similarity", store, "--k", 5, "-o", tmp_path / "out")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["one", "other", "cka", "overlap"]
    pairs = {tuple(line.split()[:2]): float(line.split()[2]) for line in lines[1:4]}
    assert pairs["one/fc", "two/fc"] > 0.7
    assert abs(pairs["blind/fc", "one/fc"]) < 0.1
    assert "images 120, unreadable 0, overlap by chance 0.042" in lines
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "result.json", "similarity.csv", "arrays.h5", "cka.png", "overlap.png"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["spectrum"], "Missing argument 'STORE...'"),
        (["spectrum", "nowhere"], "nowhere"),
        (["spectrum", "{store}", "--samples", "1"], "samples is 1: give 3 or more"),
        (["similarity", "{store}:one"], "is the only table: give two or more"),
        (["similarity", "{store}:on"], "no such table"),
        (["similarity", "{store}", "--k", "120"], "k 120 takes 121 or more"),
        (["similarity", "{store}", "--estimator", "fair"], "'fair' is not one of"),
        (["similarity", "{store}", "--seed", "-1"], "seed is -1"),
    ],
)
def test_mistakes_are_one_line(run: Run, store: Path, arguments: list[str], message: str) -> None:
    status, out, err = run(*(text.format(store=store) for text in arguments))
    assert status in (1, 2)
    assert out == ""
    assert message in err
    assert err.startswith("featkit: ")
    assert err.count("\n") == 1
