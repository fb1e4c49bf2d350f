"""The analysis of similarity against scikit-learn and its own metamorphoses."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from featkit.analyses.base import Result, check_requirements
from featkit.analyses.similarity import Similarity, SimilarityConfig
from featkit.errors import UsageError
from featkit.ops.cka import linear_cka
from featkit.ops.similarity import neighbor_overlap
from featkit.report.figures import draw_figures
from featkit.store.reader import FeatureTable, open_store
from tests.store.conftest import make_samples, make_table, spoil

RNG = np.random.default_rng(0)
DIGITS = load_digits().data[:400]
PIXELS = (DIGITS + RNG.standard_normal(DIGITS.shape)).astype(np.float32)
TURNED = (PIXELS @ np.linalg.qr(RNG.standard_normal((64, 64)))[0] * 3 - 1).astype(np.float32)
MIXED = (PIXELS @ RNG.standard_normal((64, 90)) + 30 * RNG.random((400, 90))).astype(np.float32)
OTHER = RNG.standard_normal((400, 30)).astype(np.float32)
FEATURES = {"pixels": PIXELS, "turned": TURNED, "mixed": MIXED, "other": OTHER}


def store(path: Path, rows: slice = slice(None), **features: np.ndarray) -> list[FeatureTable]:
    features = features or FEATURES
    count = len(next(iter(features.values()))[rows])
    manifest = make_samples(path, np.zeros(count), ["a"])
    for name, x in features.items():
        make_table(path, manifest, f"{name}/fc.none", x[rows], weights=name)
    return [open_store(path)[name] for name in features]


def run(tables: list[FeatureTable], **config: object) -> Result:
    return Similarity(SimilarityConfig(**config)).run({"store": tables})  # type: ignore[arg-type]


def test_what_is_alike_is_found_alike(tmp_path: Path) -> None:
    result = run(store(tmp_path / "s"))
    found = {(row["one"], row["other"]): row for row in result.tables["similarity"]}
    assert list(found) == [
        ("pixels/fc", "turned/fc"), ("pixels/fc", "mixed/fc"), ("pixels/fc", "other/fc"),
        ("turned/fc", "mixed/fc"), ("turned/fc", "other/fc"), ("mixed/fc", "other/fc"),
    ]  # fmt: skip
    assert found["pixels/fc", "turned/fc"]["cka"] == pytest.approx(1, abs=1e-5)
    assert 0.2 < found["pixels/fc", "mixed/fc"]["cka"] < 0.99
    assert abs(found["pixels/fc", "other/fc"]["cka"]) < 0.05
    assert found["pixels/fc", "mixed/fc"]["overlap"] > found["pixels/fc", "other/fc"]["overlap"]
    assert result.arrays["names"].tolist() == [f"{name}/fc" for name in FEATURES]
    for (one, other), row in found.items():
        i, j = (result.arrays["names"].tolist().index(name) for name in (one, other))
        assert (row["cka"], row["overlap"]) == (
            result.arrays["cka"][i, j],
            result.arrays["overlap"][i, j],
        )
    assert result.scalars == {"images": 400, "unreadable": 0, "overlap_by_chance": 10 / 399}
    assert result.config == {"estimator": "debiased", "k": 10, "samples": 10_000, "seed": 0}
    assert not result.notes


def test_overlap_is_that_of_scikit_learns_neighbours(tmp_path: Path) -> None:
    result = run(store(tmp_path / "s"), k=5)
    near = [
        NearestNeighbors(n_neighbors=5, metric="cosine", algorithm="brute")
        .fit(x)
        .kneighbors(return_distance=False)
        for x in (PIXELS, MIXED)
    ]
    shared = [len(set(a) & set(b)) / 5 for a, b in zip(*near, strict=True)]
    assert result.arrays["overlap"][0, 2] == pytest.approx(np.mean(shared), abs=1e-3)


@pytest.mark.parametrize("estimator", ["biased", "debiased"])
def test_store_path_equals_array_path(tmp_path: Path, estimator: str) -> None:
    result = run(store(tmp_path / "s"), estimator=estimator, k=7)
    features = list(FEATURES.values())
    wanted = linear_cka(features, estimator=estimator)  # type: ignore[arg-type]
    np.testing.assert_array_equal(result.arrays["cka"], wanted)
    np.testing.assert_array_equal(result.arrays["overlap"], neighbor_overlap(features, 7))


def test_two_stores_of_the_same_images_are_one(tmp_path: Path) -> None:
    alone = run(store(tmp_path / "s"))
    manifest = open_store(tmp_path / "s").samples.manifest
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "samples.h5").write_bytes((tmp_path / "s" / "samples.h5").read_bytes())
    make_table(tmp_path / "t", manifest, "mixed/fc.none", MIXED, weights="mixed")
    make_table(tmp_path / "t", manifest, "pixels/fc.none", OTHER, weights="new")
    s, t = open_store(tmp_path / "s"), open_store(tmp_path / "t")
    tables = [s["pixels"], s["turned"], t["mixed"], t["pixels"], s["pixels"]]
    result = run(tables)
    assert result.arrays["names"].tolist() == [
        "s:pixels/fc", "turned/fc", "mixed/fc", "t:pixels/fc"
    ]  # fmt: skip
    np.testing.assert_array_equal(result.arrays["cka"], alone.arrays["cka"])
    np.testing.assert_array_equal(result.arrays["overlap"], alone.arrays["overlap"])


def test_an_image_that_one_table_lacks_takes_no_part_in_any(tmp_path: Path) -> None:
    holes, more = PIXELS.copy(), MIXED.copy()
    holes[[5, 6]] = np.nan
    more[[6, 390]] = np.nan
    keep = np.delete(np.arange(400), [5, 6, 390])
    one = run(store(tmp_path / "holes", pixels=holes, mixed=more, other=OTHER))
    clean = {"pixels": PIXELS[keep], "mixed": MIXED[keep], "other": OTHER[keep]}
    other = run(store(tmp_path / "clean", **clean))
    assert one.tables == other.tables
    assert one.scalars == {**other.scalars, "unreadable": 3}
    assert one.scalars["images"] == 397


def test_a_sample_is_drawn_once_for_all_tables(tmp_path: Path) -> None:
    holes = OTHER.copy()
    holes[:50] = np.nan
    tables = store(tmp_path / "s", pixels=PIXELS, turned=TURNED, other=holes)
    result = run(tables, samples=100, seed=3)
    assert result.scalars["images"] == 100
    assert result.scalars["overlap_by_chance"] == 10 / 99
    assert result.arrays["cka"][0, 1] == pytest.approx(1, abs=1e-5)
    assert (
        result.arrays["overlap"][0, 1] == run(tables, samples=100, seed=3).arrays["overlap"][0, 1]
    )
    assert result.arrays["cka"][0, 2] != run(tables, samples=100, seed=4).arrays["cka"][0, 2]
    assert result.notes[0].startswith("100 of 350 images, drawn with seed 3")
    for samples in (0, 350, 999):
        whole = run(tables, samples=samples)
        assert whole.scalars["images"] == 350
        assert not whole.notes
    seen = [run(tables, samples=100, seed=seed).arrays["cka"][0, 2] for seed in range(40)]
    assert np.mean(seen) == pytest.approx(whole.arrays["cka"][0, 2], abs=0.02)


def test_biased_cka_of_wide_features_is_warned_of(tmp_path: Path) -> None:
    tables = store(tmp_path / "s")
    biased = run(tables, estimator="biased")
    assert any(
        "biased CKA of 400 images and up to 90 features is too high" in n for n in biased.notes
    )
    assert biased.arrays["cka"][0, 3] > run(tables).arrays["cka"][0, 3] + 0.02
    many = {name: np.tile(x[:, :30], (3, 1)) for name, x in FEATURES.items()}
    assert not run(store(tmp_path / "many", **many), estimator="biased").notes


def test_rows_of_zeros_are_told(tmp_path: Path) -> None:
    zeros = OTHER.copy()
    zeros[:3] = 0
    result = run(store(tmp_path / "s", pixels=PIXELS, other=zeros))
    assert result.notes == [
        "other/fc: 3 of 400 rows are zero: they have no neighbours but by chance"
    ]


def test_figures_show_both_with_their_names(tmp_path: Path) -> None:
    result = run(store(tmp_path / "s"))
    assert [(f.kind, f.data, f.labels, f.diagonal) for f in result.figures] == [
        ("heatmap", "cka", "names", False),
        ("heatmap", "overlap", "names", False),
    ]
    result.save(tmp_path / "out")
    files = draw_figures(result, tmp_path / "out")
    assert all(file.stat().st_size > 10_000 for file in files)
    with h5py.File(tmp_path / "out" / "arrays.h5") as file:
        assert file["names"].asstr()[...].tolist() == [f"{name}/fc" for name in FEATURES]
        assert file["cka"].shape == file["overlap"].shape == (4, 4)


def test_tables_that_cannot_be_compared(tmp_path: Path) -> None:
    tables = store(tmp_path / "s")
    with pytest.raises(
        UsageError, match=r"pixels/fc\.none\.h5 is the only table: give two or more"
    ):
        run([tables[0], open_store(tmp_path / "s")["pixels"]])
    elsewhere = store(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"s/pixels/.* and .*elsewhere/other/.* different images"):
        run([tables[0], elsewhere[3]])
    with pytest.raises(UsageError, match=r"^same/fc are the same in all 400 rows"):
        run(store(tmp_path / "same", pixels=PIXELS, same=np.ones((400, 3), np.float32)))
    few = store(tmp_path / "few", slice(0, 10))
    with pytest.raises(
        UsageError, match="^10 images could be read by .* k 10 takes 11 or more: lower k"
    ):
        run(few)
    assert run(few, k=9).arrays["overlap"][0, 3] == 1
    with pytest.raises(
        UsageError, match="^3 images could be .* k 1 takes 4 or more: give more images"
    ):
        run(store(tmp_path / "fewer", slice(0, 3)), k=1)
    spoil(tables[1].path, 7)
    with pytest.raises(UsageError, match="^turned/fc hold NaN, infinity"):
        run(tables)
    manifest = open_store(tmp_path / "s").samples.manifest
    make_table(tmp_path / "s", manifest, "maps/x.none", np.zeros((400, 2, 3, 3), np.float32))
    with pytest.raises(UsageError, match=r"rows of d numbers.*\(2, 3, 3\)"):
        check_requirements(Similarity.requires, {"store": open_store(tmp_path / "s").tables()})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"estimator": "fair"}, "estimator 'fair': use debiased or biased"),
        ({"k": 0}, "k is 0: give a whole number, at least 1"),
        ({"samples": -5}, "samples is -5: give 11 or more for k 10, or 0 for all"),
        ({"samples": 10}, "samples is 10: give 11 or more for k 10, or 0 for all, or lower k"),
        ({"k": 10_000}, "samples is 10000: give 10001 .* or lower k"),
        ({"samples": 3, "k": 1}, "samples is 3: give 4 or more for k 1"),
        ({"seed": -1}, "seed is -1: give a whole number, at least 0"),
    ],
)
def test_options_that_mean_nothing(config: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SimilarityConfig(**config)  # type: ignore[arg-type]
