"""Graphs against scikit-learn, and arrays that are no graphs."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from featkit.errors import UsageError
from featkit.ops.hnsw import Hnsw
from tests.ops.approximation import clustered, gathered

BANK, QUERIES = clustered(3000), clustered(150, seed=1)
GRAPH = Hnsw.build(BANK)


def test_most_neighbours_are_found_and_their_similarities_are_right():
    peer = NearestNeighbors(n_neighbors=10, metric="cosine", algorithm="brute").fit(BANK)
    distances, where = peer.kneighbors(QUERIES)
    similarities, rows = gathered(GRAPH.search(QUERIES, BANK, 10, 200))
    there = [len(set(a) & set(b)) for a, b in zip(rows.tolist(), where.tolist(), strict=True)]
    assert np.mean(there) > 9.9
    assert similarities.dtype == np.float32
    same = (rows == where).all(axis=1)
    np.testing.assert_allclose(similarities[same], 1 - distances[same], atol=1e-6)
    few = gathered(GRAPH.search(QUERIES, BANK, 10, 1))[1]
    assert np.mean(few == where) < np.mean(rows == where)


def test_a_graph_from_its_arrays_finds_the_same():
    again = Hnsw.from_arrays(BANK, GRAPH.to_arrays())
    for mine, theirs in zip(
        gathered(again.search(QUERIES, BANK, 7, 30)),
        gathered(GRAPH.search(QUERIES, BANK, 7, 30)),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_no_row_is_its_own_neighbour():
    own = np.arange(200, 400)
    similarities, rows = gathered(GRAPH.search(BANK[200:400], BANK, 5, 100, own=own))
    assert (rows != own[:, None]).all()
    assert (np.diff(similarities, axis=1) <= 0).all()


def test_what_a_walk_does_not_come_by_is_looked_for():
    """A graph without links: a walk stays where it began."""
    arrays = GRAPH.to_arrays()
    lonely = Hnsw.from_arrays(BANK, arrays | {"links": np.full_like(arrays["links"], -1)})
    peer = NearestNeighbors(n_neighbors=4, metric="cosine", algorithm="brute").fit(BANK)
    _, rows = gathered(lonely.search(QUERIES[:9], BANK, 4, 50))
    np.testing.assert_array_equal(rows, peer.kneighbors(QUERIES[:9])[1])


def wrong(name, place, value):
    arrays = {key: array.copy() for key, array in GRAPH.to_arrays().items()}
    arrays[name][place] = value
    return arrays


HIGH = int(np.flatnonzero(GRAPH.to_arrays()["levels"] > 1)[0])
ABOVE = int(np.where(GRAPH.to_arrays()["levels"][:HIGH] > 0, 64, 0).sum()) + 64
LOW = int(np.flatnonzero(GRAPH.to_arrays()["levels"] == 1)[0])


@pytest.mark.parametrize(
    "arrays",
    [
        wrong("links", 5, 3000),
        wrong("links", 5, -2),
        wrong("links", ABOVE, LOW),
        wrong("levels", 3, 0),
        wrong("levels", 3, 99),
        wrong("levels", 3, 7),
        wrong("entry", (), LOW),
        wrong("entry", (), 3000),
        {**GRAPH.to_arrays(), "levels": GRAPH.to_arrays()["levels"][:-1]},
        {**GRAPH.to_arrays(), "links": GRAPH.to_arrays()["links"][:-1]},
        {**GRAPH.to_arrays(), "links": GRAPH.to_arrays()["links"].astype(np.int64)},
    ],
    ids=range(11),
)
def test_links_that_would_lead_out_of_the_graph(arrays):
    with pytest.raises(ValueError, match="these are no links of 3000 rows"):
        Hnsw.from_arrays(BANK, arrays)


def test_a_graph_that_does_not_fit_is_refused_at_once():
    huge = np.broadcast_to(np.ones((1, 4096), np.float32), (10**9, 4096))
    with pytest.raises(UsageError, match=r"1,000,000,000 rows .* takes 16648.0 GB .* use ivf"):
        Hnsw.build(huge)
