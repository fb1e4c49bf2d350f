"""``lce`` as a user runs it."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA

from tests.analyses.dissections import (
    CONCEPTS,
    MODELS,
    SIZES,
    write_dissection,
    write_models,
)
from tests.cli.conftest import Run
from tests.conftest import run_featkit

NAMES = list(MODELS)


def normalized() -> np.ndarray:
    counts = [[found.get(name, 0) for name in CONCEPTS] for found in MODELS.values()]
    return np.array(counts) / [SIZES[name.split("/")[0]] for name in CONCEPTS]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scores.csv").write_text(
        "model,top1,epochs\n"
        + "".join(f"{name},{0.5 + (i * i % 7) / 20},\n" for i, name in enumerate(NAMES[:-1]))
    )
    lines = [f"{name},{'one' if i < 2 else 'two'}\n" for i, name in enumerate(NAMES)]
    (tmp_path / "groups.csv").write_text("model,group\n" + "".join(lines))
    return write_models(tmp_path / "d")


def test_from_dissections_to_numbers_and_pictures(folders: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    done = run_featkit(
        "lce", *folders, "--scores", "scores.csv", "--concept", "car", "--concept", "road,sky",
        "-o", folder, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pca = PCA(3, svd_solver="full").fit(normalized())
    wanted = pca.transform(normalized())
    with (folder / "embedding.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == NAMES
    found = np.array([[float(row[f"pc{i}"]) for i in (1, 2, 3)] for row in rows])
    np.testing.assert_allclose(np.abs(found), np.abs(wanted), atol=1e-10)
    np.testing.assert_allclose(pdist(found), pdist(wanted))
    lines = done.stdout.splitlines()
    assert lines[0].split()[:5] == ["model", "pc1", "pc2", "pc3", "group"]
    for line, name, place in zip(lines[1:7], NAMES, found, strict=True):
        said = line.split()
        assert said[0] == name
        # printed with three digits
        assert [float(text) for text in said[1:4]] == pytest.approx(place.tolist(), abs=6e-4)
    assert f"explained {pca.explained_variance_ratio_.sum():.3f}, explained null 95" in done.stdout
    assert any(line.split()[:3] == ["scores", "top1", "pc1"] for line in lines)
    concepts = json.loads((folder / "result.json").read_text())["tables"]["concepts"]
    assert list(dict.fromkeys(row["concept"] for row in concepts)) == ["car", "road", "sky"]
    said = done.stderr.splitlines()
    assert all(line.startswith("note: ") for line in said)
    assert "note: fox: none of its 64 units detects a concept: its profile is zero" in said
    assert "note: scores: top1 is not known of fox" in said
    pictures = {path.stem for path in folder.glob("*.png")}
    assert {"embedding-3d", "embedding-pc1-pc2", "loadings-pc3", "abstracted-units",
            "concept-car", "correlations-scores-spearman"} <= pictures  # fmt: skip
    assert f"saved in {folder}: result.json, tables, {len(pictures)} figures" in done.stdout
    for name in pictures:
        with Image.open(folder / f"{name}.png") as image:
            assert min(image.size) > 150
    with h5py.File(folder / "arrays.h5") as file:
        np.testing.assert_allclose(file["profiles"][...], normalized())


def test_json_is_the_same_each_time_and_says_what_was_read(run: Run, folders: list[Path]) -> None:
    asked = ["lce", *folders, "--json", "--groups", "groups.csv", "--permutations", 99]
    status, out, _ = run(*asked)
    assert status == 0
    content = json.loads(out)
    assert content["analysis"] == "lce"
    assert content["config"] == {
        "counted": "units", "k": None, "groups": "groups.csv", "concept": [], "scores": None,
        "permutations": 99, "seed": 0,
    }  # fmt: skip
    assert [row["group"] for row in content["tables"]["embedding"]] == ["one"] * 2 + ["two"] * 4
    assert {"explained", "explained_null_95", "explained_p"} <= content["scalars"].keys()
    assert content["provenance"]["inputs"]["dir"] == [
        {
            "result": str(folder),
            "sha256": hashlib.sha256((folder / "result.json").read_bytes()).hexdigest(),
        }
        for folder in folders
    ]
    assert run(*asked)[1] == out
    other = json.loads(run(*asked, "--seed", 1)[1])
    assert other["tables"]["embedding"] == content["tables"]["embedding"]
    assert other["scalars"]["explained_null_95"] != content["scalars"]["explained_null_95"]


def test_two_models_have_one_component(run: Run, folders: list[Path], tmp_path: Path) -> None:
    status, out, err = run("lce", *folders[:2], "-o", tmp_path / "two")
    assert status == 0
    assert out.splitlines()[1].split()[2:5] == ["-", "-", "A"]
    assert "note: the profiles of 2 models span 1 of 3 components" in err
    assert (tmp_path / "two" / "loadings-pc1.png").exists()
    assert not list((tmp_path / "two").glob("embedding*.png"))


def test_help_shows_the_command_and_its_sources(run: Run) -> None:
    assert "lce How models relate by the concepts that their units detect" in " ".join(
        run("--help")[1].split()
    )
    text = " ".join(run("lce", "--help")[1].split())
    assert "lce [OPTIONS] DIR..." in text
    for option in ("--scores", "--groups", "--k", "--concept", "--counted", "--permutations"):
        assert option in text
    assert "Mustapha 2021" in text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "Missing argument 'DIR...'"),
        (["nowhere", "d/ant"], "nowhere holds no result (No such file or directory)"),
        (["d/ant"], "d/ant is the only result: give those of two models or more"),
        (["d/ant", "d/bee", "d/ant"], "d/ant and d/ant are both of ant/layer4: give each model"),
        (["d/ant", "other"], "concepts: d/ant has masks:labels, color, and other has texture"),
        (["d/ant", "d/bee", "--k", "3"], "k is 3, and there are 2 models: give fewer groups"),
        (["d/ant", "d/bee", "--k", "2", "--groups", "g"], "k and groups: give one of them"),
        (["d/ant", "d/bee", "--concept", "cars"], "concept 'cars': no unit of any model detects"),
        (["d/ant", "d/bee", "--scores", "scores.csv"], "no model 'cow': there is ant, bee"),
        (["d/ant", "d/bee", "--counted", "all"], "'all' is not one of 'units', 'shares'"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    given: list[str], message: str, run: Run, folders: list[Path]
) -> None:
    write_dissection(Path("other"), MODELS["bee"], concepts=["texture"])
    status, out, err = run("lce", *given, "-o", "out")
    assert status == 2
    assert message in err
    assert err.startswith("featkit: ")
    assert err.count("\n") == 1
    assert out == ""
    assert not Path("out").exists()
