"""Eleven-point average precision: closed forms, the VOC definition by hand, scikit-learn."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from featkit.errors import UsageError
from featkit.ops.average_precision import eleven_point_average_precision


def one(scores, relevant):
    (found,) = eleven_point_average_precision(np.c_[scores], np.c_[relevant])
    return found


@pytest.mark.parametrize("n", [1, 2, 9, 40])
def test_closed_forms(n):
    scores = -np.arange(n, dtype=float)
    first, last = np.eye(n, dtype=int)[[0, -1]]
    assert one(scores, first) == 1
    assert one(scores, last) == pytest.approx(1 / n)
    assert one(scores, np.ones(n, int)) == 1
    assert one(np.zeros(n), first) == pytest.approx(1 / n)  # all found at once
    # r wrong ones before m right ones: precision only rises, so it is the last one's everywhere
    for m in range(1, n + 1):
        assert one(scores, np.arange(n) >= n - m) == pytest.approx(m / n)


def test_the_voc_definition_by_hand():
    """Ten samples, ranks 1, 3, 6, 10 relevant: precision 1, 2/3, 1/2, 2/5 from recall 1/4 on each.

    Recall 0, 0.1, 0.2 get 1; 0.3, 0.4, 0.5 get 2/3; 0.6, 0.7 get 1/2; 0.8, 0.9, 1 get 2/5.
    """
    relevant = np.isin(np.arange(1, 11), [1, 3, 6, 10])
    wanted = (3 * 1 + 3 * Fraction(2, 3) + 2 * Fraction(1, 2) + 3 * Fraction(2, 5)) / 11
    assert one(np.arange(10)[::-1], relevant) == pytest.approx(float(wanted), rel=1e-14)


def test_a_recall_of_three_tenths_is_at_least_three_tenths():
    """In floating point 3 · 0.1 is above 0.3, and the code of VOC2007 looks further there."""
    relevant = np.r_[np.ones(3), np.zeros(7), np.ones(7)]
    # recall 0 to 0.3 at precision 1; 0.4 to 1 at that of the whole list, which is the best there
    assert one(-np.arange(17.0), relevant) == pytest.approx((4 + 7 * 10 / 17) / 11)


def by_scikit_learn(scores, relevant):
    """Scikit-learn's curve, without its last point, which no score makes."""
    precision, recall, _ = precision_recall_curve(relevant, scores)
    reached = [precision[:-1][recall[:-1] >= t / 10 - 1e-9].max() for t in range(11)]
    return np.mean(reached)


@pytest.mark.parametrize("levels", [2, 7, 10**9])
def test_is_read_off_the_curve_of_scikit_learn(levels):
    rng = np.random.default_rng(levels)
    scores = rng.integers(levels, size=(157, 8)).astype(np.float32)
    relevant = (rng.random((157, 8)) < [0.01, 0.05, 0.1, 0.3, 0.5, 0.9, 0.99, 0.4]).astype(int)
    relevant[0] = 1
    found = eleven_point_average_precision(scores, relevant)
    wanted = [by_scikit_learn(*column) for column in zip(scores.T, relevant.T, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_neither_order_nor_a_rising_map_changes_it():
    rng = np.random.default_rng(0)
    scores = rng.integers(5, size=(60, 3)) / 4
    relevant = rng.random((60, 3)) < 0.3
    wanted = eleven_point_average_precision(scores, relevant)
    assert len(set(wanted)) == 3
    order = rng.permutation(60)
    for x, y in ((scores[order], relevant[order]), (np.exp(3 * scores) - 7, relevant)):
        np.testing.assert_array_equal(eleven_point_average_precision(x, y), wanted)
    turned = eleven_point_average_precision(scores[:, ::-1], relevant[:, ::-1])
    np.testing.assert_array_equal(turned, wanted[::-1])


def test_ties_are_found_together():
    """1 of 1, 2 of 4, 3 of 5: precision 1 up to a recall of 1/3, and 3/5 from there on."""
    scores, relevant = np.array([2, 1, 1, 1, 0]), np.array([1, 0, 1, 0, 1])
    assert one(scores, relevant) == pytest.approx((4 + 7 * 3 / 5) / 11)
    orders = [
        one([5, *(2 + np.array(order)), 0], relevant)
        for order in itertools.permutations([0.1, 0.2, 0.3])
    ]
    assert min(orders) <= one(scores, relevant) < max(orders)


def test_columns_without_relevant_samples_are_nan():
    relevant = np.array([[0, 1], [0, 0]])
    found = eleven_point_average_precision([[1, 2], [3, 4]], relevant)
    assert np.isnan(found[0])
    assert found[1] == 0.5
    assert found.dtype == np.float64


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.float32])
def test_relevance_of_any_kind(kind):
    relevant = np.array([[1], [0], [1]]).astype(kind)
    assert eleven_point_average_precision([[3], [2], [1]], relevant) == pytest.approx(
        (6 + 5 * 2 / 3) / 11
    )


S = [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("scores", "relevant", "message"),
    [
        ([1.0, 2.0], [1, 0], r"scores are float64 \(2,\): give numbers in the shape"),
        (np.empty((0, 3)), np.empty((0, 3)), r"\(0, 3\)"),
        ([["a"]], [[1]], "scores are <U1"),
        ([[np.nan]], [[1]], "scores hold NaN or infinity"),
        ([[np.inf]], [[1]], "scores hold NaN or infinity"),
        (S, [[1, 0]], r"relevant is \(1, 2\) and scores \(2, 2\)"),
        (S, [[1, 2], [0, 0]], "other values than 0 and 1"),
        (S, [[1, -1], [0, 0]], "other values than 0 and 1"),
        (S, [["1", "0"], ["0", "0"]], "other values than 0 and 1"),
    ],
)
def test_what_cannot_be_used(scores, relevant, message):
    with pytest.raises(UsageError, match=message) as error:
        eleven_point_average_precision(scores, relevant)
    assert "\n" not in str(error.value)
