"""Inverted files against faiss' own, and scikit-learn where all lists are looked through."""

from __future__ import annotations

import faiss
import h5py
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from featkit.errors import UsageError
from featkit.ops import inverted_file
from featkit.ops.inverted_file import InvertedFile
from featkit.ops.neighbors import nearest_neighbors, unit_rows
from featkit.ops.row_sources import SelectedRows
from tests.ops.approximation import clustered, gathered

BANK, QUERIES = clustered(3000), clustered(150, seed=1)
INDEX = InvertedFile.build(BANK, device="cpu")
LISTS = len(INDEX.centroids)


def search(queries, k, probes, index=INDEX, bank=BANK, **options):
    return gathered(index.search(queries, bank, k, probes, device="cpu", **options))


def test_the_size_of_an_index():
    assert LISTS == 3000 // 30
    assert INDEX.lists.shape == (3000,)
    np.testing.assert_allclose(np.linalg.norm(INDEX.centroids, axis=1), 1, atol=1e-6)
    cosines = unit_rows(BANK).array @ INDEX.centroids.T
    own = np.take_along_axis(cosines, INDEX.lists[:, None].astype(int), axis=1)
    np.testing.assert_allclose(own[:, 0], cosines.max(axis=1), atol=1e-6)


def test_centroids_lie_where_rows_are():
    """k-means explains nearly what scikit-learn's does, of the same rows."""
    units = unit_rows(BANK).array
    peer = KMeans(LISTS, init="random", n_init=1, max_iter=10, random_state=0).fit(units)
    theirs = unit_rows(peer.cluster_centers_).array[peer.labels_]
    ours = INDEX.centroids[INDEX.lists]
    assert (units * ours).sum(1).mean() > (units * theirs).sum(1).mean() - 0.01


@pytest.mark.parametrize("probes", [1, 3, 20, LISTS])
def test_the_neighbours_are_those_of_faiss(probes):
    quantizer = faiss.IndexFlatIP(16)
    quantizer.add(INDEX.centroids)
    peer = faiss.IndexIVFFlat(quantizer, 16, LISTS, faiss.METRIC_INNER_PRODUCT)
    peer.is_trained = True
    peer.add(unit_rows(BANK).array)
    peer.nprobe = probes
    theirs, where = peer.search(unit_rows(QUERIES).array, 5)
    full = where[:, -1] >= 0  # of others faiss finds fewer than five
    assert full.mean() > 0.9
    ours, rows = search(QUERIES, 5, probes)
    np.testing.assert_allclose(ours[full], theirs[full], atol=1e-6)
    assert (rows[full] == where[full]).mean() > 0.999


@pytest.mark.parametrize("alone", [False, True])
def test_all_lists_are_an_exact_search(alone):
    own = np.arange(100, 250) if alone else None
    queries = BANK[100:250] if alone else QUERIES
    similarities, rows = search(queries, 12, LISTS, own=own)
    peer = NearestNeighbors(n_neighbors=13, metric="cosine", algorithm="brute").fit(BANK)
    distances, where = peer.kneighbors(queries)
    distances = distances[:, 1:] if alone else distances[:, :-1]
    where = where[:, 1:] if alone else where[:, :-1]
    np.testing.assert_allclose(similarities, 1 - distances, atol=1e-6)
    assert (rows == where).mean() > 0.999
    if alone:
        assert (rows != own[:, None]).all()


def test_short_lists_are_filled_up_from_the_next():
    similarities, rows = search(QUERIES, 300, 1)
    assert rows.shape == (150, 300)
    assert all(len(set(row)) == 300 for row in rows.tolist())
    assert rows.min() >= 0
    assert (np.diff(similarities, axis=1) <= 0).all()
    assert np.isfinite(similarities).all()


@pytest.mark.parametrize("floats", [16 * 60, 16 * 1000])
def test_blocks_change_nothing(monkeypatch, floats):
    wanted = search(QUERIES[:40], 9, 7)
    monkeypatch.setattr(inverted_file, "CHUNK_FLOATS", floats)
    monkeypatch.setattr(inverted_file, "BLOCK", 11)
    found = search(QUERIES[:40], 9, 7)
    np.testing.assert_array_equal(found[1], wanted[1])
    np.testing.assert_allclose(found[0], wanted[0], atol=1e-6)


def test_places_are_the_least_effort_that_finds_a_row():
    _, rows = nearest_neighbors(QUERIES[:20], BANK, 6, device="cpu")
    places = INDEX.places(unit_rows(QUERIES[:20]).array, rows)
    for probes in (1, 2, 5, 20):
        _, found = search(QUERIES[:20], 6, probes)
        there = [np.isin(row, mine).tolist() for row, mine in zip(rows, found, strict=True)]
        assert there == (places < probes).tolist()


def test_rows_of_any_source(tmp_path):
    half = BANK.astype(np.float16)
    wanted = search(QUERIES, 5, 8, bank=half)
    half.tofile(tmp_path / "bank")
    mapped = np.memmap(tmp_path / "bank", np.float16, "r", shape=half.shape)
    with h5py.File(tmp_path / "bank.h5", "w") as file:
        file["rows"] = half
        for bank in (mapped, file["rows"]):
            np.testing.assert_array_equal(search(QUERIES, 5, 8, bank=bank)[1], wanted[1])
    more, keep = np.full((4000, 16), np.nan), np.ones(4000, bool)
    keep[3::4] = False
    more[keep] = half
    np.testing.assert_array_equal(
        search(QUERIES, 5, 8, bank=SelectedRows(more, keep))[1], wanted[1]
    )


@pytest.mark.parametrize("n", [1, 2, 29, 61])
def test_small_banks(n):
    index = InvertedFile.build(BANK[:n], device="cpu")
    assert len(index.centroids) == max(1, n // 30)
    _, rows = gathered(index.search(BANK[:n], BANK[:n], 1, 1, device="cpu"))
    np.testing.assert_array_equal(rows[:, 0], np.arange(n))


def test_rows_that_are_all_the_same_and_no_queries():
    same = np.ones((200, 4), np.float32)
    index = InvertedFile.build(same, device="cpu")
    similarities, rows = gathered(index.search(same[:3], same, 150, 1, device="cpu"))
    np.testing.assert_allclose(similarities, 1, atol=1e-6)
    assert all(len(set(row)) == 150 for row in rows.tolist())
    assert list(index.search(same[:0], same, 1, 1, device="cpu")) == []


def test_what_cannot_be_searched():
    with pytest.raises(UsageError, match="queries have 3 features and the bank 16"):
        search(QUERIES[:, :3], 1, 1)
    with pytest.raises(UsageError, match="k is 3001 and there are 3000 rows to choose from"):
        search(QUERIES, 3001, 1)
    with pytest.raises(UsageError, match="1 of 3000 rows of bank hold NaN"):
        InvertedFile.build(np.where(np.arange(3000)[:, None] == 7, np.nan, BANK), device="cpu")
