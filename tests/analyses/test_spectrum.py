"""The analysis of spectra against NumPy, scipy and closed forms, on stores written by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from featkit.analyses.base import Result, check_requirements, short_names
from featkit.analyses.spectrum import Spectrum, SpectrumConfig
from featkit.errors import UsageError
from featkit.ops.spectrum import decay_exponent, effective_rank, singular_values
from featkit.ops.uniformity import alignment, uniformity
from featkit.report.figures import draw_figures
from featkit.store.reader import FeatureTable, open_store
from tests.store.conftest import make_samples, make_table, spoil

DIGITS = load_digits()
NOISE = np.random.default_rng(0)
X = (DIGITS.data + NOISE.standard_normal(DIGITS.data.shape)).astype(np.float32)[:600]
Y = DIGITS.target[:600]
NAMES = [str(i) for i in range(10)]


def table(store: Path, x: np.ndarray, y: np.ndarray = Y, name: str = "pixels") -> FeatureTable:
    manifest = make_samples(store, y, NAMES)
    make_table(store, manifest, f"{name}/fc.none", x)
    return open_store(store)[name]


def run(*tables: FeatureTable, **config: int) -> Result:
    return Spectrum(SpectrumConfig(**config)).run({"store": tables})


def test_numbers_of_digits_are_those_of_numpy_scipy_and_scikit_learn(tmp_path: Path) -> None:
    result = run(table(tmp_path / "s", X))
    (row,) = result.tables["spectrum"]
    wide = X.astype(np.float64)
    sizes = np.linalg.svd(wide, compute_uv=False)
    shares = sizes / sizes.sum()
    variances = PCA(svd_solver="full").fit(wide).explained_variance_ratio_
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    same = pdist(Y[:, None], "hamming") == 0
    distances = pdist(unit, "sqeuclidean")
    assert row["features"] == "pixels/fc"
    assert (row["n"], row["d"]) == (600, 64)
    assert row["effective_rank"] == pytest.approx(np.exp(-shares @ np.log(shares)), rel=1e-4)
    assert row["rank_share"] == pytest.approx(row["effective_rank"] / 64)
    assert row["participation_ratio"] == pytest.approx(1 / np.sum(variances**2))
    assert row["uniformity"] == pytest.approx(np.log(np.exp(-2 * distances).mean()), rel=1e-6)
    assert row["uniformity_se"] is None
    assert row["alignment"] == pytest.approx(distances[same].mean(), rel=1e-9)
    np.testing.assert_allclose(result.arrays["singular_values/pixels/fc"], sizes, rtol=1e-7)
    np.testing.assert_allclose(result.arrays["shares/pixels/fc"], shares, rtol=1e-7)
    eigenvalues = result.arrays["eigenvalues/pixels/fc"]
    np.testing.assert_allclose(eigenvalues / eigenvalues.sum(), variances, rtol=1e-6)
    np.testing.assert_allclose(eigenvalues.sum(), wide.var(axis=0).sum())
    assert decay_exponent(np.sqrt(variances)) == pytest.approx((row["alpha"], row["alpha_r2"]))
    assert any("two images of one class" in text for text in result.notes)


def test_store_path_equals_array_path(tmp_path: Path) -> None:
    (row,) = run(table(tmp_path / "s", X), samples=100, seed=4).tables["spectrum"]
    alpha = decay_exponent(singular_values(X, center=True))
    even = uniformity(X, samples=100, seed=4)
    assert row["effective_rank"] == effective_rank(singular_values(X))
    assert (row["alpha"], row["alpha_r2"]) == alpha
    assert (row["uniformity"], row["uniformity_se"]) == even
    assert row["uniformity_se"] > 0
    assert row["alignment"] == alignment(X, Y)


@pytest.mark.parametrize("samples", [0, 600, 10_000])
def test_a_table_no_larger_than_the_sample_is_compared_whole(tmp_path: Path, samples: int) -> None:
    (row,) = run(table(tmp_path / "s", X), samples=samples).tables["spectrum"]
    assert (row["uniformity"], row["uniformity_se"]) == (uniformity(X)[0], None)


def test_by_default_10000_rows_are_compared() -> None:
    assert SpectrumConfig() == SpectrumConfig(samples=10_000, seed=0)


def test_unreadable_rows_take_no_part(tmp_path: Path) -> None:
    holes = X.copy()
    holes[[3, 150]] = np.nan
    keep = np.delete(np.arange(600), [3, 150])
    (one,) = run(table(tmp_path / "holes", holes)).tables["spectrum"]
    (other,) = run(table(tmp_path / "clean", X[keep], Y[keep])).tables["spectrum"]
    assert one == {**other, "unreadable": 2}
    assert (one["n"], other["unreadable"]) == (598, 0)


def test_images_are_counted_for_each_table_by_itself(tmp_path: Path) -> None:
    """Two tables lack the same image, and one of them another; no number adds them up."""
    manifest = make_samples(tmp_path / "s", Y, NAMES)
    for name, lacking in {"one": [3], "two": [3, 150], "whole": []}.items():
        x = X.copy()
        x[lacking] = np.nan
        x[10:15] = 0
        make_table(tmp_path / "s", manifest, f"{name}/fc.none", x)
    store = open_store(tmp_path / "s")
    result = run(store["one"], store["two"], store["whole"], store["two"])
    columns = ("n", "unreadable", "zero_rows")
    counted = [[row[name] for name in columns] for row in result.tables["spectrum"]]
    assert counted == [[599, 1, 5], [598, 2, 5], [600, 0, 5]]
    assert not result.scalars
    left_out = [text for text in result.notes if "could not be read" in text]
    assert left_out == [
        "one/fc: left out 1 of 600 images, which could not be read",
        "two/fc: left out 2 of 600 images, which could not be read",
    ]


def test_rows_of_zeros_are_counted_and_have_no_direction(tmp_path: Path) -> None:
    zeros = X.copy()
    zeros[:7] = 0
    result = run(table(tmp_path / "s", zeros))
    (row,) = result.tables["spectrum"]
    assert row["n"] == 600
    assert row["uniformity"] == pytest.approx(uniformity(X[7:])[0], rel=1e-6)
    assert row["alignment"] == pytest.approx(alignment(X[7:], Y[7:]), rel=1e-9)
    assert row["zero_rows"] == 7
    assert any(text.startswith("pixels/fc: 7 of 600 rows are zero") for text in result.notes)


@pytest.mark.parametrize("labels", [None, np.eye(10, dtype=np.uint8)[Y]])
def test_without_one_label_an_image_all_but_alignment(tmp_path: Path, labels: Any) -> None:
    labelled = table(tmp_path / "s", X)
    samples = replace(open_store(tmp_path / "s").samples, labels=labels)
    result = run(FeatureTable(labelled.path, samples))
    (wanted,) = run(labelled).tables["spectrum"]
    assert result.tables["spectrum"] == [{**wanted, "alignment": None}]
    assert not result.notes


def test_what_cannot_be_measured_is_none_and_says_why(tmp_path: Path) -> None:
    manifest = make_samples(tmp_path / "s", np.arange(8), NAMES)
    cases = {
        "same": np.full((8, 50), 0.1),
        "dead": np.zeros((8, 50)),
        "thin": np.arange(1.0, 9)[:, None],
        "one": np.eye(1, 8)[0][:, None] * np.ones(3),
    }
    for name, x in cases.items():
        make_table(tmp_path / "s", manifest, f"{name}/fc.none", x.astype(np.float32))
    result = run(*open_store(tmp_path / "s").tables())
    rows = {row["features"].partition("/")[0]: row for row in result.tables["spectrum"]}
    for name, row in rows.items():
        assert row["alpha"] is row["alpha_r2"] is None
        assert any(f"{name}/fc: decay of" in text for text in result.notes)
        assert row["alignment"] is None
        assert f"{name}/fc: alignment: no class has two rows that are not zero" in result.notes
    assert rows["same"]["effective_rank"] == pytest.approx(1, abs=1e-3)
    assert rows["same"]["participation_ratio"] == 0
    assert rows["same"]["uniformity"] == pytest.approx(0, abs=1e-12)
    assert rows["dead"]["effective_rank"] == rows["dead"]["participation_ratio"] == 0
    assert rows["dead"]["uniformity"] is rows["one"]["uniformity"] is None
    assert rows["thin"]["effective_rank"] == pytest.approx(1, abs=1e-3)
    assert rows["thin"]["participation_ratio"] == pytest.approx(1)
    assert "same/fc: 8 images span at most 8 of 50 directions" in result.notes
    assert "one/fc: uniformity of 1 rows that are not zero: give 2 or more" in result.notes
    assert {name: row["zero_rows"] for name, row in rows.items()} == {
        "same": 0, "dead": 8, "thin": 0, "one": 7,
    }  # fmt: skip
    assert "NaN" not in result.to_json()
    assert all(np.isfinite(values).all() for values in result.arrays.values())
    json.loads(result.to_json())


def test_tables_that_cannot_be_measured(tmp_path: Path) -> None:
    one = np.full((5, 3), np.nan, np.float32)
    one[2] = 1
    with pytest.raises(
        UsageError, match="^pixels/fc: 1 of 5 images could be read: give two or more"
    ):
        run(table(tmp_path / "one", one, np.arange(5)))
    bad = table(tmp_path / "bad", X[:9], Y[:9])
    spoil(bad.path, 4)
    with pytest.raises(UsageError, match=r"^pixels/fc: features hold NaN, infinity"):
        run(bad)
    manifest = make_samples(tmp_path / "maps", np.zeros(4), ["a"])
    make_table(tmp_path / "maps", manifest, "maps/x.none", np.zeros((4, 2, 3, 3), np.float32))
    maps = open_store(tmp_path / "maps").tables()
    with pytest.raises(UsageError, match=r"rows of d numbers.*\(2, 3, 3\)"):
        check_requirements(Spectrum.requires, {"store": maps})
    with pytest.raises(UsageError, match="store: no table given"):
        run()


def test_tables_of_several_stores_keep_their_own_names(tmp_path: Path) -> None:
    train, test = table(tmp_path / "train", X[:300], Y[:300]), table(tmp_path / "test", X, Y)
    again = table(tmp_path / "more" / "test", X[:200], Y[:200])
    other = table(tmp_path / "test", X, Y, "other")
    result = run(train, test, train, other)
    assert [row["features"] for row in result.tables["spectrum"]] == [
        "train:pixels/fc", "test:pixels/fc", "other/fc"
    ]  # fmt: skip
    assert [row["n"] for row in result.tables["spectrum"]] == [300, 600, 600]
    assert len([name for name in result.arrays if name.startswith("eigenvalues/")]) == 3
    assert short_names([test, again]) == [str(test.path), str(again.path)]
    make_table(tmp_path / "test", test.provenance["samples"], "pixels/fc.avg", X)
    make_table(tmp_path / "train", train.provenance["samples"], "pixels/fc.avg", X[:300])
    tables = [*open_store(tmp_path / "train").tables(), *open_store(tmp_path / "test").tables()]
    assert short_names(tables) == [
        "train:pixels/fc.avg", "train:pixels/fc.none",
        "other/fc", "test:pixels/fc.avg", "test:pixels/fc.none",
    ]  # fmt: skip
    assert short_names(tables[:2]) == ["pixels/fc.avg", "pixels/fc.none"]
    assert short_names([tables[0], tables[-1]]) == ["pixels/fc.avg", "pixels/fc.none"]


def test_figures_and_arrays_are_written(tmp_path: Path) -> None:
    low = X[:, np.arange(64) % 20 + 10]
    result = run(table(tmp_path / "s", X), table(tmp_path / "low", low, name="low"))
    assert (result.arrays["shares/low/fc"] > 0).sum() == 20
    assert result.arrays["shares/low/fc"].sum() == pytest.approx(1)
    result.save(tmp_path / "out")
    files = draw_figures(result, tmp_path / "out")
    assert [file.name for file in files] == ["singular_values.png", "effective_rank.png"]
    assert all(file.stat().st_size > 10_000 for file in files)
    with h5py.File(tmp_path / "out" / "arrays.h5") as file:
        assert file["singular_values/pixels/fc"].shape == (64,)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"samples": -1}, "samples is -1: give 3 or more, or 0 for all rows"),
        ({"samples": 2}, "samples is 2"),
        ({"seed": -1}, "seed is -1: give a whole number, at least 0"),
    ],
)
def test_options_that_mean_nothing(config: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SpectrumConfig(**config)
