"""``spectrum`` as a user runs it."""

from __future__ import annotations

import csv
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
    found = {name: [EntryPoint(name, at, "featkit.analyses")] for name, at in points.items()}
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
        "features", "n", "d", "effective_rank", "participation_ratio", "alpha", "uniformity",
        "alignment",
    ]  # fmt: skip
    assert max(map(len, lines[:4])) <= 100
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


def test_images_that_cannot_be_read_are_told_and_counted(run: Run, tmp_path: Path) -> None:
    manifest = make_samples(tmp_path / "s", np.arange(40) % 3, ["ant", "bee", "cow"])
    x = np.random.default_rng(0).standard_normal((40, 30)).astype(np.float32)
    x[[3, 9]] = np.nan
    make_table(tmp_path / "s", manifest, "one/fc.none", x)
    _, _, err = run("spectrum", tmp_path / "s", "-o", tmp_path / "out")
    assert "note: one/fc: left out 2 of 40 images, which could not be read\n" in err
    with (tmp_path / "out" / "spectrum.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["n"], row["unreadable"], row["zero_rows"]) == ("38", "2", "0")
    x[1:] = np.nan
    lone = make_samples(tmp_path / "lone", np.arange(40) % 3, ["ant", "bee", "cow"])
    make_table(tmp_path / "lone", lone, "one/fc.none", x)
    status, out, err = run("spectrum", tmp_path / "lone")
    assert (status, out) == (2, "")
    assert err == "featkit: one/fc: 1 of 40 images could be read: give two or more\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["spectrum"], "Missing argument 'STORE...'"),
        (["spectrum", "nowhere"], "nowhere"),
        (["spectrum", "{store}", "--samples", "1"], "samples is 1: give 3 or more"),
    ],
)
def test_mistakes_are_one_line(run: Run, store: Path, arguments: list[str], message: str) -> None:
    status, out, err = run(*(text.format(store=store) for text in arguments))
    assert status in (1, 2)
    assert out == ""
    assert message in err
    assert err.startswith("featkit: ")
    assert err.count("\n") == 1
