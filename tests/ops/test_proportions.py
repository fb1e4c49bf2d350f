"""Intervals against published ones, their definition and their coverage; the paired test against
counted coins.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import comb
from statistics import NormalDist

import numpy as np
import pytest

from featkit.errors import UsageError
from featkit.ops.proportions import paired_interval, paired_test, proportion_interval


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_of_newcombe_1998_table_1(right, n, low, high):
    assert proportion_interval(right, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize(("right", "n"), [(3, 7), (1, 2), (9_000, 10_000), (50, 51)])
def test_at_the_ends_the_share_is_z_standard_errors_away(right, n, confidence):
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    low, high = proportion_interval(right, n, confidence)
    assert low < right / n < high
    for end in (low, high):
        assert abs(right / n - end) == pytest.approx(z * (end * (1 - end) / n) ** 0.5, rel=1e-9)


@pytest.mark.parametrize("n", [1, 12])
def test_none_and_all_right(n):
    low, high = proportion_interval(0, n)
    z2 = NormalDist().inv_cdf(0.975) ** 2
    assert (low, high) == pytest.approx((0, z2 / (n + z2)), abs=1e-12)
    assert proportion_interval(n, np.int64(n)) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    assert low >= 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 0), "n is 0"),
        ((3, 2), "right is 3 and there are 2 trials"),
        ((-1, 2), "right is -1"),
        ((0.5, 2), "right is 0.5"),
        ((1, 2, 1.0), "confidence is 1.0"),
        ((1, 2, 95), "confidence is 95"),
    ],
)
def test_numbers_outside_of_their_ranges(arguments, message):
    with pytest.raises(UsageError, match=message):
        proportion_interval(*arguments)


def answers(both, only_a, only_b, neither, seed=0):
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    order = np.random.default_rng(seed).permutation(len(a))
    return a[order], b[order]


@pytest.mark.parametrize(("only_a", "only_b"), list(product([0, 1, 3, 10, 40], repeat=2)))
def test_p_value_is_twice_the_tail_of_a_fair_coin(only_a, only_b):
    m = only_a + only_b
    tail = sum(comb(m, i) for i in range(min(only_a, only_b) + 1))
    exact = min(Fraction(1), Fraction(2 * tail, 2**m))
    assert paired_test(*answers(17, only_a, only_b, 5)) == pytest.approx(float(exact), rel=1e-9)


def test_many_discordant_pairs_and_few_concordant():
    m = 5_000
    tail = sum(comb(m, i) for i in range(2_400 + 1))
    wanted = float(Fraction(2 * tail, 2**m))
    assert 0.001 < wanted < 0.01
    assert paired_test(*answers(0, 2_400, 2_600, 1)) == pytest.approx(wanted, rel=1e-7)


def test_without_discordant_pairs_it_is_1():
    assert paired_test([True, False], [True, False]) == 1
    assert paired_test(np.array([], bool), np.array([], bool)) == 1


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([True, False], [True]),
        ([True, False], [[True, False]]),
        ([[True]], [[True]]),
        ([1, 0], [True, False]),
        ([True, False], [0.0, 1.0]),
    ],
)
def test_what_is_not_two_arrays_of_answers(a, b):
    for asked in (paired_test, paired_interval):
        with pytest.raises(UsageError, match="paired test of"):
            asked(a, b)


def test_paired_numbers_of_the_authors_code():
    """Cavo et al. 2012, in the package to Fagerland, Lydersen and Laake's book.

    https://github.com/ocbe-uio/contingencytables, tests/testthat/test-ch8.R at ac7bf36e.
    """
    a, b = answers(59, 6, 16, 80)
    assert paired_interval(a, b) == pytest.approx((-0.1195, -0.0032), abs=5e-5)
    assert paired_test(a, b) == pytest.approx(0.052479, abs=5e-7)


@pytest.mark.parametrize(("p", "q"), [(0.15, 0.15), (0.1, 0.02), (0.3, 0.25), (0.02, 0.4)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_paired_intervals_hold_the_truth_as_often_as_they_say(p, q, confidence):
    """Over all tables of 40 samples, each with its probability."""
    n, held, total = 40, 0.0, 0.0
    for only_a, only_b in product(range(n + 1), repeat=2):
        rest = n - only_a - only_b
        if rest < 0:
            continue
        ways = comb(n, only_a) * comb(n - only_a, only_b)
        chance = ways * p**only_a * q**only_b * (1 - p - q) ** rest
        total += chance
        if chance > 1e-7:
            low, high = paired_interval(*answers(rest, only_a, only_b, 0), confidence)
            held += chance * (low <= p - q <= high)
    assert total == pytest.approx(1)
    assert confidence - 0.01 < held < confidence + 0.04


def test_paired_intervals_turn_with_the_sides_and_stay_within_their_range():
    a, b = answers(30, 9, 4, 20)
    low, high = paired_interval(a, b)
    assert paired_interval(b, a) == pytest.approx((-high, -low))
    assert paired_interval(~b, ~a) == pytest.approx((low, high))
    assert low < 5 / 63 < high
    wide = paired_interval(a, b, 0.99)
    assert wide[0] < low < high < wide[1]
    assert paired_interval([True] * 3, [False] * 3)[1] == 1
    assert paired_interval([False] * 3, [True] * 3)[0] == -1
    with pytest.raises(UsageError, match="confidence is 95"):
        paired_interval(a, b, 95)
