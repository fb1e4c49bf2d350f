"""``pair-ensemble`` as a user runs it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from featkit.analyses.base import Result
from tests.cli.conftest import Run
from tests.conftest import run_featkit
from tests.store.conftest import make_samples, make_table

N, Q = 240, 120
CLASSES = ["ant", "bee", "cow", "dog"]
NAMES = ["blind/fc", "one/fc", "two/fc"]


def features() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Two models that see one half of what tells four classes apart each, and one sees nothing."""
    rng = np.random.default_rng(0)
    y = np.arange(N + Q) % 4
    seen = {
        "blind": rng.standard_normal((N + Q, 2)),
        "one": np.eye(2)[y % 2] * 4 + rng.standard_normal((N + Q, 2)),
        "two": np.eye(2)[y // 2] * 4 + rng.standard_normal((N + Q, 2)),
    }
    return y, {name: x.astype(np.float32) for name, x in seen.items()}


def make(path: Path, rows: slice, **others: np.ndarray) -> Path:
    y, xs = features()
    manifest = make_samples(path, y[rows], CLASSES)
    for name, x in (xs | others).items():
        make_table(path, manifest, f"{name}/fc.none", x[rows], weights=name)
    return path


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path]:
    return make(tmp_path / "a", slice(0, N)), make(tmp_path / "b", slice(N, None))


@pytest.fixture
def lce(tmp_path: Path) -> Path:
    groups = {"one": "halves", "two": "halves", "blind/fc": "noise", "gone": "noise"}
    rows = [{"model": model, "pc1": 0.0, "group": group} for model, group in groups.items()]
    Result("lce", {}, tables={"embedding": rows}).save(tmp_path / "lce")
    return tmp_path / "lce"


def top1(weights: dict[str, float]) -> float:
    """Of scikit-learn's unregularised probes, as many as have a weight."""
    y, xs = features()
    total = np.zeros((Q, 4))
    for name, weight in weights.items():
        x = xs[name].astype(float)
        model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8)
        total += weight * model.fit(x[:N], y[:N]).predict_proba(x[N:])
    return float((total.argmax(1) == y[N:]).mean())


def test_from_stores_to_numbers_and_pictures(
    stores: tuple[Path, Path], lce: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    asked = ["--protocol", "unregularised", "--groups", lce, "-o", folder]
    done = run_featkit("pair-ensemble", *stores, *asked)
    assert done.returncode == 0
    assert done.stderr == "note: in the groups and not among the tables: gone\n"
    blocks = [block.splitlines() for block in done.stdout.split("\n\n")]
    assert blocks[0][0].split() == ["features", "group", "validation", "top1", "low", "high"]
    assert [line.split()[:2] for line in blocks[0][1:]] == [
        ["blind/fc", "noise"], ["one/fc", "halves"], ["two/fc", "halves"],
    ]  # fmt: skip
    assert blocks[1][0].split() == [
        "one", "other", "weight_one", "weight_other", "top1", "better", "gain", "low", "high", "p"
    ]  # fmt: skip
    assert [line.split()[:2] for line in blocks[1][1:]] == [
        NAMES[:2], [NAMES[0], NAMES[2]], NAMES[1:]
    ]  # fmt: skip
    assert [line.split()[:3] for line in blocks[2]] == [
        ["one", "other", "pairs"], ["halves", "halves", "1"], ["halves", "noise", "2"],
    ]  # fmt: skip
    assert blocks[3][0].startswith("pairs 3, mean gain ")
    assert blocks[3][1] == f"saved in {folder}: result.json, tables, 2 figures"
    assert {path.name for path in folder.iterdir()} == {
        "result.json", "models.csv", "pairs.csv", "groups.csv", "arrays.h5", "gain.png",
        "groups.png",
    }  # fmt: skip
    with (folder / "pairs.csv").open(newline="") as file:
        rows = {(row["one"], row["other"]): row for row in csv.DictReader(file)}
    with h5py.File(folder / "arrays.h5") as file:
        assert file["names"].asstr()[...].tolist() == NAMES
        gain, means = file["gain"][...], file["group_gain"][...]
        assert file["group_pairs"][...].tolist() == [[1, 2], [2, 0]]
    for (one, other), row in rows.items():
        names = [name.partition("/")[0] for name in (one, other)]
        weights = [float(row["weight_one"]), float(row["weight_other"])]
        voted = top1(dict(zip(names, weights, strict=True)))
        assert float(row["top1"]) == pytest.approx(voted, abs=1.01 / Q)
        alone = max(top1({name: 1}) for name in names)
        assert float(row["better"]) == pytest.approx(alone, abs=1.01 / Q)
        assert gain[NAMES.index(one), NAMES.index(other)] == float(row["gain"])
    assert float(rows["one/fc", "two/fc"]["gain"]) > 0.3  # what the halves know together
    assert float(rows["one/fc", "two/fc"]["p"]) < 1e-6
    assert means[0, 0] == gain[1, 2]
    assert means[0, 1] == means[1, 0] == pytest.approx((gain[0, 1] + gain[0, 2]) / 2)
    assert np.isnan(means[1, 1])
    for name in ("gain", "groups"):
        with Image.open(folder / f"{name}.png") as image:
            assert min(image.size) > 300


def test_json_of_some_models(run: Run, stores: tuple[Path, Path]) -> None:
    asked = ["pair-ensemble", *stores, "--features", "two,one/fc", "--weights", "convex", "--json"]
    status, out, err = run(*asked)
    assert (status, err) == (0, "")
    content = json.loads(out)
    assert content["analysis"] == "pair-ensemble"
    assert content["config"] == {
        "weights": "convex", "protocol": "logistic", "seed": 0, "features": ["two", "one/fc"],
    }  # fmt: skip
    assert [row["features"] for row in content["tables"]["models"]] == ["two/fc", "one/fc"]
    (row,) = content["tables"]["pairs"]
    assert (row["one"], row["other"]) == ("two/fc", "one/fc")
    assert content["scalars"] == {
        "pairs": 1, "mean_gain": row["gain"], "gaining": 1, "classes": 4, "unreadable": 0,
        "in_both": 0,
    }  # fmt: skip
    assert content["provenance"]["held_out"] == 0.2
    assert [table["table"] for table in content["provenance"]["inputs"]["train"]] == [
        str(stores[0] / "two" / "fc.none.h5"),
        str(stores[0] / "one" / "fc.none.h5"),
    ]
    assert run(*asked)[1] == out


def test_help_shows_the_command_and_its_sources(run: Run) -> None:
    assert "pair-ensemble" in run("--help")[1]
    text = " ".join(run("pair-ensemble", "--help")[1].split())
    assert "pair-ensemble [OPTIONS] TRAIN TEST" in text
    for option in ("--groups", "--weights [printed|convex]", "--protocol", "--seed", "--features"):
        assert option in text
    assert "Mustapha 2021, sec. 3.5.4" in text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a"], "Missing argument 'TEST'"),
        (["a", "nowhere"], "nowhere"),
        (["a:one", "b"], "is the only model: give two or more"),
        (["a", "b", "--features", "one"], "is the only model: give two or more"),
        (["a", "b", "--features", "one,tow"], "a:tow: no such table; did you mean"),
        (["a", "less"], "TRAIN and TEST have different tables (more/fc.none only on one side)"),
        (["a", "a"], "TRAIN and TEST are the same images"),
        (["a", "b", "--weights", "fair"], "'fair' is not one of 'printed', 'convex'"),
        (["a", "b", "--seed", "-1"], "seed is -1: give a whole number"),
        (["maps", "b"], "TRAIN and TEST have different tables (two/fc.none only on one side)"),
        (
            ["maps", "b", "--features", "one,two/fc"],
            "needs rows of d numbers, and these are (2, 3, 3)",
        ),
        (["a", "b", "--groups", "nowhere"], "nowhere holds no result (No such file"),
        (["a", "b", "--groups", "other"], "holds a result of knn: give a folder that featkit lce"),
        (["a", "b", "--groups", "strange"], "none of blind/fc, one/fc, two/fc is in a group"),
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
    make(Path("less"), slice(N, None), more=features()[1]["one"])
    make(Path("maps"), slice(0, N), two=np.ones((N + Q, 2, 3, 3), np.float32))
    Result("knn", {}).save("other")
    rows = [{"model": "vgg", "group": 0}]
    Result("lce", {}, tables={"embedding": rows}).save("strange")
    status, out, err = run("pair-ensemble", *given, "-o", "out")
    assert status in (1, 2)
    assert message in err
    assert err.startswith("featkit: ")
    assert err.count("\n") == 1
    assert out == ""
    assert not Path("out").exists()
