"""Agreement of labelings against scikit-learn and counted permutations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    adjusted_mutual_info_score,
    mutual_info_score,
    normalized_mutual_info_score,
)

from featkit.errors import UsageError
from featkit.ops.agreement import Agreement, cluster_agreement


def labels(n, clusters, seed, *, skewed=False):
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(clusters, 0.2)) if skewed else None
    return rng.choice(clusters, n, p=weights)


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize(
    ("n", "k", "other"), [(10, 2, 3), (500, 10, 10), (500, 3, 400), (500, 499, 499), (3000, 300, 7)]
)
def test_equals_scikit_learn(n, k, other, skewed):
    a, b = labels(n, k, 1, skewed=skewed), labels(n, other, 2, skewed=skewed)
    b[: n // 3] = a[: n // 3] % other
    found = cluster_agreement(a, b)
    assert found.nmi == pytest.approx(normalized_mutual_info_score(a, b), abs=1e-12)
    assert found.ami == pytest.approx(adjusted_mutual_info_score(a, b), abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=40))
def test_equals_scikit_learn_whatever_the_labels(pairs):
    a, b = np.array(pairs).T
    found = cluster_agreement(a, b)
    assert found.nmi == pytest.approx(normalized_mutual_info_score(a, b), abs=1e-12)
    if max(len(set(a)), len(set(b))) < len(a):  # else 0/0, which scikit-learn rounds
        assert found.ami == pytest.approx(adjusted_mutual_info_score(a, b), abs=1e-9)


def test_chance_is_the_mean_over_all_permutations():
    a, b = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 2, 2])
    orders = itertools.permutations(range(len(b)))
    chance = np.mean([mutual_info_score(a, b[list(order)]) for order in orders])
    entropies = mutual_info_score(a, a), mutual_info_score(b, b)
    shared = mutual_info_score(a, b)
    wanted = (shared - chance) / (np.mean(entropies) - chance)
    assert cluster_agreement(a, b).ami == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "both"),
    [
        ([3], [5], 1.0),
        ([0, 0, 0], [7, 7, 7], 1.0),
        ([0, 0, 0], [0, 1, 2], 0.0),
        ([0, 1, 1], [4, 4, 4], 0.0),
        ([0, 1, 2], [2, 1, 0], 1.0),
    ],
)
def test_labelings_that_say_nothing_or_everything(a, b, both):
    assert cluster_agreement(a, b) == Agreement(both, both)
    assert cluster_agreement(b, a) == Agreement(both, both)
    assert normalized_mutual_info_score(a, b) == pytest.approx(both)


def test_names_and_the_order_of_rows_do_not_matter():
    a, b = labels(300, 12, 1), labels(300, 9, 2)
    wanted = cluster_agreement(a, b)
    order = np.random.default_rng(0).permutation(300)
    names = np.array([f"cluster {i}" for i in range(12)])
    for one, other in (
        (b, a),
        (a[order], b[order]),
        (1000 - 7 * a, b),
        (names[a], b),
        (torch.from_numpy(a), torch.from_numpy(b)),
        (a.tolist(), b.astype(np.int8)),
    ):
        found = cluster_agreement(one, other)
        assert found.nmi == pytest.approx(wanted.nmi, abs=1e-12)
        assert found.ami == pytest.approx(wanted.ami, abs=1e-10)


def test_equal_labelings_agree_and_random_ones_do_not():
    a, b = labels(50_000, 10_000, 1), labels(50_000, 10_000, 2)
    same, random = cluster_agreement(a, a), cluster_agreement(a, b)
    assert same.nmi == pytest.approx(1)
    assert same.ami == pytest.approx(1)
    assert max(same.nmi, same.ami) <= 1
    assert random.nmi > 0.8
    assert abs(random.ami) < 1e-3


@pytest.mark.parametrize(("a", "b"), [([], []), ([0, 1], [0]), ([[0, 1]], [[0, 1]]), (0, 0)])
def test_labels_of_other_rows(a, b):
    with pytest.raises(UsageError, match="the same rows two labels"):
        cluster_agreement(a, b)
