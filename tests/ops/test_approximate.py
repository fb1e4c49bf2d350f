"""Approximate neighbours, and what is said of them, against scikit-learn's exact ones."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import NearestNeighbors

from featkit.errors import UsageError
from featkit.ops.approximate import ApproximateNeighbors
from featkit.ops.knn_classifier import KNNClassifier
from featkit.ops.neighbors import nearest_neighbors, unit_rows
from featkit.ops.row_sources import SelectedRows
from tests.ops.approximation import clustered

BANK, QUERIES = clustered(4000, 24), clustered(300, 24, seed=1)
KINDS = {kind: ApproximateNeighbors(10, kind, device="cpu").fit(BANK) for kind in ("ivf", "hnsw")}
each_kind = pytest.mark.parametrize("index", KINDS.values(), ids=list(KINDS))


def exact(queries=QUERIES, k=10):
    peer = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(BANK)
    return peer.kneighbors(queries)[1]


@each_kind
def test_the_recall_that_is_told_is_that_of_scikit_learn(index):
    _, rows = index.kneighbors(QUERIES)
    there = [len(set(a) & set(b)) for a, b in zip(rows.tolist(), exact().tolist(), strict=True)]
    told = index.measure(QUERIES)
    assert told.share == pytest.approx(np.mean(there) / 10, abs=1e-3)
    assert told.low < told.share < told.high
    assert told.queries == 300
    assert 0.9 < told.share < 1


@each_kind
def test_more_is_found_where_more_is_asked_for(index):
    told = []
    for recall in (0.5, 0.9, 0.999):
        again = ApproximateNeighbors(10, index.kind, recall, "cpu").restore(BANK, index.to_arrays())
        told.append((again.effort_, again.measure(QUERIES).share))
    assert told == sorted(told)
    assert told[-1][1] > 0.99


def test_all_is_found_where_all_is_asked_for():
    """Of the rows of the bank; those that lie elsewhere are found by all lists."""
    index = ApproximateNeighbors(10, "ivf", 1.0, "cpu").restore(BANK[:900], small().to_arrays())
    assert index.measure().share == 1
    index.effort_ = len(index.index_.centroids)
    for mine, theirs in zip(
        index.kneighbors(QUERIES), nearest_neighbors(QUERIES, BANK[:900], 10), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


def small():
    return ApproximateNeighbors(10, device="cpu").fit(BANK[:900])


@each_kind
def test_leave_one_out(index):
    similarities, rows = index.kneighbors(n_neighbors=3)
    assert rows.shape == (4000, 3)
    assert (rows != np.arange(4000)[:, None]).all()
    wanted, _ = nearest_neighbors(BANK, BANK, 3, exclude_self=True, device="cpu")
    share = (similarities >= wanted[:, -1:] - 1e-6).mean()
    assert share > 0.9
    assert index.measure(n_neighbors=3).share == pytest.approx(share, abs=0.02)
    some = np.arange(500, 900)
    told = index.measure(BANK[some], 3, own=some)
    assert told.queries == 400
    assert told.share == pytest.approx(share, abs=0.03)


@each_kind
def test_an_index_from_its_arrays_is_the_same(index):
    again = clone(index).restore(BANK, index.to_arrays())
    assert again.effort_ == index.effort_
    for mine, theirs in zip(again.kneighbors(QUERIES), index.kneighbors(QUERIES), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert again.measure(QUERIES) == index.measure(QUERIES)


@pytest.mark.parametrize(
    ("kind", "name", "change"),
    [
        ("ivf", "lists", lambda x: x[:-1]),
        ("ivf", "lists", lambda x: np.where(np.arange(4000) == 3, 999, x)),
        ("ivf", "centroids", lambda x: x[:, :-1]),
        ("hnsw", "links", lambda x: x[:-1]),
        ("ivf", "nearest", lambda x: x[:, :9]),
        ("ivf", "nearest", lambda x: x + 4000),
        ("ivf", "similarities", lambda x: x[:-1]),
        ("hnsw", "sample", lambda x: x[:-1]),
        ("hnsw", "sample", lambda x: x - 4000),
    ],
)
def test_arrays_of_something_else(kind, name, change):
    arrays = KINDS[kind].to_arrays()
    with pytest.raises(ValueError, match="these are no"):
        clone(KINDS[kind]).restore(BANK, arrays | {name: change(arrays[name])})


def test_a_centroid_that_is_no_number():
    arrays = KINDS["ivf"].to_arrays()
    hurt = arrays["centroids"].copy()
    hurt[1, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        clone(KINDS["ivf"]).restore(BANK, arrays | {"centroids": hurt})


def test_the_same_seed_makes_the_same_lists():
    one, other = (ApproximateNeighbors(5, device="cpu").fit(BANK[:900]) for _ in range(2))
    np.testing.assert_array_equal(one.index_.lists, other.index_.lists)
    third = ApproximateNeighbors(5, device="cpu", random_state=1).fit(BANK[:900])
    assert (one.index_.lists != third.index_.lists).any()


def test_parameters_that_mean_nothing():
    for options, message in (
        ({"kind": "lsh"}, "approximate is 'lsh': give ivf or hnsw"),
        ({"recall": 0}, "recall is 0: give a share above 0, up to 1"),
        ({"recall": 1.01}, "recall is 1.01"),
        ({"k": 0}, "k is 0"),
        ({"k": 301}, "k is 301 and there are 300 rows to choose from"),
    ):
        with pytest.raises(UsageError, match=message):
            ApproximateNeighbors(**{"device": "cpu", **options}).fit(BANK[:300])
    with pytest.raises(UsageError, match="an index of 1 rows"):
        ApproximateNeighbors(1).fit(BANK[:1])
    with pytest.raises(NotFittedError):
        ApproximateNeighbors().kneighbors(QUERIES)


# The classifier


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_a_classifier_by_approximate_neighbours(kind):
    y = exact(BANK, 1)[:, 0] % 7
    truth = KNNClassifier(k=5, device="cpu").fit(BANK, y).predict(QUERIES)
    ours = KNNClassifier(k=5, device="cpu", approximate=kind, recall=0.9).fit(BANK, y)
    assert 0.8 < (ours.predict(QUERIES) == truth).mean() <= 1
    assert ours.predict_proba(QUERIES).shape == (300, 7)
    assert ours.kneighbors()[1].shape == (4000, 5)
    assert 0.85 < ours.neighbors_.measure(QUERIES).share < 1
    again = pickle.loads(pickle.dumps(ours))
    np.testing.assert_array_equal(again.predict(QUERIES), ours.predict(QUERIES))


def test_what_is_mapped_is_not_copied_and_gives_the_same(tmp_path):
    y = np.arange(4000) % 3
    BANK.tofile(tmp_path / "bank")
    mapped = np.memmap(tmp_path / "bank", np.float32, "r", shape=BANK.shape)
    wanted = KNNClassifier(k=5, device="cpu").fit(BANK, y)
    for bank in (mapped, SelectedRows(mapped, np.ones(4000, bool))):
        ours = KNNClassifier(k=5, device="cpu").fit(bank, y)
        assert not isinstance(ours._bank, type(unit_rows(BANK)))
        np.testing.assert_array_equal(ours.kneighbors(QUERIES)[1], wanted.kneighbors(QUERIES)[1])
        assert (ours.n_features_in_, ours.classes_.tolist()) == (24, [0, 1, 2])
    rows = SelectedRows(QUERIES, np.arange(300) < 9)
    np.testing.assert_array_equal(ours.predict(rows), wanted.predict(QUERIES[:9]))


def test_mistakes_with_sources_of_rows():
    rows = SelectedRows(BANK, np.arange(4000) < 50)
    with pytest.raises(UsageError, match="inconsistent numbers of samples"):
        KNNClassifier().fit(rows, np.zeros(49))
    with pytest.raises(UsageError, match="Unknown label type: continuous"):
        KNNClassifier().fit(rows, np.linspace(0, 1, 50))
    holes = np.where(np.arange(4000)[:, None] == 7, np.nan, BANK)
    with pytest.raises(UsageError, match="1 of 50 rows of X hold NaN or infinity, the first is r"):
        KNNClassifier().fit(SelectedRows(holes, np.arange(4000) < 50), np.zeros(50))
    ours = KNNClassifier(k=3, device="cpu").fit(rows, np.arange(50) % 2)
    with pytest.raises(UsageError, match="X has 5 features, but KNNClassifier is expecting 24"):
        ours.predict(SelectedRows(BANK[:, :5], np.ones(4000, bool)))
