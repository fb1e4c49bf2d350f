"""Uniformity and alignment against scipy's distances and the sphere's closed form."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.special import hyp0f1

from featkit.errors import UsageError
from featkit.ops import matrices
from featkit.ops import uniformity as module
from featkit.ops.uniformity import alignment, uniformity


def rows(n, d, spread=1.0, seed=0):
    """Around one direction, of different lengths."""
    rng = np.random.default_rng(seed)
    return (1 + spread * rng.standard_normal((n, d))) * rng.uniform(0.1, 10, (n, 1))


def squared_distances(x):
    x = np.asarray(x, np.float64)
    return pdist(x / np.linalg.norm(x, axis=1, keepdims=True), "sqeuclidean")


@pytest.fixture(params=[1, 7, 1024])
def block(request, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", request.param)
    monkeypatch.setattr(matrices, "BLOCK_FLOATS", 20 * request.param)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("spread", [0.1, 1, 50])
def test_uniformity_is_that_of_scipys_distances(block, dtype, spread):
    x = rows(130, 17, spread).astype(dtype)
    value, error = uniformity(x)
    assert value == pytest.approx(np.log(np.exp(-2 * squared_distances(x)).mean()), rel=1e-6)
    assert error == 0


@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-6])
def test_rows_that_point_almost_the_same_way_keep_their_digits(spread):
    x = rows(300, 20, spread)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert (unit @ unit.T).min() > 0.999
    wanted = np.log1p(np.expm1(-2 * squared_distances(x)).mean())
    assert uniformity(x)[0] == pytest.approx(wanted, rel=1e-6, abs=0)
    mean = squared_distances(x).mean()
    assert alignment(x, np.zeros(300)) == pytest.approx(mean, rel=1e-8, abs=0)


@pytest.mark.parametrize("d", [2, 3, 10, 200])
def test_directions_that_are_uniform_on_the_sphere(d):
    x = np.random.default_rng(d).standard_normal((3000, d))
    wanted = np.log(hyp0f1(d / 2, 4)) - 4  # E exp(4 u·v) of independent uniform u, v
    assert uniformity(x)[0] == pytest.approx(wanted, abs=0.01)
    assert alignment(x, np.arange(3000) % 4) == pytest.approx(2, abs=0.02)


def test_uniformity_by_hand():
    assert uniformity(np.eye(5) * 3)[0] == pytest.approx(-4, abs=1e-6)
    assert uniformity([[1.0], [-2.0]])[0] == pytest.approx(-8, abs=1e-5)
    for d in range(1, 40):
        value, _ = uniformity(np.tile(np.arange(1.0, d + 1), (9, 1)))
        assert value == pytest.approx(0, abs=1e-12)
        assert value <= 0
    assert uniformity([[2], [7], [-1]])[0] == pytest.approx(np.log((1 + 2 * np.exp(-8)) / 3))


def test_lengths_turns_and_order_change_nothing():
    x = rows(200, 12)
    rng = np.random.default_rng(1)
    turn, _ = np.linalg.qr(rng.standard_normal((12, 12)))
    order = rng.permutation(200)
    labels = rng.integers(0, 5, 200)
    lengths = 10.0 ** rng.uniform(-200, 200, (200, 1))
    for y, of in ((x @ turn, labels), (x[order], labels[order]), (x * lengths, labels)):
        assert uniformity(y)[0] == pytest.approx(uniformity(x)[0], rel=1e-6)
        assert alignment(y, of) == pytest.approx(alignment(x, labels), rel=1e-12)


def test_a_sample_estimates_the_whole_with_the_error_it_says():
    x = rows(400, 8)
    whole, _ = uniformity(x)
    found = np.array([uniformity(x, samples=100, seed=seed) for seed in range(300)])
    assert len(set(found[:, 0])) == 300
    assert found[:, 0].mean() == pytest.approx(whole, abs=3 * found[:, 0].std() / 300**0.5 + 0.003)
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.15)
    assert uniformity(x, samples=100, seed=3) == uniformity(x, samples=100, seed=3)


def test_the_error_is_the_jackknifes():
    x = rows(60, 5)
    drawn = np.sort(np.random.default_rng(0).choice(60, 40, replace=False, shuffle=False))
    sample = x[drawn]
    without = [
        np.exp(-2 * squared_distances(np.delete(sample, i, axis=0))).mean() for i in range(40)
    ]
    variance = 39 / 40 * np.sum((without - np.mean(without)) ** 2) * (1 - 40 / 60)
    value, error = uniformity(x, samples=40)
    assert error == pytest.approx(variance**0.5 / np.exp(value), rel=1e-4)


@pytest.mark.parametrize("samples", [200, 500])
def test_a_sample_of_all_rows_is_all_rows(samples):
    x = rows(200, 6)
    assert uniformity(x, samples=samples) == uniformity(x)


@pytest.mark.parametrize("spread", [1e-3, 1])
def test_alignment_is_the_mean_over_the_pairs_of_each_class(block, spread):
    x = rows(120, 9, spread)
    labels = np.random.default_rng(2).choice(["a", "bb", "c", "alone"], 120, p=[0.6, 0.3, 0.1, 0])
    labels[5] = "alone"
    same = [labels[i] == labels[j] for i, j in itertools.combinations(range(120), 2)]
    wanted = squared_distances(x)[same].mean()
    assert alignment(x, labels) == pytest.approx(wanted, rel=1e-9)


def test_alignment_by_hand():
    x = [[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.5, 0.0]]
    assert alignment(x, [0, 1, 0, 1]) == pytest.approx(3)  # 4 and 2
    assert alignment(x, [7, 7, 7, 0]) == pytest.approx(8 / 3)  # 2, 4, 2
    assert alignment([[1], [2], [-1]], [0, 0, 0]) == pytest.approx(8 / 3)
    assert alignment(np.ones((6, 4)), [0, 0, 0, 1, 1, 1]) == pytest.approx(0, abs=1e-15)


def test_rows_of_zeros_are_left_out(block):
    x = rows(90, 6)
    labels = np.arange(90) % 3
    x[[0, 40, 41, 89]] = 0
    kept = x.any(axis=1)
    assert uniformity(x)[0] == pytest.approx(uniformity(x[kept])[0], rel=1e-6)
    assert alignment(x, labels) == pytest.approx(alignment(x[kept], labels[kept]), rel=1e-12)


def test_distances_are_never_held_at_once():
    x = rows(4000, 4).astype(np.float32)
    tracemalloc.start()
    try:
        uniformity(x)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * 4000**2 / 8


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((1, 3)), "uniformity of 1 rows that are not zero: give 2 or more"),
        (np.vstack([np.ones((1, 3)), np.zeros((4, 3))]), "uniformity of 1 rows"),
        (np.zeros((4, 3)), "uniformity of 0 rows"),
        (np.ones((0, 3)), "give real numbers"),
        (np.ones(3), "give real numbers"),
        (np.array([["a"], ["b"]]), "give real numbers"),
        (np.array([[1.0], [np.nan]]), "NaN or infinity, first in row 1"),
        (np.array([[1.0], [2.0], [np.inf]]), "NaN or infinity, first in row 2"),
    ],
)
def test_what_has_no_uniformity(x, message):
    with pytest.raises(UsageError, match=message):
        uniformity(x)


@pytest.mark.parametrize("samples", [0, -3, 1.5, True])
def test_samples_that_are_no_number_of_rows(samples):
    with pytest.raises(UsageError, match="samples is .*: give a whole number"):
        uniformity(rows(20, 3), samples=samples)


@pytest.mark.parametrize("samples", [1, 2])
def test_a_sample_too_small_for_an_error(samples):
    with pytest.raises(UsageError, match=f"uniformity of {samples} rows .*: give 3 or more"):
        uniformity(rows(20, 3), samples=samples)


@pytest.mark.parametrize(
    ("x", "labels", "message"),
    [
        (np.ones((3, 2)), [0, 1, 2], "no class has two rows"),
        (np.array([[1.0], [0.0], [2.0]]), [0, 0, 1], "no class has two rows"),
        (np.ones((3, 2)), [0, 1], r"labels are of the shape \(2,\): give one to each of 3 rows"),
        (np.ones((3, 2)), np.eye(3), r"shape \(3, 3\)"),
        (np.array([[1.0], [np.nan]]), [0, 0], "first in row 1"),
    ],
)
def test_what_has_no_alignment(x, labels, message):
    with pytest.raises(UsageError, match=message):
        alignment(x, labels)
