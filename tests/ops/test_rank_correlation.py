"""Rank correlation against SciPy and counted orders."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from featkit.errors import UsageError
from featkit.ops.rank_correlation import rank_correlation


@pytest.mark.parametrize("n", [3, 7, 30])
@pytest.mark.parametrize("ties", [False, True])
def test_rho_is_scipys(n: int, ties: bool) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(2, n))
    if ties:
        x[0] = x[1]
        y[1] = y[2]
    assert rank_correlation(x, y).rho == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_p_counts_every_order() -> None:
    """Of the 120 orders of five values those with a sum of squared differences as far from 20."""
    x, y = [1, 2, 3, 4, 5], [2, 1, 3, 5, 4]  # the squares add up to 4
    squares = [
        sum((a - b) ** 2 for a, b in zip(x, p, strict=True)) for p in itertools.permutations(x)
    ]
    extreme = sum(s <= 4 or s >= 36 for s in squares)
    found = rank_correlation(x, y)
    assert found.rho == pytest.approx(1 - 6 * 4 / (5 * 24))
    assert found.p == pytest.approx(extreme / 120)


def test_p_of_many_pairs_is_near_its_limit() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=40)
    y = x + 2.5 * rng.normal(size=40)
    assert rank_correlation(x, y).p == pytest.approx(stats.spearmanr(x, y).pvalue, rel=0.1)


def test_the_interval_holds_rho_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    true = 0.6
    spearman = 6 / np.pi * np.arcsin(true / 2)  # of a bivariate normal
    held = 0
    for _ in range(200):
        x = rng.normal(size=7)
        y = true * x + np.sqrt(1 - true**2) * rng.normal(size=7)
        found = rank_correlation(x, y)
        assert -1 <= found.low <= found.rho <= found.high <= 1
        held += found.low <= spearman <= found.high
    assert 180 <= held <= 200


def test_few_pairs_are_no_certainty() -> None:
    three = rank_correlation([1, 2, 3], [3, 2, 1])
    assert (three.rho, three.low, three.high) == (-1, -1, 1)
    assert three.p == pytest.approx(1 / 3)
    five = rank_correlation(np.arange(5), np.arange(5))
    assert five.high == 1
    assert five.low < 0.5
    assert five.p == pytest.approx(2 / 120)


def test_any_growing_map_gives_the_same() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 10))
    one, other = rank_correlation(x, y), rank_correlation(np.exp(x), y**3 + 5)
    assert one == other
    assert rank_correlation(-x, y).rho == pytest.approx(-one.rho)


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        ([1, 2], [1, 2], "give three pairs"),
        ([1, 2, 3], [1, 2], "give three pairs"),
        ([1, 2, np.nan], [1, 2, 3], "not finite"),
        ([1, 1, 1], [1, 2, 3], "the same everywhere"),
    ],
)
def test_what_has_no_ranks(x: list[float], y: list[float], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        rank_correlation(x, y)
