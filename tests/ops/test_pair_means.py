"""Means over pairs of groups, counted by hand and by numpy's mean of each list of pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from featkit.errors import UsageError
from featkit.ops.pair_means import pair_means

RNG = np.random.default_rng(0)


def symmetric(m: int) -> np.ndarray:
    half = RNG.standard_normal((m, m))
    return half + half.T


def test_four_things_in_two_groups():
    values = [[9, 1, 2, 4], [1, 9, 8, 16], [2, 8, 9, 32], [4, 16, 32, 9]]
    means, counts = pair_means(values, [0, 1, 0, 1], 2)
    # the pairs are 02, then 01, 03, 21 and 23, then 13
    assert means.tolist() == [[2, (1 + 4 + 8 + 32) / 4], [(1 + 4 + 8 + 32) / 4, 16]]
    assert counts.tolist() == [[1, 4], [4, 1]]


def test_empty_cells_are_no_numbers_and_those_without_group_are_left_out():
    values = symmetric(4)
    means, counts = pair_means(values, [0, -1, 2, 0], 4)
    assert counts.tolist() == [[1, 0, 2, 0], [0] * 4, [2, 0, 0, 0], [0] * 4]
    assert np.isnan(means).tolist() == [[c == 0 for c in row] for row in counts]
    assert means[0, 0] == pytest.approx(values[0, 3])
    assert means[0, 2] == means[2, 0] == pytest.approx((values[0, 2] + values[3, 2]) / 2)


def test_every_list_of_pairs():
    values, groups = symmetric(12), RNG.integers(-1, 4, 12)
    means, counts = pair_means(values, groups, 4)
    for a in range(4):
        for b in range(4):
            pairs = [
                values[i, j]
                for i, j in combinations(range(12), 2)
                if (groups[i], groups[j]) in {(a, b), (b, a)}
            ]
            assert counts[a, b] == len(pairs)
            if pairs:
                assert means[a, b] == pytest.approx(np.mean(pairs))


def test_the_diagonal_does_not_count_and_order_does_not_matter():
    values, groups = symmetric(9), RNG.integers(0, 3, 9)
    means, counts = pair_means(values, groups, 3)
    other = values.copy()
    np.fill_diagonal(other, np.nan)
    np.testing.assert_array_equal(pair_means(other, groups, 3)[0], means)
    turn = RNG.permutation(9)
    turned = pair_means(values[np.ix_(turn, turn)], groups[turn], 3)
    np.testing.assert_allclose(turned[0], means)
    np.testing.assert_array_equal(turned[1], counts)


@pytest.mark.parametrize(
    ("values", "groups", "message"),
    [
        ([[0, 1]], [0], "values and groups are (1, 2) and int64 (1,)"),
        ([[0, 1], [1, 0]], [0], "give (m, m), and whole numbers (m)"),
        ([[0, 1], [1, 0]], [0.0, 1.0], "float64 (2,)"),
        ([[0, 1], [1, 0]], [0, 2], "groups are 0 to 2: give numbers from -1 to 1"),
        ([[0, 1], [1, 0]], [-2, 0], "groups are -2 to 0"),
        ([[0, 1], [2, 0]], [0, 1], "not symmetric"),
        ([[0, np.nan], [np.nan, 0]], [0, 1], "not finite"),
    ],
)
def test_what_cannot_be_averaged(values, groups, message):
    with pytest.raises(UsageError) as raised:
        pair_means(values, groups, 2)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
