"""Similarities against all pairs in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors

from featkit.errors import UsageError
from featkit.ops import similarity
from featkit.ops.neighbors import unit_rows
from featkit.ops.similarity import (
    changed_neighbors,
    mean_pairwise_similarity,
    neighbor_overlap,
    normalised_maximum_similarity,
)


def rows(n, d, mean=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, d)) + mean) * rng.uniform(0.01, 100, (n, 1))


def mean_over_pairs(x):
    cosines = cosine_similarity(np.asarray(x, np.float64))
    return cosines[~np.eye(len(x), dtype=bool)].mean()


@pytest.fixture(params=[1, 7, 4096])
def block(request, monkeypatch):
    monkeypatch.setattr(similarity, "BLOCK", request.param)


@pytest.mark.parametrize("mean", [0, 0.3, 5])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_mean_similarity_is_that_of_all_pairs(block, mean, dtype):
    x = rows(90, 12, mean).astype(dtype)
    assert mean_pairwise_similarity(x) == pytest.approx(mean_over_pairs(x), abs=1e-7)


def test_sums_of_many_rows_keep_their_digits():
    x = rows(2500, 3, mean=5)
    assert mean_pairwise_similarity(x) == pytest.approx(mean_over_pairs(x), abs=1e-8)


def test_mean_similarity_of_other_kinds_of_rows(tmp_path):
    x = rows(50, 8).astype(np.float32)
    wanted = mean_over_pairs(x)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for kind in (mapped, torch.from_numpy(x), unit_rows(x), x.tolist()):
        assert mean_pairwise_similarity(kind) == pytest.approx(wanted, abs=1e-7)
    half = torch.from_numpy(x).bfloat16()
    wanted = mean_over_pairs(half.float().numpy())
    assert mean_pairwise_similarity(half) == pytest.approx(wanted, abs=1e-7)


def test_mean_similarity_by_hand():
    assert mean_pairwise_similarity(np.tile([3.0, 4.0], (5, 1))) == pytest.approx(1, abs=1e-7)
    assert mean_pairwise_similarity(np.eye(6)) == 0
    assert mean_pairwise_similarity(np.array([[2.0], [-7.0]])) == -1
    assert mean_pairwise_similarity(np.vstack([np.eye(4), -np.eye(4)])) == pytest.approx(-1 / 7)


def test_rows_of_zeros_are_similar_to_nothing():
    x = rows(20, 5)
    x[[3, 11]] = 0
    assert mean_pairwise_similarity(x) == pytest.approx(mean_over_pairs(x), abs=1e-7)
    assert mean_pairwise_similarity(np.zeros((3, 2))) == 0


def test_pairs_that_would_not_fit_in_memory():
    n = 150_000
    signs = np.where(np.arange(n) < n // 2 + 300, 1.0, -1.0)
    x = np.column_stack([signs, np.zeros(n)])
    assert mean_pairwise_similarity(x) == pytest.approx((600**2 - n) / (n * (n - 1)), rel=1e-6)


def test_rows_of_which_there_is_no_mean(monkeypatch):
    for n in (0, 1):
        with pytest.raises(UsageError, match=f"mean similarity of {n} rows"):
            mean_pairwise_similarity(np.ones((n, 3)))
    for x in (np.ones(3), np.ones((3, 2, 2)), np.array([["a"], ["b"]])):
        with pytest.raises(UsageError, match="give real numbers"):
            mean_pairwise_similarity(x)
    monkeypatch.setattr(similarity, "BLOCK", 4)
    x = rows(10, 3)
    x[6] = np.nan
    with pytest.raises(
        UsageError, match=r"features\[4:8\] hold NaN or infinity, the first is row 2"
    ):
        mean_pairwise_similarity(x)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_maximum_similarity_is_that_of_all_pairs_over_their_mean(block, dtype):
    queries, bank = rows(30, 6, seed=1).astype(dtype), rows(80, 6, seed=2).astype(dtype)
    bank[5] = 0
    cosines = cosine_similarity(queries.astype(np.float64), bank.astype(np.float64))
    found = normalised_maximum_similarity(queries, bank)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, cosines.max(1) / cosines.mean(), rtol=1e-6)


def test_maximum_similarity_of_a_query_that_points_away():
    bank, queries = rows(50, 3, mean=3), rows(20, 3, mean=3, seed=1)
    queries[4] = -queries[4]
    cosines = cosine_similarity(queries, bank)
    found = normalised_maximum_similarity(queries, unit_rows(bank))
    assert found[4] < 0
    np.testing.assert_allclose(found, cosines.max(1) / cosines.mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("queries", "bank"),
    [
        (np.vstack([rows(40, 5), -rows(40, 5)]), rows(30, 5, seed=1)),
        (np.eye(2)[:1], np.eye(2)[1:]),
        (np.ones((1, 3)), -np.ones((2, 3))),
        (np.zeros((2, 3)), np.ones((2, 3))),
    ],
    ids=["centred", "orthogonal", "opposite", "zero"],
)
def test_a_mean_that_is_not_positive_divides_nothing(queries, bank):
    with pytest.raises(
        UsageError, match=r"the mean similarity .* is .*\d, .* look centred"
    ) as error:
        normalised_maximum_similarity(queries, bank)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("queries", "bank", "message"),
    [
        (np.ones((0, 3)), np.ones((2, 3)), "0 queries"),
        (np.ones((2, 3)), np.ones((0, 3)), "there are 0"),
        (np.ones((2, 3)), np.ones((2, 4)), "3 features and the bank 4"),
        (np.full((2, 3), np.nan), np.ones((2, 3)), "rows of queries hold NaN"),
        (np.ones((2, 3)), np.full((2, 3), np.inf), "rows of bank hold NaN"),
    ],
)
def test_what_has_no_maximum_similarity(queries, bank, message):
    with pytest.raises(UsageError, match=message):
        normalised_maximum_similarity(queries, bank)


@pytest.mark.parametrize("k", [1, 5, 59])
def test_changed_neighbours_against_sets(k):
    before = rows(60, 7)
    after = (before + 20 * rows(60, 7, mean=0, seed=3) / 100)[:, :5]
    sets = [
        [
            set(r)
            for r in NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute")
            .fit(x)
            .kneighbors(return_distance=False)
        ]
        for x in (before, after)
    ]
    wanted = [len(one - other) / k for one, other in zip(*sets, strict=True)]
    found = changed_neighbors(before, after, k)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert (found.mean() > 0.1) == (k < 59)  # all of the others remain all of the others


def test_neighbours_that_all_stay_or_all_go():
    x = rows(100, 10, mean=0)
    assert not changed_neighbors(x, 3 * x.astype(np.float32)).any()
    angles = np.radians([0, 1, 90, 91])
    before = np.column_stack([np.cos(angles), np.sin(angles)])
    np.testing.assert_array_equal(changed_neighbors(before, before[[0, 2, 1, 3]], 1), np.ones(4))


def test_by_default_20_neighbours_are_compared():
    before, after = rows(50, 4, mean=0), rows(50, 4, mean=0, seed=1)
    found = changed_neighbors(before, after)
    np.testing.assert_array_equal(found, changed_neighbors(before, after, 20))
    assert (found != changed_neighbors(before, after, 10)).any()


@pytest.mark.parametrize(
    ("before", "after", "k", "message"),
    [
        (np.ones((20, 3)), np.ones((20, 3)), 20, "k is 20 and there are 19 rows"),
        (np.ones((20, 3)), np.ones((20, 3)), 0, "k is 0"),
        (np.ones((20, 3)), np.ones((21, 3)), 5, "20 rows before and 21 after"),
        (np.full((9, 3), np.nan), np.ones((9, 3)), 2, "features before hold NaN"),
        (np.ones((9, 3)), np.full((9, 3), np.nan), 2, "features after hold NaN"),
    ],
)
def test_neighbours_that_cannot_be_compared(before, after, k, message):
    with pytest.raises(UsageError, match=message):
        changed_neighbors(before, after, k)


def neighbor_sets(x, k):
    search = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(x)
    return [set(row) for row in search.kneighbors(return_distance=False)]


@pytest.mark.parametrize("k", [1, 10, 59])
def test_overlap_against_sets(k):
    x = rows(60, 7)
    features = [x, (x + 3 * rows(60, 7, mean=0, seed=3) / 100)[:, :5], rows(60, 20, seed=4)]
    sets = [neighbor_sets(one, k) for one in features]
    wanted = [
        [np.mean([len(a & b) / k for a, b in zip(one, other, strict=True)]) for other in sets]
        for one in sets
    ]
    found = neighbor_overlap(features, k)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert (found[0, 2] < 0.7) == (k < 59)  # all of the others are all of the others


def test_overlap_is_what_has_not_changed():
    before, after = rows(90, 6, mean=0), rows(90, 6, mean=0, seed=1)
    after[:50] = before[:50]
    found = neighbor_overlap([before, after], 7)[0, 1]
    assert found == pytest.approx(1 - changed_neighbors(before, after, 7).mean())
    assert 0 < found < 1


def test_overlap_of_turned_features_and_by_chance():
    x = rows(800, 12, mean=0)
    turn, _ = np.linalg.qr(np.random.default_rng(5).standard_normal((12, 12)))
    order = np.random.default_rng(6).permutation(800)
    others = [rows(800, 12, mean=0, seed=seed) for seed in (7, 8, 9)]
    found = neighbor_overlap([x, (5 * x @ turn).astype(np.float32), unit_rows(x), *others])
    np.testing.assert_allclose(found[:3, :3], 1, atol=1e-3)
    assert found[np.triu_indices(6, 3)].mean() == pytest.approx(10 / 799, rel=0.25)
    moved = neighbor_overlap([x[order], others[0][order]])
    assert moved[0, 1] == pytest.approx(found[0, 3], abs=1e-12)
    np.testing.assert_array_equal(found, found.T)
    by_default = neighbor_overlap([x, others[0]])
    np.testing.assert_array_equal(by_default, neighbor_overlap([x, others[0]], 10))
    assert by_default[0, 1] != neighbor_overlap([x, others[0]], 11)[0, 1]


def test_each_set_of_features_is_searched_once(monkeypatch):
    searches = []
    plain = similarity.nearest_neighbors

    def counted(queries, *arguments, **options):
        searches.append(queries)
        return plain(queries, *arguments, **options)

    monkeypatch.setattr(similarity, "nearest_neighbors", counted)
    neighbor_overlap([rows(30, 4, seed=seed) for seed in range(5)], 3)
    assert len(searches) == 5


@pytest.mark.parametrize(
    ("features", "k", "message"),
    [
        ([np.ones((20, 3))] * 2, 20, "k is 20 and there are 19 rows"),
        ([np.ones((20, 3))] * 2, 0, "k is 0"),
        ([np.ones((20, 3)), np.ones((21, 3))], 5, "features 1 have 21 rows and features 0 20"),
        ([np.ones((9, 3)), np.full((9, 3), np.nan)], 2, "rows of features 1 hold NaN"),
        ([np.ones(9)], 2, "features 0 are"),
    ],
)
def test_what_has_no_overlap(features, k, message):
    with pytest.raises(UsageError, match=message):
        neighbor_overlap(features, k)
