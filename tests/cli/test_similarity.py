"""``similarity`` as a user runs it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from tests.cli.conftest import Run
from tests.conftest import run_featkit
from tests.store.conftest import make_samples, make_table

N, K = 120, 5
NAMES = ["blind/fc", "one/fc", "two/fc"]


def features() -> dict[str, np.ndarray]:
    """Two models that see the same three classes, and one that sees nothing."""
    rng = np.random.default_rng(0)
    seen = rng.standard_normal((3, 30))[np.arange(N) % 3] * 3 + rng.standard_normal((N, 30))
    found = {
        "blind": rng.standard_normal((N, 25)),
        "one": seen,
        "two": seen @ rng.standard_normal((30, 40)) + 1,
    }
    return {name: x.astype(np.float32) for name, x in found.items()}


def make(path: Path, **others: np.ndarray) -> Path:
    xs = features() | others
    manifest = make_samples(path, np.arange(N) % 3, ["ant", "bee", "cow"])
    for name, x in xs.items():
        make_table(path, manifest, f"{name}/fc.none", x)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make(tmp_path / "s")


def unbiased_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al. 2012, equation 5, from n × n kernels without their diagonals."""
    k, l = (z.astype(float) @ z.T.astype(float) for z in (x, y))  # noqa: E741 - as in the paper
    n = len(k)
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    spread = k.sum() * l.sum() / ((n - 1) * (n - 2))
    return float(((k * l).sum() + spread - 2 / (n - 2) * k.sum(0) @ l.sum(0)) / (n * (n - 3)))


def cka_by_kernels(x: np.ndarray, y: np.ndarray) -> float:
    return unbiased_hsic(x, y) / np.sqrt(unbiased_hsic(x, x) * unbiased_hsic(y, y))


def overlap_by_scikit_learn(x: np.ndarray, y: np.ndarray) -> float:
    search = NearestNeighbors(n_neighbors=K, metric="cosine", algorithm="brute")
    near = [search.fit(z).kneighbors(return_distance=False) for z in (x, y)]
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(*near, strict=True)]))


def test_from_a_store_to_numbers_and_pictures(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    done = run_featkit("similarity", store, "--k", K, "-o", folder)
    assert (done.returncode, done.stderr) == (0, "")
    xs = features()
    pairs = [("blind", "one"), ("blind", "two"), ("one", "two")]
    wanted = {
        (f"{one}/fc", f"{other}/fc"): (
            cka_by_kernels(xs[one], xs[other]),
            overlap_by_scikit_learn(xs[one], xs[other]),
        )
        for one, other in pairs
    }
    assert wanted["one/fc", "two/fc"][0] > 0.7 > 0.1 > abs(wanted["blind/fc", "one/fc"][0])
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["one", "other", "cka", "overlap"]
    assert [tuple(line.split()[:2]) for line in lines[1:4]] == list(wanted)
    for line, numbers in zip(lines[1:4], wanted.values(), strict=True):
        # printed with three digits
        assert [float(text) for text in line.split()[2:]] == pytest.approx(numbers, abs=6e-4)
    assert lines[5] == "images 120, unreadable 0, overlap by chance 0.042"
    assert lines[6] == f"saved in {folder}: result.json, tables, 2 figures"
    assert {path.name for path in folder.iterdir()} == {
        "result.json", "similarity.csv", "arrays.h5", "cka.png", "overlap.png",
    }  # fmt: skip
    with (folder / "similarity.csv").open(newline="") as file:
        rows = {(row["one"], row["other"]): row for row in csv.DictReader(file)}
    assert list(rows) == list(wanted)
    with h5py.File(folder / "arrays.h5") as file:
        assert file["names"].asstr()[...].tolist() == NAMES
        arrays = {name: file[name][...] for name in ("cka", "overlap")}
    for (one, other), (cka, overlap) in wanted.items():
        assert float(rows[one, other]["cka"]) == pytest.approx(cka, abs=1e-5)
        assert float(rows[one, other]["overlap"]) == pytest.approx(overlap, abs=1e-9)
        at = NAMES.index(one), NAMES.index(other)
        assert arrays["cka"][at] == arrays["cka"].T[at] == float(rows[one, other]["cka"])
        assert arrays["overlap"][at] == arrays["overlap"].T[at]
    for name, matrix in arrays.items():
        np.testing.assert_allclose(matrix.diagonal(), 1)
        with Image.open(folder / f"{name}.png") as image:
            assert min(image.size) > 300


def test_json_of_two_models(run: Run, store: Path) -> None:
    asked = ["similarity", f"{store}:two", f"{store}:one/fc", "--k", K, "--json"]
    status, out, err = run(*asked)
    assert (status, err) == (0, "")
    content = json.loads(out)
    assert content["analysis"] == "similarity"
    assert content["config"] == {"estimator": "debiased", "k": K, "samples": 10_000, "seed": 0}
    (row,) = content["tables"]["similarity"]
    assert (row["one"], row["other"]) == ("two/fc", "one/fc")
    assert content["scalars"] == {
        "images": N, "unreadable": 0, "overlap_by_chance": pytest.approx(K / (N - 1)),
    }  # fmt: skip
    assert [table["table"] for table in content["provenance"]["inputs"]["store"]] == [
        str(store / "two" / "fc.none.h5"),
        str(store / "one" / "fc.none.h5"),
    ]
    assert run(*asked)[1] == out
    biased = json.loads(run(*asked, "--estimator", "biased")[1])["tables"]["similarity"][0]
    assert biased["cka"] != row["cka"]
    assert biased["overlap"] == row["overlap"]


def test_images_that_a_table_lacks_and_those_not_drawn_are_told(run: Run, tmp_path: Path) -> None:
    holes = features()["one"]
    holes[[4, 90]] = np.nan
    store = make(tmp_path / "holes", one=holes)
    status, out, err = run("similarity", store, "--k", K, "--samples", 50)
    assert status == 0
    assert out.splitlines()[-1].startswith("images 50, unreadable 2, overlap by chance 0.102")
    assert err.startswith("note: 50 of 118 images, drawn with seed 0; ")
    assert err.count("\n") == 1
    status, out, err = run("similarity", store, "--samples", 0, "--k", K, "--json")
    keep = np.delete(np.arange(N), [4, 90])
    rows = {(r["one"], r["other"]): r for r in json.loads(out)["tables"]["similarity"]}
    xs = {name: x[keep] for name, x in features().items()}
    assert rows["blind/fc", "two/fc"]["cka"] == pytest.approx(
        cka_by_kernels(xs["blind"], xs["two"]), abs=1e-5
    )
    assert rows["one/fc", "two/fc"]["overlap"] == pytest.approx(
        overlap_by_scikit_learn(xs["one"], xs["two"])
    )


def test_an_output_that_is_a_file_is_left_alone(run: Run, store: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    status, out, err = run("similarity", store, "--k", K, "-o", taken)
    assert (status, out) == (2, "")
    assert err == (f"featkit: cannot write to {taken} (Not a directory): give another folder\n")
    assert taken.read_text() == "mine"


def test_help_shows_the_command_and_its_protocol(run: Run) -> None:
    assert "similarity" in run("--help")[1]
    text = " ".join(run("similarity", "--help")[1].split())
    assert "similarity [OPTIONS] STORE..." in text
    for option in ("--estimator", "--k", "--samples", "--seed", "--output", "--json"):
        assert option in text
    assert "arXiv:2405.07987" in text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "Missing argument 'STORE...'"),
        (["nowhere"], "nowhere"),
        (["s:on"], "s:on: no such table; did you mean one"),
        (["s:one"], "is the only table: give two or more to compare"),
        (["s:one", "s:one/fc"], "is the only table: give two or more to compare"),
        (["s:one", "t:one"], "are of different images: give tables of the same"),
        (["s", "--k", "120"], "k 120 takes 121 or more: lower k"),
        (["s", "--k", "0"], "k is 0: give a whole number, at least 1"),
        (["s", "--k", "five"], "'five' is not a valid integer"),
        (["s", "--samples", "10"], "samples is 10: give 11 or more for k 10, or 0 for all"),
        (["s", "--seed", "-1"], "seed is -1: give a whole number, at least 0"),
        (["s", "--estimator", "fair"], "'fair' is not one of 'debiased', 'biased'"),
        (["flat"], "same/fc are the same in all 120 rows: leave them out"),
        (["maps:planes/fc", "maps:one"], "needs rows of d numbers, and these are (2, 3, 3)"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    given: list[str],
    message: str,
    run: Run,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(store.parent)
    make(Path("t"))
    make(Path("flat"), same=np.ones((N, 4), np.float32))
    make(Path("maps"), planes=np.ones((N, 2, 3, 3), np.float32))
    status, out, err = run("similarity", *given, "-o", "out")
    assert status in (1, 2)
    assert message in err
    assert err.startswith("featkit: ")
    assert err.count("\n") == 1
    assert out == ""
    assert not Path("out").exists()
