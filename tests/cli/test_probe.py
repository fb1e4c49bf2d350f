"""``probe`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from featkit.store.reader import open_store
from tests.cli.conftest import Run
from tests.conftest import run_featkit
from tests.store.conftest import make_samples, make_table


def make(path: Path, count: int, seed: int) -> Path:
    """Two models that see three classes, one better than the other."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    manifest = make_samples(path, labels, ["ant", "bee", "cow"])
    for name, noise in (("sharp", 1.0), ("blunt", 3.0)):
        centres = np.random.default_rng(len(name)).random((3, 6)) * 4
        x = centres[labels] + noise * rng.standard_normal((count, 6))
        make_table(path, manifest, f"{name}/fc.none", x.astype(np.float32), weights=name)
    return path


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path]:
    return make(tmp_path / "train", 150, 0), make(tmp_path / "test", 90, 1)


def test_from_two_models_to_their_accuracies(stores: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "answer"
    done = run_featkit("probe", *stores, "-o", folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == [
        "features", "lambda", "validation", "top1", "low", "high", "mean_per_class", "ece",
        "temperature", "ece_scaled",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[1:3]] == ["blunt/fc", "sharp/fc"]
    content = json.loads((folder / "result.json").read_text())
    blunt, sharp = content["tables"]["accuracy"]
    assert blunt["protocol"] == "logistic"
    assert (blunt["n_train"], blunt["n_test"]) == (150, 90)
    assert blunt["validation"] < sharp["validation"]
    assert lines[4].startswith(f"best sharp/fc, top1 {sharp['top1']:.3f}, mean per class ")
    assert content["scalars"]["best"] == "sharp/fc"
    assert content["scalars"]["lambda"] == sharp["lambda"]
    assert content["provenance"]["inputs"]["test"][1]["key"] == open_store(stores[1])["sharp"].key
    assert {path.name for path in folder.iterdir()} == {
        "result.json", "arrays.h5", "accuracy.csv", "per_class.csv", "path.csv", "reliability.csv",
        "accuracy.png", "path.png", "confusion.png", "reliability.png",
    }  # fmt: skip


def test_json_of_one_model(run: Run, stores: tuple[Path, Path]) -> None:
    train, test = stores
    asked = ["probe", f"{train}:sharp", f"{test}:sharp", "--json", "--protocol", "unregularised"]
    status, out, err = run(*asked, "--seed", 3)
    assert status == 0
    assert (
        err
        == "note: sharp/fc: the optimum was not reached: classes that hyperplanes part have none\n"
    )
    content = json.loads(out)
    assert content["analysis"] == "probe"
    wanted = {"protocol": "unregularised", "seed": 3, "taps": [], "max_memory": None}
    assert content["config"] == wanted
    assert list(content["scalars"])[:3] == ["top1", "mean_per_class", "lambda"]
    assert content["scalars"]["lambda"] == 0
    (row,) = content["tables"]["accuracy"]
    assert row["top1"] == content["scalars"]["top1"]
    assert "path" not in content["tables"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["train", "train"], "TRAIN and TEST are the same images, and a probe cannot leave one"),
        (["train:sharp", "test:blunt"], "their backbone differs"),
        (["train", "test:blunt"], "different tables (sharp/fc.none only on one side)"),
        (["train:dull", "test"], "dull"),
        (["train", "nowhere"], "nowhere"),
        (["train", "test", "--protocol", "svm"], "'svm' is not one of 'logistic', 'unregular"),
        (["train", "test", "--seed", "-1"], "seed is -1: give a whole number"),
        (["train", "few"], "few"),
        (["few", "test"], "3 samples to train on are too few to hold out 20%"),
    ],
)
def test_mistakes_are_one_line(
    given: list[str],
    message: str,
    run: Run,
    stores: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if given[0] == "few":
        make(tmp_path / "few", 3, 2)
    status, out, err = run("probe", *given, "-o", "out")
    assert status in (1, 2)
    assert message in err
    assert err.startswith("featkit: ")
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "out").exists()
