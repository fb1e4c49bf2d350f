"""Projections against umap-learn, scikit-learn and their own metamorphoses."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from sklearn.manifold import trustworthiness
from sklearn.neighbors import KNeighborsClassifier

from featkit.analyses import projection
from featkit.analyses.base import Result, check_requirements
from featkit.analyses.neighbors import KNN
from featkit.analyses.projection import Projection, ProjectionConfig
from featkit.errors import UsageError
from featkit.ops.projection import load_umap, project
from featkit.report.figures import draw_figures
from featkit.store.reader import FeatureTable, open_store
from tests.store.conftest import make_samples, make_table

RNG = np.random.default_rng(0)
NAMES = ["ant", "bee", "cow"]
Y = np.arange(90) % 3
MIXED = (RNG.standard_normal((3, 20))[Y] * 0.6 + RNG.standard_normal((90, 20))).astype(np.float32)
TSNE: dict[str, Any] = {"methods": ("tsne",), "perplexity": 10}


def table(
    store: Path, x: np.ndarray, y: np.ndarray = Y, name: str = "net", names: list[str] = NAMES
) -> FeatureTable:
    manifest = make_samples(store, y, names)
    make_table(store, manifest, f"{name}/fc.none", x)
    return open_store(store)[name]


def run(*tables: FeatureTable, **config: Any) -> Result:
    return Projection(ProjectionConfig(**config)).run({"store": tables})


def points(result: Result, features: str = "net/fc", method: str = "tsne") -> np.ndarray:
    return np.array(
        [
            [row["x"], row["y"]]
            for row in result.tables["projection"]
            if (row["features"], row["method"]) == (features, method)
        ]
    )


def test_classes_far_apart_stay_apart_and_points_are_those_of_the_libraries(
    tmp_path: Path,
) -> None:
    """Eight classes, in parts that no neighbour joins; the one test that waits for UMAP."""
    labels = np.arange(240) % 8
    middles = np.eye(8, 60) * 40
    x = (middles[labels] + RNG.standard_normal((240, 60))).astype(np.float32)
    x[17] = np.nan
    keep = np.delete(np.arange(240), 17)
    given = table(tmp_path / "s", x, labels, names=[f"c{i}" for i in range(8)])
    result = run(given, neighbors=9, perplexity=9, seed=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        umap = load_umap()(n_neighbors=9, random_state=3, n_jobs=1).fit_transform(x[keep])
    np.testing.assert_array_equal(points(result, method="umap"), umap)
    options: dict[str, Any] = {"neighbors": 9, "perplexity": 9, "seed": 3}
    np.testing.assert_array_equal(umap, project(x[keep], "umap", **options))
    np.testing.assert_array_equal(points(result), project(x[keep], "tsne", **options))
    assert [(row["features"], row["method"], row["n"]) for row in result.tables["quality"]] == [
        ("net/fc", "umap", 239), ("net/fc", "tsne", 239),
    ]  # fmt: skip
    for row in result.tables["quality"]:
        assert row["knn_2d"] == row["knn_features"] == 1
        assert 0.8 < row["trustworthiness"] < 1
    for row, i in zip(result.tables["projection"], [*keep, *keep], strict=True):
        assert (row["image"], row["class"]) == (given.paths[i], f"c{labels[i]}")
    assert result.notes == [
        "net/fc: left out 1 of 240 images, which could not be read",
        "t-SNE sees the first 50 principal components of wider tables",
    ]
    opposite = np.concatenate([np.ones((1, 5)), np.full((30, 5), -1.0)])
    assert np.isfinite(project(opposite, "umap", metric="cosine")).all()
    assert set(result.provenance["versions"]) > {"umap-learn", "scikit-learn"}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureTable, Result]:
    given = table(tmp_path_factory.mktemp("mixed") / "s", MIXED)
    return given, run(given, **TSNE)


def test_quality_is_that_of_scikit_learn_and_of_knn(mixed: tuple[FeatureTable, Result]) -> None:
    given, result = mixed
    (row,) = result.tables["quality"]
    placed = points(result).astype(np.float32)
    assert row["trustworthiness"] == pytest.approx(trustworthiness(MIXED, placed, n_neighbors=15))
    (known,) = KNN().run({"train": [given], "test": [given]}).tables["accuracy"]
    assert row["knn_features"] == known["top1"]
    right, tied = 0, 0
    for i in range(90):
        others = np.delete(np.arange(90), i)
        near = KNeighborsClassifier(20).fit(placed[others], Y[others])
        shares = near.predict_proba(placed[i : i + 1])[0]
        winners = np.flatnonzero(shares == shares.max())
        tied += len(winners) > 1
        right += winners.tolist() == [Y[i]]
    assert right <= round(90 * row["knn_2d"]) <= right + tied
    assert 0.4 < row["knn_2d"] < 0.95


def test_classes_only_colour(mixed: tuple[FeatureTable, Result], tmp_path: Path) -> None:
    given, result = mixed
    shuffled = run(table(tmp_path / "s", MIXED, RNG.permutation(Y)), **TSNE)
    np.testing.assert_array_equal(points(shuffled), points(result))
    (row,), (other,) = result.tables["quality"], shuffled.tables["quality"]
    assert other["trustworthiness"] == row["trustworthiness"]
    assert other["knn_2d"] < row["knn_2d"]
    hot = np.eye(3, dtype=np.uint8)[Y]
    for labels, notes in (
        (None, []), (hot, ["net/fc: its images have several labels: points have no class"])
    ):  # fmt: skip
        samples = replace(open_store(given.path.parents[1]).samples, labels=labels)
        plain = run(FeatureTable(given.path, samples), **TSNE)
        np.testing.assert_array_equal(points(plain), points(result))
        assert {row["class"] for row in plain.tables["projection"]} == {None}
        assert plain.tables["quality"] == [{**row, "knn_2d": None, "knn_features": None}]
        assert plain.notes == notes
        assert not plain.arrays
        assert [(f.hue, f.labels) for f in plain.figures] == [(None, None)]


def test_a_draw_is_of_the_seed_and_the_same_for_all_tables(tmp_path: Path) -> None:
    holes = MIXED.copy()
    holes[:5] = np.nan
    manifest = make_samples(tmp_path / "s", Y, NAMES)
    for name, x in {"one": MIXED, "two": -MIXED, "holes": holes}.items():
        make_table(tmp_path / "s", manifest, f"{name}/fc.none", x)
    store = open_store(tmp_path / "s")
    options = {**TSNE, "samples": 60}
    result = run(store["one"], store["two"], store["holes"], store["two"], **options)
    drawn: dict[str, list[str]] = {}
    for row in result.tables["projection"]:
        drawn.setdefault(row["features"], []).append(row["image"])
    assert drawn["one/fc"] == drawn["two/fc"] == sorted(drawn["one/fc"])
    assert len(drawn["one/fc"]) == len(set(drawn["one/fc"])) == 60
    assert len(set(drawn["one/fc"]) & set(drawn["holes/fc"])) >= 55
    assert result.notes == [
        "60 of 90 images of a table, drawn with seed 0",
        "holes/fc: left out 5 of 90 images, which could not be read",
        "60 of 85 images of a table, drawn with seed 0",
    ]
    rows = [store["one"].paths.index(image) for image in drawn["one/fc"]]
    np.testing.assert_array_equal(
        points(result, "one/fc"), project(MIXED[rows], "tsne", perplexity=10)
    )
    other = run(store["one"], seed=1, **options)
    assert {row["image"] for row in other.tables["projection"]} != set(drawn["one/fc"])
    assert run(store["one"], **{**options, "samples": 0}).tables["quality"][0]["n"] == 90


def test_trustworthiness_is_of_some_rows_where_there_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "TRUSTED", 40)
    result = run(table(tmp_path / "s", MIXED), **TSNE, seed=2)
    rows = np.random.default_rng(2).choice(90, 40, replace=False)
    assert result.tables["quality"][0]["trustworthiness"] == pytest.approx(
        trustworthiness(MIXED[rows], points(result).astype(np.float32)[rows], n_neighbors=15)
    )
    assert result.notes == ["trustworthiness is of 40 images, drawn with the seed"]


def test_few_images_have_fewer_neighbours(tmp_path: Path) -> None:
    few = table(tmp_path / "s", MIXED[:6].astype(np.float16), Y[:6])
    (row,) = run(few, **{**TSNE, "perplexity": 1}).tables["quality"]
    assert row["n"] == 6
    assert 0 <= row["trustworthiness"] <= 1


def test_tables_that_cannot_be_projected_are_refused_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "project", pytest.fail)
    good = table(tmp_path / "good", MIXED)
    for name, x, message in (
        ("blind", np.full((90, 4), np.nan), "blind/fc: none of its 90 images could be read"),
        ("same", np.ones((90, 4)), "same/fc: all 90 rows are the same"),
        ("thin", np.arange(90.0)[:, None], "thin/fc: rows have one number each"),
    ):
        bad = table(tmp_path / name, x.astype(np.float32), name=name)
        with pytest.raises(UsageError, match=f"^{message}"):
            run(good, bad, **TSNE)
    with pytest.raises(UsageError, match="^net/fc: 90 rows, and neighbors 90 takes 91 or more"):
        run(good, neighbors=90)
    with pytest.raises(UsageError, match="perplexity 30 takes 91 or more: lower it to 29"):
        run(good, methods=("tsne",))
    few = table(tmp_path / "few", MIXED[:12], Y[:12])
    with pytest.raises(UsageError, match="12 rows, and neighbors 15 takes 16 or more: lower it"):
        run(few)
    manifest = make_samples(tmp_path / "maps", np.zeros(4), ["a"])
    make_table(tmp_path / "maps", manifest, "maps/x.none", np.zeros((4, 2, 3, 3), np.float32))
    maps = open_store(tmp_path / "maps").tables()
    with pytest.raises(UsageError, match=r"rows of d numbers.*\(2, 3, 3\)"):
        check_requirements(Projection.requires, {"store": maps})
    with pytest.raises(UsageError, match="store: no table given"):
        run()


def test_the_figure_is_a_grid_of_methods_and_tables(
    mixed: tuple[FeatureTable, Result], tmp_path: Path
) -> None:
    _, result = mixed
    (figure,) = result.figures
    assert (figure.kind, figure.data, figure.panels) == (
        "facets", "projection", ("method", "features"),
    )  # fmt: skip
    assert result.arrays["classes"].tolist() == NAMES
    result.save(tmp_path / "out")
    (file,) = draw_figures(result, tmp_path / "out")
    assert (file.name, file.stat().st_size > 10_000) == ("projection.png", True)
    with h5py.File(tmp_path / "out" / "arrays.h5") as arrays:
        assert arrays["classes"].asstr()[...].tolist() == NAMES
    assert result.to_json().count("\n") > 90


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"methods": ()}, "methods is empty: give umap, tsne or both"),
        ({"methods": ("umap", "pca")}, "method 'pca': use umap or tsne"),
        ({"samples": -1}, "samples is -1: give a whole number, or 0 for all images"),
        ({"neighbors": 1}, "neighbors is 1"),
        ({"min_dist": -0.5}, "min_dist is -0.5"),
        ({"perplexity": 0}, "perplexity is 0"),
        ({"metric": "l1"}, "metric 'l1'"),
        ({"seed": 2**32}, "seed is 4294967296"),
    ],
)
def test_options_that_mean_nothing(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        ProjectionConfig(**config)


def test_defaults_are_those_of_the_sources() -> None:
    assert ProjectionConfig() == ProjectionConfig(
        ("umap", "tsne"), 15, 0.1, 30.0, "euclidean", 10_000, 0
    )
