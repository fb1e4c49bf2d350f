"""Logistic regression against scikit-learn, closed forms and automatic differentiation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import featkit.ops.logistic_rows
from featkit.errors import UsageError
from featkit.ops.logistic import LogisticPath, fit_logistic

PENALTIES = np.logspace(-6, 5, 12).tolist()


def blobs(n: int = 300, d: int = 6, c: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussians that overlap, far from the origin."""
    rng = np.random.default_rng(seed)
    y = rng.integers(c, size=n)
    return (rng.standard_normal((c, d))[y] + rng.standard_normal((n, d)) + 5).astype(np.float32), y


def peer(x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's weights and biases; of two classes a row each, as ours."""
    model = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=100_000)
    model.fit(x.astype(np.float64), y)
    return model.coef_, model.intercept_


def objective(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, biases: np.ndarray, penalty: float
) -> tuple[float, np.ndarray]:
    """The objective and the length of its gradient, by torch in float64."""
    w = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
    b = torch.tensor(biases, dtype=torch.float64, requires_grad=True)
    logits = torch.from_numpy(x.astype(np.float64)) @ w.T + b
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y), reduction="sum")
    total = loss + penalty / 2 * w.square().sum()
    total.backward()
    assert w.grad is not None
    return float(total.detach()), w.grad.numpy()


def check_minima(x: np.ndarray, y: np.ndarray, path: LogisticPath, penalties: list[float]) -> None:
    """Hold objectives and predictions of each penalty against scikit-learn's."""
    for i, penalty in enumerate(penalties):
        ours, _ = objective(x, y, path.weights[i], path.biases[i], penalty)
        wanted, _ = objective(x, y, *peer(x, y, penalty), penalty)
        assert ours <= wanted * (1 + 3e-6) + 1e-9
        assert path.objectives[i] == pytest.approx(ours, rel=1e-5)


@pytest.mark.parametrize("shape", [(300, 6, 4), (40, 90, 3), (500, 2, 5)])
def test_objectives_are_scikit_learns_at_every_penalty(shape: tuple[int, int, int]) -> None:
    x, y = blobs(*shape)
    path = fit_logistic(x, y, shape[2], PENALTIES)
    assert path.weights.shape == (len(PENALTIES), shape[2], shape[1])
    check_minima(x, y, path, PENALTIES)


def test_coefficients_are_scikit_learns() -> None:
    x, y = blobs()
    path = fit_logistic(x, y, 4, [0.1, 10.0, 1e3], tol=1e-9)
    for i, penalty in enumerate([0.1, 10.0, 1e3]):
        weights, biases = peer(x, y, penalty)
        np.testing.assert_allclose(path.weights[i], weights, rtol=2e-3, atol=2e-4)
        shift = path.biases[i] - biases
        np.testing.assert_allclose(shift - shift.mean(), 0, atol=5e-3)


def test_digits_that_no_error_tells_apart() -> None:
    data = load_digits()
    x, y = (data.data[:400] / 16).astype(np.float32), data.target[:400]
    penalties = [1e-4, 1.0, 100.0]
    check_minima(x, y, fit_logistic(x, y, 10, penalties), penalties)


def test_a_large_penalty_leaves_the_shares_of_the_classes() -> None:
    x, y = blobs(200, 5, 3)
    path = fit_logistic(x, y, 3, [1e12])
    np.testing.assert_allclose(path.weights, 0, atol=1e-8)
    logs = np.log(np.bincount(y) / len(y))
    np.testing.assert_allclose(path.biases[0], logs - logs.mean(), atol=1e-3)
    entropy = -(np.bincount(y) * np.log(np.bincount(y) / len(y))).sum()
    assert path.objectives[0] == pytest.approx(entropy, rel=1e-6)


def test_two_points_have_a_closed_form() -> None:
    """At ±1 the optimum is w = (-v, v) with v λ = 2 σ(-2 v), b = 0."""
    x, y = np.array([[-1.0], [1.0]]), np.array([0, 1])
    path = fit_logistic(x, y, 2, [0.5], tol=1e-12)
    v = path.weights[0, 1, 0]
    assert path.weights[0, 0, 0] == pytest.approx(-v)
    assert v * 0.5 == pytest.approx(2 / (1 + math.exp(2 * v)), rel=1e-5)
    np.testing.assert_allclose(path.biases, 0, atol=1e-6)


def test_the_gradient_vanishes() -> None:
    x, y = blobs(400, 10, 3)
    path = fit_logistic(x, y, 3, [1.0], tol=1e-10)
    total, gradient = objective(x, y, path.weights[0], path.biases[0], 1.0)
    assert np.abs(gradient).max() < 1e-4 * total
    assert path.converged.all()


def test_every_penalty_of_columns_is_a_problem_of_its_own() -> None:
    x, y = blobs()
    columns = np.stack([y == 0, y > 1], axis=1).astype(np.uint8)
    path = fit_logistic(x, columns, 2, [0.01, 10.0], tol=1e-9)
    for i, penalty in enumerate([0.01, 10.0]):
        for k in range(2):
            model = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=100_000)
            model.fit(x.astype(np.float64), columns[:, k])
            np.testing.assert_allclose(path.weights[i, k], model.coef_[0], rtol=5e-3, atol=5e-4)
            assert path.biases[i, k] == pytest.approx(model.intercept_[0], rel=1e-2, abs=1e-2)


def test_without_a_penalty() -> None:
    x, y = blobs(2000, 3, 2)
    path = fit_logistic(x, y, 2, [0.0], tol=1e-9)
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=100_000).fit(x.astype(float), y)
    difference = path.weights[0, 1] - path.weights[0, 0]
    np.testing.assert_allclose(difference, model.coef_[0], rtol=2e-3)
    assert path.converged[0]
    apart = fit_logistic(np.array([[-1.0], [-2.0], [1.0], [2.0]]), np.array([0, 0, 1, 1]), 2, [0.0])
    assert not apart.converged[0]
    assert apart.objectives[0] < 1e-6
    assert np.isfinite(apart.weights).all()


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_features_of_any_scale(scale: float) -> None:
    x, y = blobs()
    path = fit_logistic((x * scale).astype(np.float32), y, 4, [scale**2])
    plain = fit_logistic(x, y, 4, [1.0])
    assert path.objectives[0] == pytest.approx(plain.objectives[0], rel=1e-4)
    np.testing.assert_allclose(path.weights * scale, plain.weights, rtol=2e-2, atol=2e-3)


def test_what_leaves_the_minimum_where_it_is() -> None:
    x, y = blobs()
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    order = rng.permutation(len(x))
    plain = fit_logistic(x, y, 4, [1.0], tol=1e-10)
    turned = fit_logistic(x.astype(np.float64) @ turn, y, 4, [1.0], tol=1e-10)
    np.testing.assert_allclose(turned.weights @ turn.T, plain.weights, atol=2e-3)
    moved = fit_logistic(x + np.float32(100), y, 4, [1.0], tol=1e-10)
    np.testing.assert_allclose(moved.weights, plain.weights, atol=5e-3)
    mixed = fit_logistic(x[order], y[order], 4, [1.0], tol=1e-10)
    np.testing.assert_allclose(mixed.weights, plain.weights, atol=2e-3)
    twice = fit_logistic(np.tile(x, (2, 1)), np.tile(y, 2), 4, [2.0], tol=1e-10)
    np.testing.assert_allclose(twice.weights, plain.weights, atol=2e-3)
    assert twice.objectives[0] == pytest.approx(2 * plain.objectives[0], rel=1e-6)
    still = np.hstack([x, np.full((len(x), 2), 7, np.float32)])
    wider = fit_logistic(still, y, 4, [1.0], tol=1e-10)
    np.testing.assert_allclose(wider.weights[..., 6:], 0, atol=1e-5)
    np.testing.assert_allclose(wider.weights[..., :6], plain.weights, atol=2e-3)


def test_penalties_do_not_depend_on_the_others() -> None:
    x, y = blobs()
    together = fit_logistic(x, y, 4, [1e3, 1e-3, 1.0, 1.0])
    for i, penalty in enumerate([1e3, 1e-3, 1.0, 1.0]):
        alone = fit_logistic(x, y, 4, [penalty])
        assert together.objectives[i] == pytest.approx(alone.objectives[0], rel=3e-6)
    np.testing.assert_array_equal(together.weights[2], together.weights[3])


def test_some_rows_of_a_mapped_file(tmp_path: Path) -> None:
    x, y = blobs(500)
    np.save(tmp_path / "x.npy", x)
    rows = np.sort(np.random.default_rng(0).permutation(500)[:350])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    some = fit_logistic(mapped, y, 4, [0.1, 10.0], rows=rows)
    copied = fit_logistic(x[rows], y[rows], 4, [0.1, 10.0])
    np.testing.assert_allclose(some.objectives, copied.objectives, rtol=1e-6)
    np.testing.assert_allclose(some.weights, copied.weights, atol=2e-3)


def test_a_start_saves_steps() -> None:
    x, y = blobs()
    found = fit_logistic(x, y, 4, [0.5])
    again = fit_logistic(x, y, 4, [0.5], start=(found.weights, found.biases))
    assert again.iterations[0] <= 2
    assert again.objectives[0] == pytest.approx(found.objectives[0], rel=3e-6)
    with pytest.raises(UsageError, match="start is of shapes"):
        fit_logistic(x, y, 4, [0.5, 1.0], start=(found.weights, found.biases))


X, Y = blobs(30)


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ((X[0], Y, 4, [1.0]), {}),
        ((X, Y[:9], 4, [1.0]), {}),
        ((X, Y, 3, [1.0]), {}),
        ((X, Y - 1, 4, [1.0]), {}),
        ((X, Y, 4, []), {}),
        ((X, Y, 4, [-1.0]), {}),
        ((X, Y, 4, [math.nan]), {}),
        ((np.where(X[3, 2] == X, np.nan, X), Y, 4, [1.0]), {}),
        ((X, np.full((30, 2), 3), 2, [1.0]), {}),
        ((X, Y, 4, [1.0]), {"tol": 0.0}),
        ((X, Y, 4, [1.0]), {"max_iter": 0}),
        ((X, Y, 4, [1.0]), {"rows": np.array([40])}),
        ((X[:0], Y[:0], 4, [1.0]), {}),
        ((X.astype(str), Y, 4, [1.0]), {}),
    ],
)
def test_what_cannot_be_fitted(given: tuple[Any, ...], more: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as error:
        fit_logistic(*given, **more)
    assert "\n" not in str(error.value)


def test_blocks_give_what_one_pass_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = blobs(700)
    whole = fit_logistic(x, y, 4, [0.01, 1.0])
    monkeypatch.setattr(featkit.ops.logistic_rows, "BLOCK", 64)
    parts = fit_logistic(x, y, 4, [0.01, 1.0])
    np.testing.assert_allclose(parts.objectives, whole.objectives, rtol=3e-6)
