"""``best-subset`` as a user runs it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from tests.cli.conftest import Run
from tests.store.conftest import make_samples, make_table

N, Q = 800, 120
CLASSES = ["ant", "bee", "cow", "dog"]


def features() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Two leaves that see one half of what tells four classes apart each, and two that see none."""
    rng = np.random.default_rng(0)
    y = np.arange(N + Q) % 4
    leaves = {f"leaf.{i}": rng.standard_normal((N + Q, 8)) for i in range(4)}
    leaves["leaf.1"] += 8 * np.eye(2, 8)[y % 2]
    leaves["leaf.3"] += 8 * np.eye(2, 8)[y // 2]
    return y, {name: x.astype(np.float32) for name, x in leaves.items()}


def make(path: Path, rows: slice, **others: np.ndarray) -> Path:
    y, leaves = features()
    manifest = make_samples(path, y[rows], CLASSES)
    for name, x in leaves.items():
        make_table(path, manifest, f"tree/{name}.none", x[rows])
    for name, x in others.items():
        make_table(path, manifest, f"{name}/fc.none", x[rows])
    return path


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path]:
    return make(tmp_path / "a", slice(0, N)), make(tmp_path / "b", slice(N, None))


def top1(*names: str) -> float:
    y, leaves = features()
    x = np.hstack([normalize(leaves[name]) for name in names])
    peer = KNeighborsClassifier(1, metric="cosine", algorithm="brute")
    return float(peer.fit(x[:N], y[:N]).score(x[N:], y[N:]))


def test_from_stores_to_numbers_and_pictures(
    run: Run, stores: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    status, out, err = run("best-subset", *stores, "--k", 1, "-o", folder)
    assert (status, err) == (0, "")
    blocks = [[line.split() for line in block.splitlines()] for block in out.split("\n\n")]
    assert blocks[0][0] == ["features", "held_out", "rank", "chosen"]
    found = [(line[0], line[2], line[3]) for line in blocks[0][1:]]
    assert sorted(name for name, *_ in found[:2]) == ["tree/leaf.1", "tree/leaf.3"]
    assert [line[1:] for line in found[:2]] == [("1", "yes"), ("2", "yes")]
    assert {line[2] for line in found[2:]} == {"no"}
    assert blocks[1][0] == ["tables", "held_out", "chosen"]
    assert [(line[0], line[2]) for line in blocks[1][1:]] == [
        ("1", "no"), ("2", "yes"), ("3", "no"), ("4", "no"),
    ]  # fmt: skip
    assert blocks[2][0] == ["features", "tables", "top1", "low", "high", "p"]
    assert " ".join(blocks[3][0]).startswith("top1 1.000, chosen 2, tables 4, ")
    assert " ".join(blocks[3][1]) == f"saved in {folder}: result.json, tables, 3 figures"
    assert {path.name for path in folder.iterdir()} == {
        "result.json", "accuracy.csv", "individual.csv", "sizes.csv", "accuracy.png",
        "individual.png", "sizes.png",
    }  # fmt: skip
    with (folder / "accuracy.csv").open(newline="") as file:
        rows = {row["features"]: float(row["top1"]) for row in csv.DictReader(file)}
    names = [name.removeprefix("tree/") for name, *_ in found]
    assert rows == {
        "best single": pytest.approx(top1(names[0])),
        "best subset": pytest.approx(top1(*names[:2])),
        "all": pytest.approx(top1(*names)),
    }
    assert rows["best single"] < rows["best subset"] >= rows["all"]
    for name in ("accuracy", "individual", "sizes"):
        with Image.open(folder / f"{name}.png") as image:
            assert min(image.size) > 300


def test_json_of_a_backbones_tables(run: Run, stores: tuple[Path, Path]) -> None:
    make(stores[0], slice(0, N), other=features()[1]["leaf.1"])
    asked = ["best-subset", f"{stores[0]}:tree", stores[1], "--held-out", "0.25", "--json"]
    status, out, err = run(*asked)
    assert (status, err) == (0, "")
    content = json.loads(out)
    assert content["analysis"] == "best-subset"
    assert content["config"] == {"judge": "knn", "k": 20, "held_out": 0.25, "seed": 0}
    assert list(content["tables"]) == ["accuracy", "individual", "sizes"]
    assert {name: content["scalars"][name] for name in ("chosen", "tables", "n_held_out")} == {
        "chosen": 2, "tables": 4, "n_held_out": 200,
    }  # fmt: skip
    assert content["provenance"]["held_out"] == 0.25
    assert content["provenance"]["features"] == "L2-normalised"
    assert len(content["provenance"]["inputs"]["test"]) == 4
    assert run(*asked)[1] == out


def test_help_shows_the_command_and_its_options(run: Run) -> None:
    assert "best-subset" in run("--help")[1]
    text = " ".join(run("best-subset", "--help")[1].split())
    assert "best-subset [OPTIONS] TRAIN TEST" in text
    for option in ("--judge [knn|probe]", "--k INTEGER", "--held-out FLOAT", "--seed INTEGER"):
        assert option in text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a"], "Missing argument 'TEST'"),
        (["a", "nowhere"], "nowhere"),
        (["a:tree/leaf.1", "b:tree/leaf.1"], "leaf.1.none.h5 is the only table: give two or more"),
        (["a", "less"], "TRAIN and TEST have different tables (more/fc.none only on one side)"),
        (["a", "a"], "TRAIN and TEST are the same images"),
        (["maps:two", "b"], "needs rows of d numbers, and these are (2, 3, 3)"),
        (["a", "b", "--judge", "svm"], "'svm' is not one of 'knn', 'probe'"),
        (["a", "b", "--k", "0"], "k is 0: give a whole number, at least 1"),
        (["a", "b", "--k", "700"], "k is 700 and there are 640 rows to choose from"),
        (["a", "b", "--held-out", "1"], "held_out is 1.0: give a share between 0 and 1"),
        (["a", "b", "--held-out", "0.0001"], "TRAIN has 800 images, too few to hold out 0%"),
        (["a", "b", "--seed", "-1"], "seed is -1: give a whole number"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    given: list[str],
    message: str,
    run: Run,
    stores: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(stores[0].parent)
    make(Path("less"), slice(N, None), more=features()[1]["leaf.1"])
    make(Path("maps"), slice(0, N), two=np.ones((N + Q, 2, 3, 3), np.float32))
    status, out, err = run("best-subset", *given, "-o", "out")
    assert status in (1, 2)
    assert message in err
    assert err.startswith("featkit: ")
    assert err.count("\n") == 1
    assert out == ""
    assert not Path("out").exists()
