"""Recall by hand, and its interval by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from featkit.errors import UsageError
from featkit.ops.proportions import proportion_interval
from featkit.ops.recall import neighbor_recall


def test_by_hand():
    exact = [[0.9, 0.8, 0.7], [0.5, 0.4, 0.3]]
    assert neighbor_recall(exact, exact).share == 1
    assert neighbor_recall([[0.9, 0.8, 0.6], [0.4, 0.2, 0.1]], exact).share == pytest.approx(3 / 6)
    assert neighbor_recall([[0.9, 0.8, 0.6], [0.4, 0.2, 0.1]], exact).queries == 2


def test_a_neighbour_as_similar_as_the_last_counts():
    """Of four rows at 0.5 an exact search returns two, and which is not said."""
    exact = np.float32([[0.9, 0.5, 0.5]])
    assert neighbor_recall(np.nextafter(exact, np.float32(0)), exact).share == 1
    assert neighbor_recall([[0.5, 0.5, 0.4999]], exact).share == pytest.approx(2 / 3)


def test_all_or_nothing_has_the_interval_of_so_many_queries():
    exact = np.full((200, 20), 0.5)
    found = exact.copy()
    found[:30] = 0
    told = neighbor_recall(found, exact)
    low, high = proportion_interval(170, 200)
    assert told.share == pytest.approx(0.85)
    assert (told.low, told.high) == pytest.approx((low, high), abs=1e-3)


def test_nothing_missed_is_not_certainty():
    told = neighbor_recall(np.ones((1000, 20)), np.ones((1000, 20)))
    assert (told.share, told.high) == (1, 1)
    assert told.low == pytest.approx(proportion_interval(1000, 1000)[0])


@pytest.mark.parametrize("spread", [0.3, 3, 300])
def test_the_interval_holds_the_truth_as_often_as_it_says(spread):
    """Queries have shares of their own, more or less alike."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        p = rng.beta(0.9 * spread, 0.1 * spread, 300)
        found = (rng.random((300, 10)) < p[:, None]).astype(float)
        told = neighbor_recall(found, np.ones((300, 10)))
        held += told.low <= 0.9 <= told.high
    assert 0.92 <= held / 400 <= 0.98


@pytest.mark.parametrize("shape", [(2, 2), (3,), (0, 3)])
def test_what_has_no_recall(shape):
    with pytest.raises(UsageError, match=r"give two of \(q, k\)"):
        neighbor_recall(np.ones(shape), np.ones((0, 3) if shape == (0, 3) else (3, 3)))
