"""Singular values against LAPACK's in float64, and what is made of them in closed form."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

from featkit.errors import UsageError
from featkit.ops import matrices
from featkit.ops.spectrum import (
    decay_exponent,
    effective_rank,
    participation_ratio,
    singular_values,
)


def rows(n, d, seed=0, mean=0.0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) * np.linspace(5, 0.01, d) + mean


def exact(x):
    return np.linalg.svd(np.asarray(x, dtype=np.float64), compute_uv=False)


@pytest.mark.parametrize("floats", [1, 100, 2**22])
@pytest.mark.parametrize(("n", "d"), [(200, 12), (12, 200), (30, 30), (1, 9), (9, 1), (31, 30)])
@pytest.mark.parametrize("mean", [0.0, 10.0])
def test_equals_lapack_whatever_the_blocks(monkeypatch, floats, n, d, mean):
    monkeypatch.setattr(matrices, "BLOCK_FLOATS", floats)
    x = rows(n, d, mean=mean)
    found, wanted = singular_values(x), exact(x)
    assert found.dtype == np.float64
    assert found.shape == (min(n, d),)
    np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-7 * wanted[0])
    assert (np.diff(found) <= 0).all()
    centred = singular_values(x, center=True)
    np.testing.assert_allclose(centred, exact(x - x.mean(0)), rtol=1e-7, atol=1e-7 * wanted[0])
    assert (np.diff(centred) <= 0).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8])
def test_narrow_types_are_widened_before_they_are_multiplied(dtype):
    x = (20 * rows(3000, 6) / 5).clip(-100, 100).astype(dtype)
    np.testing.assert_allclose(singular_values(x), exact(x), rtol=1e-9, atol=1e-6)
    large = np.full((500, 4), 60_000 if dtype != np.int8 else 120, dtype)
    wanted = float(large[0, 0]) * 2000**0.5
    np.testing.assert_allclose(singular_values(large), [wanted, 0, 0, 0], atol=1e-7 * wanted)


def test_values_are_accurate_to_1e_8_of_the_largest():
    rng = np.random.default_rng(0)
    u, _ = np.linalg.qr(rng.standard_normal((300, 20)))
    v, _ = np.linalg.qr(rng.standard_normal((20, 20)))
    wanted = np.logspace(0, -19, 20)
    for x in ((u * wanted) @ v.T, ((u * wanted) @ v.T).T):
        found = singular_values(x)
        np.testing.assert_allclose(found[:6], wanted[:6], rtol=1e-4)
        assert (found >= 0).all()
        np.testing.assert_allclose(found, wanted, atol=1e-7)


def test_a_memory_mapped_array_is_not_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(matrices, "BLOCK_FLOATS", 2**15)
    x = rows(20_000, 32, mean=1.0).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    tracemalloc.start()
    try:
        found, wide = singular_values(mapped), singular_values(mapped.T)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < x.nbytes / 2
    np.testing.assert_allclose(found, exact(x), rtol=1e-7)
    np.testing.assert_allclose(wide, exact(x), rtol=1e-7)


def test_rows_of_zeros_have_no_spectrum():
    for center in (False, True):
        np.testing.assert_array_equal(singular_values(np.zeros((5, 3)), center=center), np.zeros(3))


@pytest.mark.parametrize("shape", [(400, 30), (30, 400)])
@pytest.mark.parametrize("mean", [0, 1, 1e4, 1e9])
def test_squares_of_centred_rows_are_the_variances_of_pca(shape, mean):
    x = rows(*shape) + mean
    variances = singular_values(x, center=True) ** 2 / (len(x) - 1)
    wanted = PCA(svd_solver="full").fit(x).explained_variance_
    np.testing.assert_allclose(variances[:29], wanted[:29], rtol=1e-6)


@pytest.mark.parametrize("shape", [(1000, 7), (7, 1000), (1, 3)])
@pytest.mark.parametrize("value", [0.1, 1e-30, 3e20, -7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_features_that_do_not_vary_have_nothing_left_when_centred(shape, value, dtype):
    x = np.full(shape, value, dtype) * np.linspace(0.1, 3, shape[1], dtype=dtype)
    np.testing.assert_array_equal(singular_values(x, center=True), np.zeros(min(shape)))
    assert singular_values(x)[0] == pytest.approx(exact(x)[0])


@pytest.mark.parametrize(
    "x", [np.ones(3), np.ones((2, 2, 2)), np.ones((0, 3)), np.ones((3, 0)), np.eye(2) * 1j, [["a"]]]
)
def test_what_is_no_matrix(x):
    with pytest.raises(UsageError, match="give real numbers in the shape"):
        singular_values(x)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_numbers_without_squares(value):
    x = rows(10, 3)
    x[4, 1] = value
    for y in (x, x.T):
        for center in (False, True):
            with pytest.raises(UsageError, match="hold NaN"):
                singular_values(y, center=center)


@pytest.mark.parametrize("d", [1, 2, 64, 1000])
def test_ranks_of_orthonormal_columns_and_of_one_direction(d):
    basis, _ = np.linalg.qr(np.random.default_rng(d).standard_normal((1000, d)))
    values = singular_values(17 * basis)
    assert effective_rank(values) == pytest.approx(d, rel=3e-6 * d)
    assert participation_ratio(values) == pytest.approx(d)
    one = np.outer(basis[:, 0], np.arange(1, d + 1))
    assert effective_rank(singular_values(one)) == pytest.approx(1, abs=3e-6 * d)
    assert participation_ratio(singular_values(one)) == pytest.approx(1)


def test_ranks_by_hand():
    shares = np.array([0.5, 0.25, 0.125, 0.125])
    assert effective_rank(8 * shares) == pytest.approx(2**1.75, rel=1e-5)
    assert participation_ratio(np.sqrt(shares)) == pytest.approx(1 / np.sum(shares**2))
    assert participation_ratio([2.0, 1.0]) == pytest.approx(25 / 17)  # of the squares
    for measure in (effective_rank, participation_ratio):
        assert measure(np.zeros(5)) == 0
        assert measure(shares[::-1]) == measure(shares)
        assert measure(shares * 1e200) == pytest.approx(measure(shares), rel=1e-12)


def test_each_share_of_rankme_has_an_epsilon():
    d = 10_000
    one = np.eye(1, d)[0]
    assert np.log(effective_rank(one)) == pytest.approx(-d * 1e-7 * np.log(1e-7), rel=1e-3)


@pytest.mark.parametrize("alpha", [0, 0.3, 1, 2.5])
@pytest.mark.parametrize("d", [20, 64, 100, 500])
def test_the_exponent_of_a_power_law(alpha, d):
    eigenvalues = 1e-3 * np.arange(1.0, d + 1) ** -alpha
    found, explained = decay_exponent(np.sqrt(eigenvalues))
    assert found == pytest.approx(alpha, abs=1e-9)
    assert explained == pytest.approx(1)
    shuffled = np.random.default_rng(0).permutation(np.sqrt(eigenvalues))
    assert decay_exponent(shuffled)[0] == pytest.approx(alpha, abs=1e-9)


def test_the_exponent_of_features_with_that_spectrum():
    rng = np.random.default_rng(0)
    centred = rng.standard_normal((600, 150))
    u, _, _ = np.linalg.svd(centred - centred.mean(0), full_matrices=False)
    v, _ = np.linalg.qr(rng.standard_normal((150, 150)))
    x = (u * np.arange(1, 151) ** -0.6) @ v.T + 100
    for features in (x, 3 * x, x.astype(np.float32)):
        alpha, _ = decay_exponent(singular_values(features, center=True))
        assert alpha == pytest.approx(1.2, abs=1e-3)
    assert decay_exponent(singular_values(x))[0] != pytest.approx(1.2, abs=1e-3)


def test_the_exponent_that_the_authors_publish():
    """reptrix, tests/test_alpha.py at f93c9b61b4c0df3a50f67fec54cb409c98339ff8."""
    x = torch.randn(1000, 1024, generator=torch.Generator().manual_seed(0))
    alpha, _ = decay_exponent(singular_values(x.numpy(), center=True))
    assert alpha == pytest.approx(0.148936, rel=1e-5)


def test_the_fit_is_scikit_learns_over_ranks_11_to_100():
    values = np.sort(np.random.default_rng(0).uniform(0.1, 1, 300))[::-1]
    ranks = np.arange(11, 101)
    x, y = np.log(ranks)[:, None], np.log(values[10:100] ** 2)
    line = LinearRegression().fit(x, y, sample_weight=1 / ranks)
    found, explained = decay_exponent(values)
    assert found == pytest.approx(-line.coef_[0])
    assert explained == pytest.approx(line.score(x, y, sample_weight=1 / ranks))
    assert explained < 0.99
    changed = np.concatenate([10 * values[:10], values[10:100], values[100:] / 1000])
    assert decay_exponent(changed) == pytest.approx((found, explained))


def test_values_that_are_rounding_take_no_part_in_the_fit():
    law = np.arange(1.0, 81) ** -1
    noise = np.random.default_rng(0).uniform(0, 1e-8, 50)
    alpha, explained = decay_exponent(np.concatenate([law, noise]))
    assert (alpha, explained) == pytest.approx((2, 1))


@pytest.mark.parametrize("d", [1, 10, 19])
def test_too_few_eigenvalues_for_a_fit(d):
    law = np.arange(1.0, d + 1) ** -1
    for values in (law, np.concatenate([law, np.zeros(100)]), np.concatenate([law, [1e-9] * 9])):
        with pytest.raises(UsageError, match=f"decay of {d} eigenvalues: .* 20 directions or more"):
            decay_exponent(values)
    with pytest.raises(UsageError, match="decay of 0 eigenvalues"):
        decay_exponent(np.zeros(300))


@pytest.mark.parametrize("measure", [effective_rank, participation_ratio, decay_exponent])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "give real numbers"),
        (np.ones((30, 2)), "give real numbers"),
        (3.0, "give real numbers"),
        (["a"], "give real numbers"),
        ([1.0, np.nan], "not all finite"),
        ([np.inf, 1.0], "not all finite"),
        ([1.0, -1e-9], "not all finite, and 0 or more"),
    ],
)
def test_what_are_no_singular_values(measure, values, message):
    with pytest.raises(UsageError, match=message):
        measure(values)
