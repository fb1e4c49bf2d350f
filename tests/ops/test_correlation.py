"""Correlations and their tests against SciPy; Holm's correction against printed examples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from featkit.errors import UsageError
from featkit.ops.correlation import adjust_for_many, correlate, varies
from featkit.ops.rank_correlation import rank_correlation


def pairs(n: int, ties: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed + n)
    x = rng.normal(size=n)
    y = x + rng.normal(size=n)
    return (x, np.round(y) if ties else y)


@pytest.mark.parametrize("n", [3, 4, 8, 9, 30])
@pytest.mark.parametrize("ties", [False, True])
def test_coefficients_are_scipys(n: int, ties: bool) -> None:
    x, y = pairs(n, ties)
    y[0] = y.max() + 1  # three values are not all alike
    found = correlate(x, y)
    assert found.n == n
    assert found.pearson == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert found.spearman == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize("n", [4, 5, 6])
@pytest.mark.parametrize("ties", [False, True])
def test_p_of_few_pairs_is_scipys_over_all_orders(n: int, ties: bool) -> None:
    x, y = pairs(n, ties, seed=5)
    found = correlate(x, y)

    def exact(statistic: object) -> float:
        return float(
            stats.permutation_test(
                (x,), lambda a: abs(statistic(a, y).statistic), permutation_type="pairings",
                n_resamples=np.inf, alternative="greater",
            ).pvalue
        )  # fmt: skip

    assert found.pearson_p == pytest.approx(exact(stats.pearsonr), abs=1e-12)
    assert found.spearman_p == pytest.approx(exact(stats.spearmanr), abs=1e-12)
    assert found.spearman_p == pytest.approx(rank_correlation(x, y).p, abs=1e-12)


def test_eight_pairs_are_exact_and_nine_are_not() -> None:
    x = np.arange(8.0)
    assert correlate(x, x).spearman_p == pytest.approx(2 / 40_320, rel=1e-12)
    x = np.arange(9.0)
    found = correlate(x, x)
    assert 1e-5 <= found.spearman_p < 1e-4  # 2 of 362,880 orders; never 0
    assert found.spearman_p * 100_000 == pytest.approx(round(found.spearman_p * 100_000))


def test_p_of_many_pairs_is_near_its_limit() -> None:
    x, y = pairs(60, ties=False, seed=2)
    y = y + 3 * np.random.default_rng(9).normal(size=60)
    found = correlate(x, y)
    assert 0.001 < found.pearson_p < 0.9
    assert found.pearson_p == pytest.approx(stats.pearsonr(x, y).pvalue, rel=0.1)
    assert found.spearman_p == pytest.approx(stats.spearmanr(x, y).pvalue, rel=0.1)


def test_p_is_even_where_nothing_is() -> None:
    rng = np.random.default_rng(1)
    found = [correlate(rng.normal(size=6), rng.normal(size=6)) for _ in range(150)]
    for name in ("pearson_p", "spearman_p"):
        share = np.mean([getattr(one, name) <= 0.2 for one in found])
        assert 0.1 < share < 0.3


def test_what_does_not_change_a_correlation() -> None:
    x, y = pairs(10, ties=False)
    one = correlate(x, y)
    other = correlate(1e6 * x - 3, y)
    assert other.pearson == pytest.approx(one.pearson, abs=1e-12)
    assert (other.pearson_p, other.spearman, other.spearman_p) == (
        one.pearson_p, one.spearman, one.spearman_p,
    )  # fmt: skip
    turned = correlate(x, -y)
    assert turned.pearson == pytest.approx(-one.pearson)
    assert (turned.pearson_p, turned.spearman_p) == (one.pearson_p, one.spearman_p)
    assert correlate(x, y, seed=1).pearson_p == pytest.approx(one.pearson_p, rel=0.2)
    assert correlate([1.0, 2.0, 3.0], [1.0, 0.0, 1.0]).pearson == 0


def test_a_line_is_certain_only_as_far_as_its_pairs_go() -> None:
    three = correlate([1, 2, 3], [2, 4, 6])
    assert (three.pearson, three.spearman) == (pytest.approx(1), pytest.approx(1))
    assert three.pearson_p == three.spearman_p == pytest.approx(2 / 6)
    assert correlate([1, 2, 3, 4], [2, 4, 6, 8]).pearson_p == pytest.approx(2 / 24)


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        ([1, 2], [1, 2], "give three pairs or more"),
        ([1, 2, 3], [1, 2, 3, 4], "give three pairs or more"),
        ([1, 2, np.nan], [1, 2, 3], "not finite"),
        ([1, 1, 1], [1, 2, 3], "the same everywhere"),
        ([1, 2, 3], [0.1 + 0.2, 0.3, 0.3], "the same everywhere"),
    ],
)
def test_what_does_not_correlate(x: list[float], y: list[float], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        correlate(x, y)


def test_rounding_is_no_variation() -> None:
    assert not varies(np.array([0.1 + 0.2, 0.3]))
    assert varies(np.array([0.3, 0.3 + 1e-9]))
    assert not varies(np.zeros(3))


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        # by Holm's method of R's p.adjust
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),
        # Holm's procedure at 5 % rejects the first and the last of these four
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.6, 0.4], [0.8, 0.8]),
        ([0.7, 0.9], [1, 1]),
        ([0.02], [0.02]),
        ([], []),
        ([0.01, 0.01, 0.5], [0.03, 0.03, 0.5]),
    ],
)
def test_holm_by_hand(p: list[float], adjusted: list[float]) -> None:
    np.testing.assert_allclose(adjust_for_many(p), adjusted)


def test_holm_rejects_what_stepping_down_rejects() -> None:
    """The procedure as Holm printed it: go on while p_(i) ≤ α / (n - i + 1)."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.beta(0.3, 3, size=rng.integers(1, 12))
        rejected = set()
        for step, at in enumerate(np.argsort(p)):
            if p[at] > 0.05 / (len(p) - step):
                break
            rejected.add(int(at))
        assert set(np.flatnonzero(adjust_for_many(p) <= 0.05)) == rejected


@pytest.mark.parametrize("p", [[0.5, 1.5], [-0.1], [np.nan], [[0.5]]])
def test_what_is_no_p(p: object) -> None:
    with pytest.raises(UsageError, match="numbers from 0 to 1"):
        adjust_for_many(p)  # type: ignore[arg-type]
