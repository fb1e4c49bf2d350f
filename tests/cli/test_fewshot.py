"""``fewshot`` as a user runs it."""

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

NAMES = ["ant", "bee", "cow"]


@pytest.fixture(autouse=True)
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The analyses that pyproject.toml declares, whatever was there when it was installed."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    group = "featkit.analyses"
    points = {n: [EntryPoint(n, v, group)] for n, v in project["entry-points"][group].items()}
    monkeypatch.setattr(featkit_cli.main, "analyses", lambda: points)


def make(path: Path, count: int, seed: int) -> Path:
    """Two models that see three classes, one better than the other."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    manifest = make_samples(path, labels, NAMES)
    for name, noise in (("sharp", 0.5), ("blunt", 3.0)):
        centres = np.random.default_rng(len(name)).random((3, 6)) * 4
        x = centres[labels] + noise * rng.standard_normal((count, 6))
        make_table(path, manifest, f"{name}/fc.none", x.astype(np.float32), weights=name)
    return path


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    return make(tmp_path / "train", 90, 0), make(tmp_path / "test", 60, 1)


def test_from_two_stores_to_a_picture(sides: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "answer"
    status, out, err = run("fewshot", *sides, "--ways", 3, "--shots", "1,5", "-o", folder)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == [
        "features", "ways", "shots", "queries", "episodes", "accuracy", "ci95", "behind",
        "behind_ci95",
    ]  # fmt: skip
    with (folder / "accuracy.csv").open(newline="") as file:
        assert {"low", "high"} < set(next(csv.reader(file)))
    assert [line.split()[:5] for line in lines[1:5]] == [
        [f"{name}/fc", "3", shots, "15", "600"] for name in ("blunt", "sharp") for shots in "15"
    ]
    assert [line.split()[-1] == "-" for line in lines[1:5]] == [False, False, True, True]
    assert lines[6].startswith("test best sharp/fc/s5, test best accuracy 1.000, ")
    assert "classes 3, support images 90, query images 60" in lines[6]
    assert {path.name for path in folder.iterdir()} == {
        "result.json", "accuracy.csv", "arrays.h5", "accuracy.png",
    }  # fmt: skip


def test_names_that_scripts_rely_on(sides: tuple[Path, Path], run: Run) -> None:
    train, test = (f"{side}:sharp" for side in sides)
    _, out, err = run("fewshot", train, test, "--ways", 3, "--merge", "--json")
    found = json.loads(out)
    assert (found["analysis"], err) == ("fewshot", "")
    (row,) = found["tables"]["accuracy"]
    assert {name: found["scalars"][name] for name in ("accuracy", "ci95")} == {
        name: row[name] for name in ("accuracy", "ci95")
    }
    assert found["scalars"]["merged"] == "yes"
    assert found["config"] == {
        "ways": 3, "shots": [5], "queries": 15, "episodes": 600, "seed": 0, "merge": True,
    }  # fmt: skip
    again = run("fewshot", train, test, "--ways", 3, "--merge", "--json")[1]
    assert again == out
    other = run("fewshot", train, test, "--ways", 3, "--merge", "--json", "--seed", 1)[1]
    assert json.loads(other)["scalars"]["accuracy"] != row["accuracy"]


def test_help_shows_the_command_and_its_protocol(run: Run) -> None:
    assert "fewshot" in run("--help")[1]
    text = " ".join(run("fewshot", "--help")[1].split())
    assert "fewshot [OPTIONS] TRAIN TEST" in text
    for option in ("--ways", "--shots", "--queries", "--episodes", "--seed", "--merge"):
        assert option in text
    assert "arXiv:2011.13377" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "ways is 5, and 3 class(es) can be drawn from: ant, bee, cow: lower ways"),
        (["--ways", "3", "--shots", "5,31"], "ant (30 support and 20 query rows), bee"),
        (["--ways", "3", "--queries", "21"], "each needs 5 support and 21 query rows"),
        (["--ways", "1"], "ways is 1: give a whole number, at least 2"),
        (["--shots", "0"], "shots is 0: give whole numbers, at least 1"),
        (["--shots", ","], "shots is empty"),
        (["--shots", "five"], "'five' is not a valid integer"),
        (["--episodes", "1"], "episodes is 1: give a whole number, at least 2"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    options: list[str], message: str, sides: tuple[Path, Path], run: Run, tmp_path: Path
) -> None:
    status, out, err = run("fewshot", *sides, "-o", tmp_path / "out", *options)
    assert status == 2
    assert message in err
    assert err.startswith("featkit: ")
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "out").exists()


def test_a_folder_is_of_one_run(sides: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "answer"
    run("probe", *sides, "-o", folder)
    assert {"path.csv", "path.png"} < {path.name for path in folder.iterdir()}
    status, _, err = run("probe", *sides, "--protocol", "unregularised", "-o", folder)
    assert status == 0, err
    left = {path.name for path in folder.iterdir()}
    assert not {"path.csv", "path.png"} & left
    status, out, err = run("fewshot", *sides, "--ways", 3, "-o", folder)
    assert (status, out) == (2, "")
    assert err.endswith(f"{folder} holds a result of probe: give another folder\n")
    assert {path.name for path in folder.iterdir()} == left
