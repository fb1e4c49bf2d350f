"""``dissect`` as a user runs it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.analyses.scenes import SIZE, write_scenes
from tests.cli.conftest import Run

NET = f"cifar_resnet20?weights=none&size={SIZE}"


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_scenes(tmp_path, 6)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_images_to_a_page_and_on_to_lce(scenes: Path, run: Run) -> None:
    for seed in range(3):
        code, out, err = run(
            "dissect", "images", "-b", f"net{seed}={NET}&seed={seed}", "--tap", "res3",
            "-c", "masks:masks", "-c", "color", "--parts", "quad", "--draws", "8", "-o", f"d{seed}",
            "--workers", "0", "--quiet",
        )  # fmt: skip
        assert code == 0, err
    assert "open d2/index.html" in out + err
    assert "next: featkit lce d2" in out + err
    with Path("d0/units.csv").open() as file:
        rows = list(csv.DictReader(file))
    result = json.loads(Path("d0/result.json").read_text())
    assert len(rows) == result["scalars"]["units"] == 32
    assert result["config"]["concepts"] == ["masks:masks", "color"]
    assert result["config"]["quantile"] == 0.01
    assert result["config"]["size"] == [SIZE, SIZE]
    assert result["provenance"]["backbone"]["name"] == "net0"
    assert len(list(Path("d0/units").glob("*.jpg"))) == 32
    with Image.open("d0/concepts.png") as picture:
        assert picture.width > 400
    code, out, err = run("lce", "d0", "d1", "d2", "-o", "lce")
    assert code == 0, err
    assert json.loads(Path("lce/result.json").read_text())["tables"]["embedding"]


def test_the_same_command_gives_the_same_result(scenes: Path, run: Run) -> None:
    command = ["dissect", "images", "-b", NET, "--tap", "res2", "-c", "color", "--workers", "0"]
    texts = []
    for _ in range(2):
        code, _, err = run(*command, "--quiet", "--draws", "3", "-o", "d")
        assert code == 0, err
        texts.append(Path("d/result.json").read_bytes())
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tap", "head", "-c", "color"], "which has no places; tap a module that gives a map"),
        (["--tap", "res3", "-c", "colour"], "'colour': did you mean color?"),
        (["--tap", "res3", "-c", "masks:nowhere"], "there is no folder nowhere"),
        (["--tap", "res3", "-c", "color", "--quantile", "0"], "give a share between 0 and 1"),
        (["--tap", "res3", "-c", "color", "--device", "cuda:9"], "is not available here"),
        (["--tap", "res3", "-c", "color", "--batch-size", "0"], "0 is not in the range x>=1"),
        (["--tap", "res3", "-c", "color", "-o", "images/d"], "lies in images: its pictures"),
        (["--tap", "res3", "-c", "color", "-o", "link/d"], "lies in images: its pictures"),
        (["--tap", "res3", "-c", "masks:masks", "-o", "masks/../masks/d"], "lies in masks: its"),
        (["--tap", "res3", "-c", "color", "--seed", "9" * 30], "give a number below 2**63"),
        (["--tap", "res3"], "Missing option '-c' / '--concepts'"),
    ],
)
def test_mistakes(scenes: Path, run: Run, arguments: list[str], message: str) -> None:
    Path("link").symlink_to("images")
    code, out, err = run("dissect", "images", "-b", NET, "-o", "d", "--quiet", *arguments)
    assert code != 0
    assert message in out + err
    assert "Traceback" not in out + err
    assert not Path("d").exists()


def test_pictures_of_the_user_are_not_replaced(scenes: Path, run: Run) -> None:
    Path("d").mkdir()
    mine = Path("images").rename("d/units")
    for number, file in enumerate(sorted(mine.iterdir())):
        file.rename(mine / f"unit-{number:05d}.jpg")
    command = ["dissect", "d/units", "-b", NET, "--tap", "res3", "-c", "color", "-o", "d"]
    code, out, err = run(*command, "--quiet")
    assert code != 0
    assert "d/units lies in d/units, where pictures are replaced: give another folder" in out + err
    assert len(list(mine.iterdir())) == 6


def test_the_folder_of_another_analysis_is_refused_before_the_work(scenes: Path, run: Run) -> None:
    Path("d").mkdir()
    Path("d/result.json").write_text('{"analysis": "knn"}')
    code, out, err = run("dissect", "nowhere", "-b", NET, "--tap", "res3", "-c", "color", "-o", "d")
    assert code != 0
    assert "d holds a result of knn: give another folder" in out + err
