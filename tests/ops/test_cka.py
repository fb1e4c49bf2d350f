"""Linear CKA against n × n kernel matrices, closed forms, and invariances."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from featkit.errors import UsageError
from featkit.ops import cka as module
from featkit.ops import matrices
from featkit.ops.cka import centered_rows, linear_cka


def normal(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def related(n, widths, mean=3.0):
    """Features that share some directions, with a mean that is not 0."""
    common = normal(n, 4, 99)
    return [common @ normal(4, d, d) + 2 * normal(n, d, 1000 + d) + mean for d in widths]


def biased_by_kernels(x, y):
    """Tr(KHLH) of Gretton et al. 2005."""
    n = len(x)
    h = np.eye(n) - 1 / n
    return np.trace(x @ x.T @ h @ y @ y.T @ h)


def unbiased_by_kernels(x, y):
    """Song et al. 2012, equation 5, from kernels without their diagonals."""
    n = len(x)
    k, l = x @ x.T, y @ y.T  # noqa: E741 - as in the paper
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    one = np.ones(n)
    return (
        np.trace(k @ l)
        + one @ k @ one * (one @ l @ one) / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (one @ k @ l @ one)
    ) / (n * (n - 3))


def by_kernels(features, hsic):
    wide = [np.asarray(x, np.float64) for x in features]
    found = np.array([[hsic(x, y) for y in wide] for x in wide])
    return found / np.sqrt(np.outer(found.diagonal(), found.diagonal()))


@pytest.fixture(params=["one block", "small blocks"])
def blocks(request, monkeypatch):
    if request.param == "small blocks":
        monkeypatch.setattr(module, "ROWS", 13)
        monkeypatch.setattr(module, "WIDTH", 30)
        monkeypatch.setattr(module, "GRAM_FLOATS", 500)
        monkeypatch.setattr(matrices, "BLOCK_FLOATS", 100)


@pytest.mark.parametrize(
    ("n", "widths"),
    [(150, (7, 20, 3, 40, 1)), (60, (7, 20, 3, 40, 1)), (40, (300, 5)), (4, (2, 30)), (71, (71,))],
    ids=["features", "samples", "wide", "four rows", "alone"],
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_equals_kernel_matrices(blocks, n, widths, dtype):
    features = [x.astype(dtype) for x in related(n, widths)]
    for estimator, hsic in (("biased", biased_by_kernels), ("debiased", unbiased_by_kernels)):
        found = linear_cka(features, estimator=estimator)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, by_kernels(features, hsic), atol=2e-6)
        np.testing.assert_array_equal(found, found.T)
        np.testing.assert_array_equal(found.diagonal(), np.ones(len(widths)))


def test_both_ways_to_multiply_agree(monkeypatch):
    features = [centered_rows(x) for x in related(200, (5, 70, 30))]
    one = module._products_of_features(features)
    other = module._products_of_samples(features)
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6 * other.max())
    used = []
    for name in ("_products_of_features", "_products_of_samples"):
        plain = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda x, name=name, plain=plain: used.append(name) or plain(x)
        )
    linear_cka(related(105, (5, 70, 30)))
    linear_cka(related(104, (5, 70, 30)))
    assert used == ["_products_of_features", "_products_of_samples"]


@pytest.mark.parametrize("estimator", ["biased", "debiased"])
def test_turns_scales_shifts_and_order_change_nothing(estimator):
    x, y = related(300, (12, 30))
    turn, _ = np.linalg.qr(normal(12, 12, 5))
    order = np.random.default_rng(6).permutation(300)
    wanted = linear_cka([x, y], estimator=estimator)[0, 1]
    assert 0.1 < wanted < 0.9
    for one, other in (
        (x @ turn * -7, y),
        (x + 1e4 * normal(1, 12), y),
        (x * 1e-140, y * 1e140),
        (x[order], y[order]),
        (x[:, ::-1], y),
        (np.hstack([x, np.full((300, 5), 8.0)]), y),
    ):
        found = linear_cka([one, other, x], estimator=estimator)
        assert found[0, 1] == pytest.approx(wanted, abs=1e-5)
    same = linear_cka([x, x @ turn * 1e-3 + 5], estimator=estimator)
    np.testing.assert_allclose(same, np.ones((2, 2)), atol=1e-6)


@pytest.mark.parametrize("estimator", ["biased", "debiased"])
def test_rounding_takes_nothing_above_1(estimator):
    for seed in range(20):
        x = normal(4, 9, seed)
        scaled = linear_cka([x * factor + factor for factor in range(1, 9)], estimator=estimator)
        assert scaled.max() == 1


def test_orthonormal_directions_in_closed_form():
    """X and Y hold p and q columns of an orthonormal centred basis, r of them in both."""
    basis, _ = np.linalg.qr(np.hstack([np.ones((50, 1)), normal(50, 20)]))
    basis = basis[:, 1:]
    p, q, r = 9, 13, 5
    x, y = basis[:, :p], basis[:, p - r : p - r + q]
    found = linear_cka([x, y], estimator="biased")
    assert found[0, 1] == pytest.approx(r / np.sqrt(p * q), rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(1000, 10), (200, 200), (100, 2000)])
def test_independent_features_are_alike_only_to_the_biased_estimator(n, d):
    found = [
        [linear_cka([normal(n, d, s), normal(n, d, -s % 97 + 200)], estimator=e)[0, 1] for e in
         ("biased", "debiased")]
        for s in range(8)
    ]  # fmt: skip
    biased, debiased = np.transpose(found)
    # of Gaussians E tr KL = n d² of n d² + n² d, for n and d large
    assert biased.mean() == pytest.approx(d / (n + d), rel=0.1)
    assert abs(debiased.mean()) < 0.02
    assert (debiased < 0).any()


def test_debiased_of_few_images_is_that_of_many():
    """Y = X A + noise, whose population CKA is ‖A‖² of the covariances, in closed form."""
    a = normal(40, 40, 1)
    cross, own = np.sum(a**2), a.T @ a + 30 * np.eye(40)
    population = cross / np.sqrt(40 * np.sum(own**2))
    found = []
    for seed in range(30):
        x = normal(60, 40, 10 + seed)
        y = x @ a + 30**0.5 * normal(60, 40, 500 + seed)
        found.append([linear_cka([x, y], estimator=e)[0, 1] for e in ("biased", "debiased")])
    biased, debiased = np.mean(found, axis=0)
    assert debiased == pytest.approx(population, abs=0.02)
    assert biased > population + 0.1


def test_narrow_variation_on_a_large_mean_keeps_its_digits():
    x, y = related(200, (10, 20), mean=0)
    wanted = linear_cka([x, y])
    for spread in (1e-3, 1e-6):
        np.testing.assert_allclose(linear_cka([x * spread + 1000, y]), wanted, atol=1e-5)


def test_rows_are_centred_and_have_length_1_on_average():
    x = normal(50, 6) * 30 + 8
    sides = centered_rows(x)
    held = np.vstack([sides.rows(slice(0, 20)), sides.rows(slice(20, 50))]).astype(np.float64)
    np.testing.assert_allclose(held, (x - x.mean(0)) / sides.scale, atol=1e-6)
    np.testing.assert_allclose(sides.lengths, (held**2).sum(1), rtol=1e-5)
    assert sides.lengths.mean() == pytest.approx(1, abs=1e-12)


def test_neither_n_by_n_nor_a_whole_table_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 500)
    monkeypatch.setattr(module, "GRAM_FLOATS", 2**16)
    monkeypatch.setattr(matrices, "BLOCK_FLOATS", 2**15)
    for n, d in ((20_000, 40), (2000, 3000)):
        x = normal(n, d).astype(np.float32)
        np.save(tmp_path / "x.npy", x)
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        tracemalloc.start()
        try:
            found = linear_cka([mapped, mapped[:, ::-1]])
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < min(x.nbytes, 8 * n**2)
        np.testing.assert_allclose(found, np.ones((2, 2)), atol=1e-6)


@pytest.mark.parametrize("estimator", ["biased", "debiased"])
@pytest.mark.parametrize("value", [0, 7.3, -1e-30, 1e30])
def test_rows_that_are_all_the_same(estimator, value):
    same = np.full((30, 5), value)
    with pytest.raises(UsageError, match="^features 1 are the same in all 30 rows: leave them out"):
        linear_cka([normal(30, 4), same], estimator=estimator)
    with pytest.raises(UsageError, match="^net/fc are the same"):
        centered_rows(same, name="net/fc")


def test_rows_equally_far_from_each_other_have_no_debiased_cka():
    simplex = np.eye(40) * 3 + 1
    assert linear_cka([simplex, normal(40, 40)], estimator="biased")[0, 1] > 0.5
    with pytest.raises(UsageError, match="^net: all rows are equally far from each other"):
        linear_cka([normal(40, 40), centered_rows(simplex, name="net")])


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], "CKA of no rows"),
        ([normal(3, 2), normal(3, 2, 1)], "CKA of 3 rows: .* four or more"),
        (
            [normal(20, 2), normal(21, 2)],
            "CKA of 20 and 21 rows: give features of the same samples",
        ),
        ([normal(20, 2), np.ones(20)], "features 1 are float64 .* give real numbers"),
        ([np.ones((0, 4))], "give real numbers"),
        ([np.where(np.eye(9), np.nan, 1)], "features 0 hold NaN, infinity"),
        ([normal(9, 2), np.where(np.eye(9), np.inf, 1)], "features 1 hold NaN, infinity"),
        ([np.eye(9) * 1e200], "features 0 hold .* numbers above 1e150"),
        ([np.full((9, 2), 1e308)], "features 0 hold .* numbers above 1e150"),
    ],
)
def test_what_has_no_cka(features, message):
    with pytest.raises(UsageError, match=message):
        linear_cka(features)


def test_estimators_that_do_not_exist():
    with pytest.raises(UsageError, match="estimator 'fair': use debiased or biased"):
        linear_cka([normal(9, 2)] * 2, estimator="fair")
