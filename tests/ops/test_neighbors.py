"""Neighbours against scikit-learn in float64; votes against hand and the published formula."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.utils.estimator_checks import check_estimator

from featkit.errors import UsageError
from featkit.ops import neighbors, search_engines, votes
from featkit.ops.knn_classifier import KNNClassifier
from featkit.ops.neighbors import (
    UnitRows,
    nearest_neighbors,
    resolve_device,
    unit_rows,
)
from featkit.ops.votes import dino_vote, majority_vote

ENGINES = [search_engines.faiss_engine, search_engines.torch_engine]
each_engine = pytest.mark.parametrize("engine", ENGINES, ids=["faiss", "torch"])


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def search(engine, queries, bank, k, exclude_self=False, **options):
    own, cpu = np.arange(len(queries)) if exclude_self else None, torch.device("cpu")
    blocks = list(neighbors._search_blocks(queries, bank, k, engine, cpu, own=own, **options))
    return tuple(np.concatenate([block[i] for block in blocks]) for i in (1, 2))


def assert_neighbours(found, queries, bank, exclude_self=False, tolerance=1e-6):
    """The answer is scikit-learn's in float64, up to the order of similarities this close."""
    similarities, rows = found
    k = rows.shape[1]
    oracle = NearestNeighbors(metric="cosine", algorithm="brute").fit(bank.astype(np.float64))
    wanted = len(bank) if not exclude_self else len(bank) - 1
    x = None if exclude_self else queries.astype(np.float64)
    distances, order = oracle.kneighbors(x, n_neighbors=wanted)
    exact = 1 - distances
    assert similarities.dtype == np.float32
    assert rows.dtype == np.int64
    assert rows.min() >= 0
    assert rows.max() < len(bank)
    assert all(len(set(row)) == k for row in rows.tolist())
    np.testing.assert_allclose(similarities, exact[:, :k], rtol=0, atol=tolerance)
    assert (np.diff(similarities, axis=1) <= 0).all()
    place = np.argsort(order, axis=1)
    if not exclude_self:
        own = np.take_along_axis(exact, np.take_along_axis(place, rows, axis=1), axis=1)
        np.testing.assert_allclose(similarities, own, rtol=0, atol=tolerance)
    padded = np.pad(exact, ((0, 0), (1, 1)), constant_values=((0, 0), (np.inf, -np.inf)))
    gaps = -np.diff(padded, axis=1)
    clear = (gaps[:, :k] > tolerance) & (gaps[:, 1 : k + 1] > tolerance)
    np.testing.assert_array_equal(rows[clear], order[:, :k][clear])
    return clear.mean()


@each_engine
@pytest.mark.parametrize(
    ("q", "n", "d", "k", "block"),
    [
        (200, 3000, 64, 20, 4096),
        (1, 500, 32, 5, 4096),  # one query
        (7, 500, 32, 7, 64),  # fewer queries than a block
        (130, 1000, 48, 150, 64),  # k beyond the block, many blocks, a last block of two
        (40, 300, 16, 300, 128),  # the whole bank
        (40, 300, 1, 5, 128),
    ],
)
def test_random_rows_against_sklearn_in_float64(engine, q, n, d, k, block):
    queries, bank = gaussian(q, d, seed=1), gaussian(n, d, seed=2)
    clear = assert_neighbours(
        search(engine, queries, bank, k, block=block), queries, bank, tolerance=5e-7
    )
    assert clear > 0.99 or d == 1


@each_engine
def test_a_bank_in_many_chunks_against_sklearn(engine, monkeypatch):
    monkeypatch.setattr(neighbors, "CHUNK_FLOATS", 1)
    queries, bank = gaussian(150, 32, seed=3), gaussian(1000, 32, seed=4)
    found = search(engine, queries, bank, 100, block=64)
    assert_neighbours(found, queries, bank)
    given = search(engine, unit_rows(queries), unit_rows(bank), 100, block=64)
    np.testing.assert_array_equal(found[1], given[1])
    np.testing.assert_array_equal(found[0], given[0])


@each_engine
def test_angles_by_hand(engine):
    degrees = np.radians([0, 30, 60, 90, 180])
    bank = np.stack([np.cos(degrees), np.sin(degrees)], axis=1) * [[5], [1], [0.1], [9], [2]]
    similarities, rows = search(engine, np.float32([[0, 3]]), bank, 5)
    np.testing.assert_array_equal(rows[0, :3], [3, 2, 1])
    np.testing.assert_allclose(similarities[0], [1, np.sqrt(0.75), 0.5, 0, 0], atol=1e-6)


@each_engine
def test_rows_that_are_almost_parallel(engine):
    base = np.abs(gaussian(1, 256, seed=5)) + 1
    bank, queries = base + 0.02 * gaussian(800, 256, seed=6), base + 0.02 * gaussian(50, 256)
    found = search(engine, queries, bank, 30)
    assert found[0].min() > 0.999
    wide = (x.astype(np.float64) for x in (queries, bank))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in wide)
    exact = -np.sort(-(a @ b.T), axis=1)[:, :30]
    np.testing.assert_allclose(found[0], exact, rtol=0, atol=1e-6)
    own = np.take_along_axis(a @ b.T, found[1], axis=1)
    np.testing.assert_allclose(own, exact, rtol=0, atol=1e-6)


@each_engine
def test_zero_rows_are_at_similarity_zero(engine):
    bank = np.float32([[1, 0], [0, 0], [-1, 0]])
    similarities, rows = search(engine, np.float32([[2, 0], [0, 0]]), bank, 3)
    np.testing.assert_array_equal(similarities, [[1, 0, -1], [0, 0, 0]])
    np.testing.assert_array_equal(rows, [[0, 1, 2], [0, 1, 2]])


@each_engine
def test_equal_similarities_come_in_the_order_of_the_bank(engine):
    directions = np.eye(4, dtype=np.float32)
    bank = directions[[0, 1, 0, 2, 0, 1]]
    similarities, rows = search(engine, directions[:2], bank, 6, block=2)
    np.testing.assert_array_equal(rows, [[0, 2, 4, 1, 3, 5], [1, 5, 0, 2, 3, 4]])
    np.testing.assert_array_equal(similarities, [[1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]])


@each_engine
def test_leave_one_out_against_sklearn(engine):
    bank = gaussian(400, 24, seed=7)
    found = search(engine, bank, bank, 12, exclude_self=True, block=100)
    assert (found[1] != np.arange(400)[:, None]).all()
    assert_neighbours(found, bank, bank, exclude_self=True)


@each_engine
@pytest.mark.parametrize("k", [1, 3, 39])
def test_a_row_among_its_copies_never_finds_itself(engine, k):
    bank = np.repeat(gaussian(1, 8, seed=8), 40, axis=0)
    similarities, rows = search(engine, bank, bank, k, exclude_self=True, block=16)
    assert rows.shape == (40, k)
    assert (rows != np.arange(40)[:, None]).all()
    assert all(len(set(row)) == k for row in rows.tolist())
    np.testing.assert_allclose(similarities, 1, atol=1e-6)


@each_engine
def test_copies_of_every_row_are_the_nearest_when_it_leaves_itself_out(engine):
    half = gaussian(100, 16, seed=9)
    bank = np.vstack([half, half])
    similarities, rows = search(engine, bank, bank, 1, exclude_self=True, block=32)
    np.testing.assert_array_equal(rows[:, 0], (np.arange(200) + 100) % 200)
    assert similarities.max() <= 1  # rounding alone would exceed it
    np.testing.assert_allclose(similarities, 1, atol=1e-6)


@each_engine
def test_permuting_the_bank_permutes_the_answer(engine):
    queries, bank = gaussian(60, 32, seed=10), gaussian(500, 32, seed=11)
    order = np.random.default_rng(0).permutation(500)
    one, other = search(engine, queries, bank, 10), search(engine, queries, bank[order], 10)
    np.testing.assert_array_equal(one[1], order[other[1]])
    np.testing.assert_allclose(one[0], other[0], rtol=0, atol=1e-6)


@each_engine
def test_rotating_both_sides_changes_nothing(engine):
    queries, bank = gaussian(60, 32, seed=10), gaussian(500, 32, seed=11)
    rotation, _ = np.linalg.qr(gaussian(32, 32, seed=12).astype(np.float64))
    one, other = (search(engine, queries @ r, bank @ r, 10) for r in (np.eye(32), rotation))
    np.testing.assert_array_equal(one[1], other[1])
    np.testing.assert_allclose(one[0], other[0], rtol=0, atol=1e-6)


@each_engine
def test_the_length_of_rows_does_not_matter(engine):
    queries, bank = gaussian(60, 32, seed=10), gaussian(500, 32, seed=11)
    powers = 2.0 ** np.random.default_rng(1).integers(-20, 20, 500)
    one = search(engine, queries, bank, 10)
    other = search(engine, 4 * queries, (bank.T * powers).T, 10)
    np.testing.assert_array_equal(one[1], other[1])
    np.testing.assert_array_equal(one[0], other[0])


def test_engines_and_blocks_agree():
    queries, bank = gaussian(150, 40, seed=13), gaussian(900, 40, seed=14)
    answers = [
        search(engine, queries, bank, 25, block=block)
        for engine in ENGINES
        for block in (1, 33, 149, 900, 5000)
    ]
    for similarities, rows in answers[1:]:
        np.testing.assert_array_equal(rows, answers[0][1])
        np.testing.assert_allclose(similarities, answers[0][0], rtol=0, atol=1e-6)


@each_engine
def test_one_search_holds_the_answer_for_every_smaller_k(engine):
    queries, bank = gaussian(50, 32, seed=15), gaussian(700, 32, seed=16)
    _, rows = search(engine, queries, bank, 200)
    for k in (1, 10, 99, 100, 150):
        np.testing.assert_array_equal(search(engine, queries, bank, k)[1], rows[:, :k])


def test_few_candidates_at_once_change_nothing(monkeypatch):
    queries, bank = gaussian(50, 32, seed=15), gaussian(700, 32, seed=16)
    one = nearest_neighbors(queries, bank, 300, device="cpu")
    monkeypatch.setattr(search_engines, "KEPT", 1000)
    other = nearest_neighbors(queries, bank, 300, device="cpu")
    np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.astype(np.float64),
        lambda x: x.astype(">f4"),
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=0)[::2],
        torch.from_numpy,
        lambda x: torch.from_numpy(x).double().requires_grad_(),
        lambda x: x.tolist(),
    ],
    ids=["float64", "big-endian", "fortran", "strided", "tensor", "gradient", "list"],
)
def test_the_same_numbers_in_another_form(convert):
    queries, bank = gaussian(20, 8, seed=17), gaussian(90, 8, seed=18)
    one = nearest_neighbors(queries, bank, 9, device="cpu")
    other = nearest_neighbors(convert(queries), convert(bank), 9, device="cpu")
    np.testing.assert_array_equal(one[1], other[1])
    np.testing.assert_array_equal(one[0], other[0])


@pytest.mark.parametrize("form", ["float16", "bfloat16", "int16"])
def test_narrow_numbers(form):
    x = torch.from_numpy(gaussian(90, 16, seed=19) * 100).to(getattr(torch, form))
    found = nearest_neighbors(x[:20], x, 9, device="cpu")
    assert_neighbours(found, x[:20].double().numpy(), x.double().numpy())


def test_a_read_only_memory_map(tmp_path):
    bank = gaussian(300, 16, seed=20).astype(np.float16)
    bank.tofile(tmp_path / "bank")
    mapped = np.memmap(tmp_path / "bank", np.float16, "r", shape=bank.shape)
    found = nearest_neighbors(mapped, mapped, 5, exclude_self=True, device="cpu")
    np.testing.assert_array_equal(
        found[1], nearest_neighbors(bank, bank, 5, exclude_self=True, device="cpu")[1]
    )


@each_engine
def test_read_only_unit_rows(engine):
    bank = unit_rows(gaussian(300, 16, seed=20))
    bank.array.flags.writeable = False
    assert search(engine, bank, bank, 1)[1][:, 0].tolist() == list(range(300))


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-200, 1e-30, 1e-10, 1e10, 1e30, 1e300])
def test_rows_of_any_size_are_normalised(scale):
    x = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]) * scale
    np.testing.assert_allclose(unit_rows(x).array, [[0.6, 0.8, 0], [0, 0, 0]], atol=1e-6)
    if 1e-40 < scale < 1e38:
        np.testing.assert_allclose(unit_rows(np.float32(x)).array[0], [0.6, 0.8, 0], atol=1e-6)


def test_unit_rows_are_of_length_one_and_passed_through():
    x = gaussian(5000, 100, seed=21)  # more than one block
    unit = unit_rows(x)
    exact = x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(unit.array, exact, rtol=0, atol=1e-7)
    assert unit.array.dtype == np.float32
    assert unit_rows(unit) is unit


def test_no_queries_have_no_neighbours():
    similarities, rows = nearest_neighbors(np.empty((0, 3)), gaussian(5, 3), 2, device="cpu")
    assert similarities.shape == rows.shape == (0, 2)


GOOD = gaussian(10, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((GOOD, GOOD, 11), "k is 11 and there are 10 rows to choose from: lower it to 10"),
        ((GOOD, GOOD, 0), "k is 0: give a whole number, 1 or more"),
        ((GOOD, GOOD, -3), "k is -3"),
        ((GOOD, GOOD, 2.0), r"k is 2\.0"),
        ((GOOD, GOOD, True), "k is True"),
        ((GOOD, GOOD[:0], 1), "k is 1 and there are 0 rows"),
        ((GOOD[:, :3], GOOD, 1), "queries have 3 features and the bank 4"),
        ((GOOD[0], GOOD, 1), r"queries are float32 \(4,\): give real numbers in the shape"),
        ((GOOD, GOOD[None], 1), r"bank are float32 \(1, 10, 4\)"),
        ((GOOD[:, :0], GOOD[:, :0], 1), r"queries are float32 \(10, 0\)"),
        ((GOOD.astype(complex), GOOD, 1), "queries are complex128"),
        ((np.full((2, 4), "a"), GOOD, 1), "queries are <U1"),
    ],
)
def test_what_cannot_be_searched(arguments, message):
    with pytest.raises(UsageError, match=message):
        nearest_neighbors(*arguments, device="cpu")


def test_options_that_cannot_be_used():
    with pytest.raises(UsageError, match="k is 10 and there are 9 rows"):
        nearest_neighbors(GOOD, GOOD, 10, exclude_self=True, device="cpu")
    assert nearest_neighbors(GOOD, GOOD, 9, exclude_self=True)[1].shape == (10, 9)
    with pytest.raises(UsageError, match="exclude_self with 5 queries and 10 bank rows"):
        nearest_neighbors(GOOD[:5], GOOD, 1, exclude_self=True, device="cpu")
    with pytest.raises(UsageError, match="block is 0"):
        nearest_neighbors(GOOD, GOOD, 1, block=0, device="cpu")
    for device in ("gpu", "mps", "cuda:x", "auto1"):
        with pytest.raises(UsageError, match=f"device '{device}' is unknown"):
            nearest_neighbors(GOOD, GOOD, 1, device=device)


def test_devices(monkeypatch):
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")
    for count in (0, 1):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        monkeypatch.setattr(torch.cuda, "is_available", lambda count=count: count > 0)
        assert resolve_device("auto").type == ("cuda" if count else "cpu")
        with pytest.raises(UsageError, match="device 'cuda:1' is not in this machine"):
            resolve_device("cuda:1")
    assert resolve_device("cuda:0") == torch.device("cuda", 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", [np.float16, np.float32, np.float64])
def test_rows_that_are_not_finite_are_counted(value, form, monkeypatch):
    monkeypatch.setattr(neighbors, "CHUNK_FLOATS", 1)
    good = gaussian(9000, 64, seed=22).astype(form)
    bad = good.copy()
    bad[[70, 4500, 8999], 5] = value
    message = "3 of 9000 rows of {} hold NaN or infinity, the first is row 70: leave them out"
    with pytest.raises(UsageError, match=message.format("bank")):
        nearest_neighbors(good[:5], bad, 1, device="cpu")
    with pytest.raises(UsageError, match=message.format("queries")):
        nearest_neighbors(bad, good[:9], 1, device="cpu")


def faiss_settings():
    names = ("threshold", "query_bs", "database_bs")
    return [getattr(faiss.cvar, f"distance_compute_blas_{name}") for name in names]


def test_settings_of_the_process_are_put_back(monkeypatch):
    before, threads = faiss_settings(), faiss.omp_get_max_threads()
    seen = []

    def refuse(*_, **__):
        seen.append((faiss_settings(), faiss.omp_get_max_threads()))
        raise MemoryError

    torch_threads = torch.get_num_threads()
    try:
        faiss.omp_set_num_threads(2)
        torch.set_num_threads(1)
        asked = faiss.omp_get_max_threads()  # 1 where one runtime serves both libraries
        nearest_neighbors(GOOD, GOOD, 2, device="cpu")
        monkeypatch.setattr(faiss, "knn", refuse)
        with pytest.raises(MemoryError):
            nearest_neighbors(GOOD, GOOD, 2, block=77, device="cpu")
        assert seen == [([1, 77, 77], 1)]
        assert faiss_settings() == before
        assert faiss.omp_get_max_threads() == asked
    finally:
        torch.set_num_threads(torch_threads)
        faiss.omp_set_num_threads(threads)


def test_torch_searches_without_tf32_and_without_autocast(monkeypatch):
    matmul = torch.backends.cuda.matmul
    new = hasattr(matmul, "fp32_precision")
    seen = []
    merge = search_engines.merged

    def spy(one, other, k):
        seen.append((matmul.fp32_precision if new else matmul.allow_tf32, other[0].dtype))
        return merge(one, other, k)

    monkeypatch.setattr(search_engines, "merged", spy)
    before = matmul.allow_tf32
    matmul.allow_tf32 = True
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            search(search_engines.torch_engine, GOOD, GOOD, 1)
        assert matmul.allow_tf32 is True
    finally:
        matmul.allow_tf32 = before
    assert seen == [("ieee" if new else False, torch.float32)]


def test_searches_from_many_threads():
    before = faiss_settings()
    queries, bank = gaussian(100, 32, seed=23), gaussian(600, 32, seed=24)
    alone = nearest_neighbors(queries, bank, 10, device="cpu")
    with ThreadPoolExecutor(8) as pool:
        blocks = [16, 4096, 50, 100] * 4
        jobs = [
            pool.submit(nearest_neighbors, queries, bank, 10, device="cpu", block=b) for b in blocks
        ]
    for job in jobs:
        np.testing.assert_array_equal(job.result()[1], alone[1])
    assert faiss_settings() == before


def run(code):
    # a worker's coverage or thread settings stay behind; one thread keeps the figure steady
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_memory_does_not_grow_with_queries_times_bank():
    peaks = run("""
import re, pathlib, faiss, numpy as np
from featkit.ops.neighbors import nearest_neighbors
def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1024
x = np.random.default_rng(0).standard_normal((40_000, 16), dtype=np.float32)
nearest_neighbors(x[:10], x[:10], 1, device="cpu")
before = peak()
nearest_neighbors(x, x, 10, exclude_self=True, device="cpu")
print(peak() - before)
""")
    assert float(peaks) < 400  # MiB; the full matrix is 6,100


def test_faiss_is_loaded_when_it_is_used():
    run("import sys, featkit.ops.neighbors; assert 'faiss' not in sys.modules")


# Votes


def test_majority_by_hand():
    near = np.float32([[0.9, 0.8, 0.7, 0.6, 0.5]] * 3)
    labels = np.array([[4, 2, 2, 4, 0], [0, 1, 2, 3, 4], [3, 3, 1, 1, 1]])
    votes = majority_vote(near, labels, 5, [1, 2, 3, 4, 5])
    assert {k: v.tolist() for k, v in votes.items()} == {
        1: [4, 0, 3],
        2: [4, 0, 3],  # 4 and 2 tie: 4 is nearer
        3: [2, 0, 3],
        4: [4, 0, 3],  # two each: the nearer
        5: [4, 0, 1],
    }
    assert votes[3].dtype == np.int64


def test_a_tie_goes_to_the_class_met_first_not_to_the_lower_number():
    labels = np.array([[7, 3, 5, 5, 3, 7]])
    votes = majority_vote(np.ones((1, 6)), labels, 9, [2, 4, 5, 6])
    assert {k: int(v[0]) for k, v in votes.items()} == {2: 7, 4: 5, 5: 3, 6: 7}


def test_dino_by_hand():
    # exp(0.9/0.5) = 6.05 against 2 exp(0.6/0.5) = 6.64, and at T = 0.4: 9.49 against 8.96
    near, labels = np.float32([[0.9, 0.6, 0.6]]), [[0, 1, 1]]
    assert dino_vote(near, labels, 2, [3], temperature=0.5)[3] == 1
    assert dino_vote(near, labels, 2, [3], temperature=0.4)[3] == 0
    assert dino_vote(near, labels, 2, [1, 2], temperature=0.5) == {1: 0, 2: 0}


def test_dino_ties_go_to_the_nearer_class():
    near = np.float32([[0.9, 0.9, 0.8, 0.8, 0.1, 0.1]])
    labels = [[2, 1, 1, 2, 1, 2]]
    votes = dino_vote(near, labels, 3, [2, 4, 6])
    assert {k: int(v[0]) for k, v in votes.items()} == {2: 2, 4: 2, 6: 2}


def random_votes(q=300, k=200, classes=40, seed=0):
    rng = np.random.default_rng(seed)
    near = -np.sort(-rng.uniform(-1, 1, (q, k)).astype(np.float32), axis=1)
    return near, rng.integers(0, classes, (q, k))


def test_dino_against_the_published_formula():
    # the one-hot sum of eval_knn.py in github.com/facebookresearch/dino, unshifted, in float64
    near, labels = random_votes()
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(labels), 40).double()
    weights = (torch.from_numpy(near).double() / 0.07).exp()
    votes = dino_vote(near, labels, 40, [10, 20, 100, 200])
    for k, predictions in votes.items():
        scores = torch.einsum("qkc,qk->qc", one_hot[:, :k], weights[:, :k])
        np.testing.assert_array_equal(predictions, scores.argmax(dim=1))


def test_majority_against_counting():
    near, labels = random_votes(classes=6, k=50)  # six classes tie often
    for k, predictions in majority_vote(near, labels, 6, range(1, 51)).items():
        # Counter.most_common keeps the order in which equal counts were first met
        counted = [Counter(row[:k].tolist()).most_common(1)[0][0] for row in labels]
        assert predictions.tolist() == counted


@pytest.mark.parametrize("vote", [majority_vote, dino_vote])
def test_votes_in_blocks_and_for_each_k_alone(vote, monkeypatch):
    near, labels = random_votes()
    whole = vote(near, labels, 40, [10, 20, 100, 200])
    monkeypatch.setattr(votes, "VOTE_CELLS", 7 * 200)
    for k, predictions in vote(near, labels, 40, [200, 10, 100, 20]).items():
        np.testing.assert_array_equal(predictions, whole[k])
        alone = vote(near[:, :k], labels[:, :k], 1000, [k])[k]  # absent classes change nothing
        np.testing.assert_array_equal(predictions, alone)


def test_dino_does_not_overflow():
    near, labels = random_votes(k=20)
    cold = dino_vote(near, labels, 40, [20], temperature=1e-5)[20]
    np.testing.assert_array_equal(cold, labels[:, 0])  # the nearest alone
    hot = dino_vote(near, labels, 40, [20], temperature=1e12)[20]
    assert (hot == majority_vote(near, labels, 40, [20])[20]).mean() > 0.5
    np.testing.assert_array_equal(
        dino_vote(near, labels, 40, [20])[20], dino_vote(near - np.float32(8), labels, 40, [20])[20]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0, 0.5]], [[0]], 2, [1]), r"similarities \(1, 2\) and labels \(1, 1\)"),
        (([1.0], [0], 2, [1]), r"must both be \(q, K\)"),
        (([[1.0]], [[2]], 2, [1]), "whole numbers from 0 to 1"),
        (([[1.0]], [[-1]], 2, [1]), "whole numbers from 0 to 1"),
        (([[1.0]], [[0.0]], 2, [1]), "whole numbers from 0 to 1"),
        (([[0.5, 1.0]], [[0, 1]], 2, [1]), "nearest first"),
        (([[1.0, np.nan]], [[0, 1]], 2, [1]), "nearest first"),
        (([[1.0]], [[0]], 2, [2]), "k is 2 and there are 1 neighbours"),
        (([[1.0]], [[0]], 2, [0]), "k is 0"),
    ],
)
@pytest.mark.parametrize("vote", [majority_vote, dino_vote])
def test_what_cannot_vote(vote, arguments, message):
    with pytest.raises(UsageError, match=message):
        vote(*arguments)


@pytest.mark.parametrize("temperature", [0, -1, np.nan, np.inf])
def test_temperatures_that_mean_nothing(temperature):
    with pytest.raises(UsageError, match="temperature is"):
        dino_vote([[1.0]], [[0]], 1, [1], temperature=temperature)


# The estimator

TIES = (
    "equal shares go to the nearer class in predict and to the first class in argmax of the shares"
)
SMALL = "fits 10 or 12 rows, fewer than the default k of 20"


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (KNNClassifier(k=1), {}),
        (KNNClassifier(k=3), {"check_classifiers_train": TIES}),
        (KNNClassifier(k=5), {}),
        (KNNClassifier(k=5, vote="dino"), {}),
        (
            KNNClassifier(),
            {
                "check_classifiers_train": TIES,
                "check_estimators_nan_inf": SMALL,
                "check_classifier_data_not_an_array": SMALL,
                "check_classifiers_one_label": SMALL,
            },
        ),
    ],
    ids=repr,
)
def test_scikit_learn_accepts_the_estimator(estimator, expected):
    results = check_estimator(
        estimator, expected_failed_checks=expected, on_skip=None, on_fail="raise"
    )
    failed = {r["check_name"] for r in results if r["status"] == "xfail"}
    assert failed == set(expected)  # none that is listed passes


def clusters(n, seed, d=12, classes=5):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, d))
    y = rng.integers(0, classes, n)
    return (centres[y] + 0.9 * rng.standard_normal((n, d))).astype(np.float32), y


@pytest.mark.parametrize(("vote", "k"), [("majority", 20), ("dino", 20), ("dino", 200)])
def test_shares_and_predictions_against_sklearn(vote, k):
    (x, y), (queries, truth) = clusters(2000, 1), clusters(300, 2)
    weights = "uniform" if vote == "majority" else lambda d: np.exp((1 - d) / 0.07)
    oracle = KNeighborsClassifier(k, weights=weights, metric="cosine", algorithm="brute")
    oracle.fit(x.astype(np.float64), y)
    ours = KNNClassifier(k=k, vote=vote, device="cpu").fit(x, y)
    shares, theirs = ours.predict_proba(queries), oracle.predict_proba(queries.astype(np.float64))
    np.testing.assert_allclose(shares, theirs, rtol=0, atol=2e-5)
    clear = np.diff(np.sort(theirs, axis=1)[:, -2:]).ravel() > 1e-4
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(ours.predict(queries)[clear], oracle.predict(queries)[clear])
    assert ours.score(queries, truth) == pytest.approx((ours.predict(queries) == truth).mean())
    assert 0.5 < ours.score(queries, truth) < 1


def test_real_scans_against_sklearn():
    x, y = load_digits(return_X_y=True)
    ours = KNNClassifier(k=1, device="cpu").fit(x[:1000], y[:1000])
    theirs = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(x[:1000], y[:1000])
    np.testing.assert_array_equal(ours.predict(x[1000:]), theirs.predict(x[1000:]))
    assert ours.score(x[1000:], y[1000:]) > 0.95


def test_labels_of_any_kind_and_classes_no_query_has():
    x, y = clusters(500, 3)
    names = np.array(["ant", "bee", "cat", "dog", "elk"])
    queries, truth = clusters(100, 4)
    queries = queries[truth != 2]
    numbered = KNNClassifier(k=7, device="cpu").fit(x, y * 10 - 7)
    named = KNNClassifier(k=7, device="cpu").fit(x, names[y])
    assert named.classes_.tolist() == names.tolist()
    np.testing.assert_array_equal(
        named.predict(queries), names[(numbered.predict(queries) + 7) // 10]
    )
    assert named.predict_proba(queries).shape == (len(queries), 5)


def test_leave_one_out_of_the_estimator():
    x, y = clusters(300, 5)
    ours = KNNClassifier(k=4, device="cpu").fit(x, y)
    assert_neighbours(ours.kneighbors(), x, x, exclude_self=True)
    assert ours.kneighbors(n_neighbors=9)[1].shape == (300, 9)
    assert ours.kneighbors(x, n_neighbors=1)[1][:, 0].tolist() == list(range(300))
    with pytest.raises(UsageError, match="k is 300 and there are 299 rows"):
        ours.kneighbors(n_neighbors=300)


@pytest.mark.parametrize("form", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_and_narrow_numbers_fit(form):
    x, y = clusters(200, 6)
    tensor = torch.from_numpy(x).to(form)
    ours = KNNClassifier(k=3, device="cpu").fit(tensor, y)
    assert ours._bank.array.dtype == np.float32
    assert ours.predict(tensor).shape == (200,)
    assert_neighbours(ours.kneighbors(tensor), tensor.double().numpy(), tensor.double().numpy())


def test_features_are_not_copied_to_another_type(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "featkit.ops.knn_classifier.unit_rows", lambda x, name: seen.append(x) or unit_rows(x)
    )
    for form in (np.float16, np.float32, np.float64):
        x = clusters(50, 7)[0].astype(form)
        KNNClassifier(k=3, device="cpu").fit(x, np.zeros(50, int))
        assert np.shares_memory(seen[-1], x)


def test_copies_and_pickles():
    x, y = clusters(200, 8)
    ours = KNNClassifier(k=3, vote="dino", temperature=0.2, device="cpu")
    assert clone(ours).get_params() == ours.get_params()
    ours.fit(x, y).set_params(k=9)
    again = pickle.loads(pickle.dumps(ours))
    assert isinstance(again._bank, UnitRows)
    np.testing.assert_array_equal(again.predict_proba(x), ours.predict_proba(x))
    assert (ours.n_features_in_, ours.kneighbors(x)[1].shape[1]) == (12, 9)


def test_mistakes_with_the_estimator():
    x, y = clusters(50, 9)
    with pytest.raises(NotFittedError):
        KNNClassifier().predict(x)
    with pytest.raises(UsageError, match="vote is 'softmax': give majority or dino"):
        KNNClassifier(vote="softmax").fit(x, y)
    ours = KNNClassifier(k=60, device="cpu").fit(x, y)
    with pytest.raises(UsageError, match="k is 60 and there are 50 rows to choose from"):
        ours.predict(x)
    with pytest.raises(UsageError, match="X has 5 features, but KNNClassifier is expecting 12"):
        ours.set_params(k=3).predict(x[:, :5])
    with pytest.raises(UsageError, match="inconsistent numbers of samples"):
        ours.fit(x, y[:-1])
    with pytest.raises(UsageError, match="Unknown label type: continuous"):
        ours.fit(x, y + 0.5)
    with pytest.raises(UsageError, match="2 of 50 rows of X hold NaN or infinity, the first is"):
        ours.fit(np.where(np.isin(np.arange(50), [3, 8])[:, None], np.nan, x), y)
    with pytest.raises(UsageError, match="temperature is 0: give a positive number"):
        KNNClassifier(k=3, vote="dino", temperature=0, device="cpu").fit(x, y).predict(x)
