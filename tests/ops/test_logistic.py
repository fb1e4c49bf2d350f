"""Logistic regression against scikit-learn, closed forms and automatic differentiation."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from featkit.errors import UsageError
from featkit.ops import logistic, logistic_curvature, logistic_newton, logistic_rows
from featkit.ops.logistic import fit_logistic

PENALTIES = np.logspace(-6, 5, 12)


def overlapping(n=300, d=8, c=4, seed=0):
    """Rows whose classes cannot be told apart without error, of features that depend."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) @ (np.eye(d) + 0.4 * rng.standard_normal((d, d)))
    y = (x @ rng.standard_normal((d, c)) + 3 * rng.gumbel(size=(n, c))).argmax(1)
    return x, y


def several(n=300, d=8, k=3, seed=0):
    """Rows with k labels each, one of them rare."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    z = x @ rng.standard_normal((d, k)) + 2 * rng.logistic(size=(n, k)) - [0, 1, 5]
    return x, (z > 0).astype(int)


def objective(x, y, weights, biases, penalty):
    """Torch's own losses, in float64."""
    weights, biases = torch.as_tensor(weights).double(), torch.as_tensor(biases).double()
    logits = torch.as_tensor(x, dtype=torch.float64) @ weights.mT + biases
    target = torch.as_tensor(y)
    if target.ndim == 1:
        losses = functional.cross_entropy(logits, target, reduction="sum")
    else:
        losses = functional.binary_cross_entropy_with_logits(
            logits, target.double(), reduction="sum"
        )
    return losses + penalty / 2 * weights.square().sum()


def by_scikit_learn(x, y, penalty):
    """Return scikit-learn's weights and biases, the latter about their mean."""
    exact = {"C": 1 / penalty if penalty else np.inf, "tol": 1e-10, "max_iter": 20_000}
    if y.ndim == 2:
        models = [LogisticRegression(**exact).fit(x, column) for column in y.T]
        return np.vstack([m.coef_ for m in models]), np.concatenate([m.intercept_ for m in models])
    model = LogisticRegression(**exact).fit(x, y)
    return model.coef_, model.intercept_ - model.intercept_.mean()


@pytest.mark.parametrize("made", [overlapping, several])
@pytest.mark.parametrize(("n", "d"), [(300, 8), (2000, 3), (60, 59), (50, 80)])
def test_reaches_the_optimum_of_scikit_learn(made, n, d):
    x, y = made(n, d)
    k = y.max() + 1 if y.ndim == 1 else y.shape[1]
    penalties = PENALTIES if n > 5 * d else PENALTIES[4:]  # scikit-learn does not get there
    path = fit_logistic(x, y, k, penalties, tol=1e-13)
    assert path.converged.all()
    for i, penalty in enumerate(penalties):
        weights, biases = by_scikit_learn(x, y, penalty)
        scale = np.abs(weights).max()
        np.testing.assert_allclose(path.weights[i], weights, atol=1e-4 * scale)
        np.testing.assert_allclose(path.biases[i], biases, atol=1e-3)
        theirs = objective(x, y, weights, biases, penalty)
        assert path.objectives[i] <= theirs * (1 + 1e-10)


@pytest.mark.parametrize("made", [overlapping, several])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_gradient_is_zero_by_automatic_differentiation(made, dtype):
    x, y = made()
    x = x.astype(dtype)
    path = fit_logistic(x, y, 3 + (y.ndim == 1), [0, *PENALTIES], tol=1e-13, max_iter=12)
    for i, penalty in enumerate([0, *PENALTIES]):
        weights, biases = (
            torch.tensor(part[i], requires_grad=True) for part in (path.weights, path.biases)
        )
        value = objective(x, y, weights, biases, penalty)
        value.backward()
        np.testing.assert_allclose(
            path.objectives[i], value.item(), rtol=1e-12 if dtype is np.float64 else 1e-6
        )
        largest = 1e-4 if dtype is np.float64 else 2e-3
        assert weights.grad.abs().max() < largest
        assert biases.grad.abs().max() < largest


@pytest.mark.parametrize("weight", [0.01, 0.7, 3.0])
@pytest.mark.parametrize("labels", [[0, 1], [[0], [1]]])
def test_two_points_in_closed_form(weight, labels):
    """The derivative by w vanishes where λ is a known function of it."""
    a, b = 1.3, 2.5
    margin = 2 if np.ndim(labels) == 1 else 1
    penalty = 2 * a / weight / (1 + np.exp(margin * weight * a))
    path = fit_logistic(np.array([[b - a], [b + a]]), labels, margin, [penalty], tol=1e-14)
    np.testing.assert_allclose(path.weights[0, -1], [weight], rtol=1e-6)
    np.testing.assert_allclose(path.biases[0, -1], -b * weight, rtol=1e-6)


def test_without_penalty_shares_of_groups_are_matched():
    """Of indicators of groups, the maximum of the likelihood are the shares in each group."""
    counts = np.array([[5, 3, 2], [1, 8, 4], [2, 2, 9]])
    group, label = np.repeat(np.array(np.unravel_index(range(9), (3, 3))), counts.ravel(), axis=1)
    path = fit_logistic(np.eye(3)[group], label, 3, [0.0], tol=1e-14)
    found = (path.weights[0].T + path.biases[0]) - np.log(counts)
    np.testing.assert_allclose(found, found.mean(1, keepdims=True) * [1, 1, 1], atol=1e-5)
    assert path.converged.all()


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_a_large_penalty_leaves_the_shares_of_classes_and_the_first_step(scale):
    x, y = overlapping()
    x, penalty = x * scale, 1e8 * scale**2
    path = fit_logistic(x, y, 4, [penalty])
    shares = np.bincount(y) / len(y)
    wanted = np.log(shares) - np.log(shares).mean()
    np.testing.assert_allclose(path.biases[0], wanted, atol=1e-5)
    first = (np.eye(4)[y] - shares).T @ x / penalty
    np.testing.assert_allclose(path.weights[0], first, atol=1e-3 * np.abs(first).max())


def test_two_classes_have_two_rows_and_half_the_penalty_of_scikit_learn():
    x, y = overlapping(c=2)
    path = fit_logistic(x, y, 2, [3.0], tol=1e-13)
    wanted = LogisticRegression(C=2 / 3, tol=1e-10, max_iter=5000).fit(x, y)
    np.testing.assert_allclose(path.weights[0, 1] - path.weights[0, 0], wanted.coef_[0], rtol=1e-4)
    np.testing.assert_allclose(path.weights[0].sum(0), 0, atol=1e-12)
    np.testing.assert_allclose(np.diff(path.biases[0]), wanted.intercept_, rtol=1e-4)


@pytest.mark.parametrize("made", [overlapping, several])
def test_what_changes_nothing_and_what_changes_all_alike(made):
    x, y = made()
    k, some = 3 + (y.ndim == 1), [1e-3, 1.0, 100.0]
    plain = fit_logistic(x, y, k, some, tol=1e-12)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((8, 8)))[0]
    order = np.random.default_rng(2).permutation(len(x))
    close = {"rtol": 0, "atol": 2e-5}

    def same(found, weights=plain.weights, biases=plain.biases):
        np.testing.assert_allclose(found.weights, weights, **close)
        np.testing.assert_allclose(found.biases, biases, **close)

    same(fit_logistic(x @ turn, y, k, some, tol=1e-12), plain.weights @ turn)
    same(fit_logistic(x[order], y[order], k, some, tol=1e-12))
    same(fit_logistic(np.r_[x, x], np.r_[y, y], k, np.multiply(some, 2), tol=1e-12))
    moved = fit_logistic(x + 50, y, k, some, tol=1e-12)
    np.testing.assert_allclose(moved.weights, plain.weights, **close)
    np.testing.assert_allclose(moved.biases + 50 * plain.weights.sum(2), plain.biases, atol=1e-2)
    wider = fit_logistic(np.c_[x, np.full((len(x), 2), 0.1)], y, k, [0, *some], tol=1e-12)
    assert not wider.weights[..., -2:].any()
    np.testing.assert_allclose(wider.weights[1:, :, :-2], plain.weights, **close)
    twice = fit_logistic(np.c_[x, x], y, k, np.multiply(some, 2), tol=1e-12)
    same(twice, np.concatenate([plain.weights, plain.weights], 2) / 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_size_of_features_goes_into_the_penalty(scale, dtype):
    x, y = overlapping()
    some = np.array([1e-3, 1.0, 100.0])
    plain = fit_logistic(x, y, 4, some, tol=1e-10)
    scaled = fit_logistic((x * scale).astype(dtype), y, 4, some * scale**2, tol=1e-10)
    np.testing.assert_allclose(scaled.weights * scale, plain.weights, atol=3e-4)
    np.testing.assert_allclose(scaled.objectives, plain.objectives, rtol=1e-7)
    assert scaled.converged.all()


def tight(monkeypatch, block=logistic_rows.BLOCK, held=logistic_newton.HELD_FLOATS, **others):
    """Let blocks be small, or little memory be used."""
    monkeypatch.setattr(logistic_rows, "BLOCK", block)
    monkeypatch.setattr(logistic, "HELD_FLOATS", held)
    for name, value in others.items():
        where = logistic_curvature if hasattr(logistic_curvature, name) else logistic_newton
        monkeypatch.setattr(where, name, value)


@pytest.mark.parametrize("made", [overlapping, several])
@pytest.mark.parametrize(
    "limits",
    [
        {"block": 7},
        {"held": 200 * 9},  # second derivatives from 200 of 300 rows
        {"held": 200 * 9, "block": 64},
        {"LOGITS": 1},  # one problem after another
        {"EXACT_FLOATS": 0, "product_dtype": lambda: torch.bfloat16},
        {"EXACT_FLOATS": 0, "product_dtype": lambda: torch.float32},
        {"RESOLVED": 2.0},  # the basis in float64
    ],
)
def test_what_is_only_about_memory_and_speed(made, limits, monkeypatch):
    x, y = made()
    k = 3 + (y.ndim == 1)
    plain = fit_logistic(x, y, k, PENALTIES, tol=1e-11)
    tight(monkeypatch, **limits)
    found = fit_logistic(x, y, k, PENALTIES, tol=1e-11)
    np.testing.assert_allclose(found.weights, plain.weights, atol=1e-4)
    np.testing.assert_allclose(found.biases, plain.biases, atol=1e-4)
    assert found.converged.all()


def test_rows_so_many_that_they_are_held_as_the_processor_likes():
    x, y = overlapping(5000, 220, 3)
    x = x.astype(np.float32)
    path = fit_logistic(x, y, 3, [100.0, 1e4], tol=1e-9)
    for i, penalty in enumerate([100.0, 1e4]):
        weights, biases = by_scikit_learn(x.astype(np.float64), y, penalty)
        theirs = objective(x, y, weights, biases, penalty)
        ours = objective(x.astype(np.float64), y, path.weights[i], path.biases[i], penalty)
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
        np.testing.assert_allclose(path.objectives[i], theirs, rtol=3e-8)
        np.testing.assert_allclose(path.weights[i], weights, atol=1e-3 * np.abs(weights).max())


def test_rows_are_chosen_and_read_where_they_lie(tmp_path):
    x, y = overlapping(400)
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    rows = np.random.default_rng(0).permutation(400)[:300]
    wanted = fit_logistic(x[rows].astype(np.float32), y[rows], 4, [1.0], tol=1e-10)
    found = fit_logistic(mapped, y, 4, [1.0], rows=rows, tol=1e-10)
    np.testing.assert_allclose(found.weights, wanted.weights, atol=1e-5)
    every = fit_logistic(mapped, y, 4, [1.0], rows=np.arange(100, 300), tol=1e-10)
    part = fit_logistic(x[100:300].astype(np.float32), y[100:300], 4, [1.0], tol=1e-10)
    np.testing.assert_allclose(every.weights, part.weights, atol=1e-5)
    repeated = fit_logistic(mapped, y, 4, [1.0], rows=[0, 0, *range(2, 400)], tol=1e-10)
    again = np.r_[0, 0, 2:400]
    written = fit_logistic(x[again].astype(np.float32), y[again], 4, [1.0], tol=1e-10)
    np.testing.assert_allclose(repeated.weights, written.weights, atol=1e-5)


def test_rows_larger_than_memory_are_not_copied(tmp_path, monkeypatch):
    made = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (200_000, 64))
    rng = np.random.default_rng(0)
    made[:] = rng.random(made.shape, np.float32)
    y = (made[:, 0] + rng.random(len(made)) > 1).astype(int)
    made.flush()
    monkeypatch.setattr(logistic, "HELD_FLOATS", 64 * 5000)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    tracemalloc.start()
    path = fit_logistic(mapped, y, 2, [1.0], max_iter=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.weights[0, 1, 0] > 1
    assert peak < made.nbytes / 4  # labels and numbers of rows


def test_fewer_rows_are_held_than_there_are_weights():
    """Alone they would be told apart without error; small penalties still find the optimum.

    Newton's steps by these rows alone take more than 100 passes over all rows.
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, 40)).astype(np.float32)
    chances = x @ (0.6 * rng.standard_normal((40, 5))) + rng.gumbel(size=(len(x), 5))
    y, held = chances.argmax(1), 150
    found = fit_logistic(x, y, 5, [1.0, 0.01], max_memory=held * 41 * 40 / 1e9, max_iter=60)
    assert found.converged.all()
    for i, penalty in enumerate((1.0, 0.01)):
        wanted = objective(x, y, *by_scikit_learn(x, y, penalty), penalty)
        ours = objective(x, y, found.weights[i], found.biases[i], penalty)
        assert ours < wanted * (1 + 3e-5)


def test_numbers_of_any_kind():
    x, y = overlapping()
    x = x.round(1)
    for dtype in (np.float16, np.float32, np.int16, np.bool_):
        given = (x * 4).astype(dtype)
        before = given.copy()
        found = fit_logistic(given, y, 4, [1.0], tol=1e-9)
        wanted = fit_logistic(given.astype(np.float64), y, 4, [1.0], tol=1e-9)
        np.testing.assert_allclose(found.weights, wanted.weights, atol=2e-4)
        np.testing.assert_array_equal(given, before)


def test_each_penalty_alone_as_among_others():
    x, y = overlapping()
    order = [1.0, 1e-6, 0.0, 1e5, 1.0, 0.9, 1e-2, 0.95]
    path = fit_logistic(x, y, 4, order, tol=1e-12)
    for i, penalty in enumerate(order):
        alone = fit_logistic(x, y, 4, [penalty], tol=1e-12)
        np.testing.assert_allclose(path.weights[i], alone.weights[0], atol=1e-5)
        np.testing.assert_allclose(path.objectives[i], alone.objectives[0], rtol=1e-9)


def test_a_dense_path_equals_single_fits():
    """Most of these start from interpolation."""
    x, y = overlapping()
    dense = np.logspace(-4, 3, 60)
    path = fit_logistic(x, y, 4, dense, tol=1e-12)
    for i in range(0, 60, 7):
        alone = fit_logistic(x, y, 4, dense[[i]], tol=1e-12)
        np.testing.assert_allclose(path.weights[i], alone.weights[0], atol=1e-5)
    assert (np.diff(path.objectives) > 0).all()


def test_tolerance_is_the_share_above_the_minimum():
    x, y = overlapping(500, 40, 5)
    best = fit_logistic(x, y, 5, PENALTIES, tol=1e-13).objectives
    for tol in (1e-2, 1e-4, 1e-6, 1e-8):
        path = fit_logistic(x, y, 5, PENALTIES, tol=tol)
        assert (path.objectives / best - 1).max() < 3 * tol
        assert path.gradients.max() < 5 * tol**0.5
        assert path.converged.all()


def test_gradients_tell_how_far_the_minimum_is():
    x, y = overlapping(2000, 20, 3)
    best = fit_logistic(x, y, 3, [1.0], tol=1e-13)
    for size in (1e-2, 1e-1):
        near = best.weights * (1 + size), best.biases
        moved = fit_logistic(x, y, 3, [1.0], start=near, tol=0.999)
        excess = moved.objectives[0] / best.objectives[0] - 1
        assert excess > 1e-6
        assert 0.1 < moved.gradients[0] ** 2 / 2 / excess < 10


def test_a_start_is_a_start_and_not_the_end():
    x, y = overlapping()
    some = [1.0, 1e-3, 1.0]
    wanted = fit_logistic(x, y, 4, some, tol=1e-12)
    near = fit_logistic(
        x + 3,
        y,
        4,
        some,
        start=(wanted.weights, wanted.biases - 3 * wanted.weights.sum(2)),
        tol=1e-6,
    )
    assert near.iterations.max() <= 1
    np.testing.assert_allclose(near.weights, wanted.weights, atol=1e-4)
    rng = np.random.default_rng(0)
    far = 5 * rng.standard_normal((3, 4, 8)), rng.standard_normal((3, 4))
    found = fit_logistic(x, y, 4, some, start=far, tol=1e-12)
    np.testing.assert_allclose(found.weights, wanted.weights, atol=1e-5)
    assert found.iterations.min() > 1
    assert found.converged.all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_that_a_hyperplane_parts(dtype):
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = (np.eye(3)[y] + 0.1 * rng.standard_normal((90, 3))).astype(dtype)
    path = fit_logistic(x, y, 3, [0.0, 1e-6, 1.0])
    assert not path.converged[0]
    assert path.objectives[0] <= 90e-9
    assert path.converged[1:].all()
    for weights, biases in zip(path.weights, path.biases, strict=True):
        np.testing.assert_array_equal((x @ weights.T + biases).argmax(1), y)
    theirs = objective(x, y, *by_scikit_learn(x, y, 1e-6), 1e-6)
    assert path.objectives[1] <= theirs * (1 + 1e-6)
    wide, labels = rng.standard_normal((20, 50)).astype(dtype), np.arange(20) % 4
    path = fit_logistic(wide, labels, 4, [0.0, 1e-6])
    assert path.objectives[0] <= 20e-9
    span = wide.astype(np.float64) - wide.mean(0, np.float64)
    inside = path.weights @ np.linalg.pinv(span, 1e-9) @ span
    np.testing.assert_allclose(path.weights, inside, atol=1e-4 * np.abs(inside).max())


def test_what_was_not_reached_is_said():
    x, y = overlapping(300, 30)
    path = fit_logistic(x, y, 4, [1e-6, 1e4], tol=1e-9, max_iter=1)
    assert not path.converged.any()
    graded = x * np.logspace(-4, 4, 30)
    assert not fit_logistic(graded.astype(np.float32), y, 4, [1e-6]).converged.any()
    assert fit_logistic(graded, y, 4, [1e-6]).converged.all()


def test_features_that_depend_on_each_other_keep_small_weights():
    x, y = overlapping()
    more = np.c_[x, x[:, :4] + x[:, 4:], 3 * x[:, :2]]
    plain = fit_logistic(x, y, 4, [0.0], tol=1e-10)
    for dtype in (np.float32, np.float64):
        path = fit_logistic(more.astype(dtype), y, 4, [0.0, 1e-6])
        np.testing.assert_allclose(path.objectives, plain.objectives[0], rtol=1e-6)
        assert np.abs(path.weights).max() < 2 * np.abs(plain.weights).max()
        assert path.converged.all()


def test_nothing_to_learn_from():
    y = np.arange(30) % 3
    path = fit_logistic(np.ones((30, 5)), y, 3, [0.0, 1.0])
    assert not path.weights.any()
    np.testing.assert_allclose(path.objectives, 30 * np.log(3))
    assert path.converged.all()
    path = fit_logistic(np.ones((3, 5)), y[:3], 3, [1.0])
    np.testing.assert_allclose(path.objectives, 3 * np.log(3))


def test_classes_and_labels_that_no_row_has():
    x, y = overlapping(c=2)
    path = fit_logistic(x, y, 3, [1.0], tol=1e-10)
    two = fit_logistic(x, y, 2, [1.0], tol=1e-10)
    np.testing.assert_allclose(path.weights[0, :2], two.weights[0], atol=1e-3)
    assert (path.biases[0, 2] + 5 < path.biases[0, :2]).all()
    never = fit_logistic(x, np.zeros((300, 2), int), 2, [1.0])
    assert (never.biases < -10).all()
    assert not never.converged.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.ones(5)}, r"features are float64 \(5,\)"),
        ({"features": np.ones((5, 0))}, r"features are float64 \(5, 0\)"),
        ({"features": np.full((5, 2), "a")}, "features are <U1"),
        (
            {"features": np.array([[1.0, 2], [np.nan, 1], [0, 0], [np.inf, -np.inf], [1, 1]])},
            "2 of 5 rows of features hold NaN, infinity or numbers above 1e.15, the first is row 1",
        ),
        ({"features": np.full((5, 2), 1e16)}, "5 of 5 rows of features hold"),
        ({"targets": [0, 1, 0, 1]}, r"targets are int64 \(4,\): give 5 classes"),
        ({"targets": ["a"] * 5}, "targets are <U1"),
        ({"targets": [0, 1, 2, 0, 1]}, "whole numbers from 0 to n_classes - 1 = 1"),
        ({"targets": [0, 1, -1, 0, 1]}, "whole numbers from 0"),
        ({"targets": [0, 1, 0.5, 0, 1]}, "whole numbers from 0"),
        ({"targets": np.eye(5)}, r"targets of shape \(5, 5\) must be 0 or 1 in 2 columns"),
        ({"targets": 2 * np.eye(5)[:, :2]}, "must be 0 or 1"),
        ({"n_classes": 0}, "n_classes is 0"),
        ({"n_classes": 1, "targets": np.zeros(5, int)}, "2 or more classes"),
        ({"penalties": []}, "penalties are"),
        ({"penalties": [-1.0]}, "penalties are"),
        ({"penalties": [np.nan]}, "penalties are"),
        ({"penalties": [np.inf]}, "penalties are"),
        ({"penalties": ["one"]}, "penalties are"),
        ({"rows": []}, "rows are"),
        ({"rows": [0, 5]}, "rows go from 0 to 5: give some of 0 to 4"),
        ({"rows": [-1]}, "rows go from -1"),
        ({"rows": [0.5]}, "rows are float64"),
        ({"start": (np.zeros((1, 2, 3)), np.zeros((1, 2)))}, r"start is of shapes \(1, 2, 3\)"),
        ({"start": (np.full((1, 2, 2), np.nan), np.zeros((1, 2)))}, "start holds"),
        ({"tol": 0}, "tol is 0"),
        ({"tol": np.nan}, "tol is nan"),
        ({"max_iter": 0}, "max_iter is 0"),
    ],
)
def test_what_cannot_be_used(changes, message):
    given = {
        "features": np.arange(10.0).reshape(5, 2),
        "targets": [0, 1, 0, 1, 0],
        "n_classes": 2,
        "penalties": [1.0],
        **changes,
    }
    with pytest.raises(UsageError, match=message) as error:
        fit_logistic(**given)
    assert "\n" not in str(error.value)
