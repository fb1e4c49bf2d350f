"""``saliency`` as a user runs it."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Run

NET = "treenet(leaves=3,channels=4-8)?weights=none&size=16"
QUICK = ["--workers", "0", "--quiet", "--shown", "4"]


@pytest.fixture
def here(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(photos.parent)
    return photos


def test_from_a_network_to_pictures(here: Path, run: Run) -> None:
    code, out, err = run(
        "saliency", NET, "photos", "-o", "seen", "--overlay", "2,0", "--shap", *QUICK
    )
    assert code == 0, err
    assert "add up to the difference of scores" in err
    result = json.loads(Path("seen/result.json").read_text())
    assert result["config"]["overlay"] == [2, 0]
    assert result["provenance"]["spec"] == NET
    assert set(result["figures"]) == {"shares", "leaves", "overlay", "shap"}
    for name in result["figures"]:
        with Image.open(f"seen/{name}.png") as picture:
            assert min(picture.size) > 150
    with Path("seen/leaves.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3
    # again without --shap: its picture goes
    code, out, err = run("saliency", NET, "photos", "-o", "seen", "--json", *QUICK)
    assert code == 0, err
    assert json.loads(out) == json.loads(Path("seen/result.json").read_text())
    assert not Path("seen/shap.png").exists()
    assert not Path("seen/explained.csv").exists()


@pytest.mark.parametrize(
    ("net", "arguments", "message"),
    [
        (NET, ["--overlay", "1,3"], "overlay has leaf 3: there are 3, numbered from 0"),
        (NET, ["--images", "0"], "images is 0: give a whole number, 1 or more"),
        (NET, ["--device", "cuda:9"], "is not available here"),
        (NET, ["-o", "photos/seen"], "lies in photos: its pictures would be taken"),
        (NET, ["--shap", "--images", "12"], "raise --images, or lower --shown"),
        ("cifar_resnet20?weights=none", ["--shap"], "shap explains TreeNets"),
        ("treenet(leaves=2,join=max)?weights=none", ["--shap"], "no rule for join max"),
        ("treenet(leaves=0)?weights=none", [], "1 to 128 leaves, not 0"),
        ("photos", [], "is a folder, and no training run"),
    ],
)
def test_mistakes(here: Path, run: Run, net: str, arguments: list[str], message: str) -> None:
    code, out, err = run("saliency", net, "photos", "-o", "seen", *QUICK, *arguments)
    assert code == 2
    assert message in out + err
    assert len(err.strip().splitlines()) == 1
    assert not Path("seen").exists()
    assert not Path("photos/seen").exists()


def test_without_captum(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    code, _, err = run("saliency", NET, "photos", "-o", "seen", "--shap", *QUICK)
    assert code == 1
    assert 'pip install "featkit[explain]"' in err
    assert not Path("seen").exists()


def test_a_run_that_is_not_finished(here: Path, run: Run) -> None:
    Path("run").mkdir()
    record = {
        "format": "featkit-run",
        "version": 1,
        "method": "TreeNet",
        "architecture": "treenet(leaves=2)",
        "preprocessing": {
            "size": [32, 32],
            "resize": 32,
            "interpolation": "bilinear",
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
        },
        "settings": {},
        "weights": {},
        "chosen": None,
    }
    Path("run/run.json").write_text(json.dumps(record))
    code, _, err = run("saliency", "run", "photos", "-o", "seen", *QUICK)
    assert code == 2
    assert "this run is not finished" in err
    assert not Path("seen").exists()
