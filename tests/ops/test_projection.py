"""Points of t-SNE against scikit-learn's; those of UMAP are in the tests of the analysis.

UMAP compiles for half a minute in every process that calls it, so that one test does.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from featkit.errors import MissingExtraError, UsageError
from featkit.ops.projection import load_umap, project, projectable_rows

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((3, 70))[np.arange(60) % 3] * 3 + RNG.standard_normal((60, 70))).astype(
    np.float32
)


def by_scikit_learn(x: np.ndarray, **options: Any) -> np.ndarray:
    with threadpool_limits(1, user_api="openmp"):
        return TSNE(random_state=4, **options).fit_transform(x)


def test_tsne_is_scikit_learns_of_the_first_50_components() -> None:
    narrow = X[:, :50]
    points = project(narrow, "tsne", perplexity=7, seed=4)
    assert (points.shape, points.dtype) == ((60, 2), np.float32)
    np.testing.assert_array_equal(points, by_scikit_learn(narrow, perplexity=7))
    few = PCA(50, random_state=4).fit_transform(X)
    np.testing.assert_array_equal(
        project(X.astype(np.float64), "tsne", perplexity=7, seed=4),
        by_scikit_learn(few, perplexity=7),
    )


def test_rows_of_another_length_are_the_same_by_cosine() -> None:
    scales = 2.0 ** RNG.integers(-3, 4, (60, 1))  # without rounding
    one, other = (
        project(x, "tsne", perplexity=7, metric="cosine") for x in (X, (X * scales).astype("f4"))
    )
    np.testing.assert_array_equal(one, other)


def test_opposite_rows_and_copies_have_their_place() -> None:
    halves = np.repeat(np.eye(2, 8), 20, axis=0)
    x = np.concatenate([halves, -halves])
    for metric in ("euclidean", "cosine"):
        points = project(x, "tsne", perplexity=5, metric=metric)  # type: ignore[arg-type]
        assert np.isfinite(points).all()
        middles = points.reshape(4, 20, 2).mean(1)
        nearest = np.linalg.norm(points[:, None] - middles, axis=2).argmin(1)
        np.testing.assert_array_equal(nearest, np.repeat(np.arange(4), 20))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "pca"}, "method 'pca': use umap or tsne"),
        ({"neighbors": 1}, "neighbors is 1: give a whole number, at least 2"),
        ({"min_dist": 1.5}, "min_dist is 1.5: give a number from 0 to 1"),
        ({"min_dist": float("nan")}, "min_dist is nan"),
        ({"perplexity": 0.5}, "perplexity is 0.5: give a number, at least 1"),
        ({"perplexity": float("inf")}, "perplexity is inf"),
        ({"metric": "manhattan"}, "metric 'manhattan': use euclidean or cosine"),
        ({"seed": -1}, r"seed is -1: give a whole number from 0 to 2\^32 - 1"),
    ],
)
def test_options_that_mean_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        project(X, **options)


HOLE, LARGE = X.copy(), X.copy()
HOLE[3, 1], LARGE[4, 2] = np.nan, 1e20


@pytest.mark.parametrize(
    ("x", "method", "message"),
    [
        (X[:15], "umap", "15 rows, and neighbors 15 takes 16 or more: lower it to 14, or give"),
        (X[:3], "umap", "3 rows, and neighbors 15 takes 16 or more: give more"),
        (X, "tsne", "60 rows, and perplexity 30 takes 91 or more: lower it to 19, or give more"),
        (X[:3], "tsne", "3 rows, and perplexity 30 takes 91 or more: give more"),
        (X[:, :1], "umap", "rows have one number each: there is nothing to project"),
        (HOLE, "umap", "rows hold NaN, infinity or numbers above 1e15: leave those out"),
        (LARGE, "umap", "rows hold NaN"),
        (LARGE.astype(np.float64) * 1e30, "umap", "rows hold NaN"),
        (np.full((20, 3), 0.1), "umap", "all 20 rows are the same: there is nothing to project"),
        (np.zeros((20, 3)), "umap", "all 20 rows are the same"),
        (X[0], "umap", r"features are float32 \(70,\): give real numbers in the shape"),
    ],
)
def test_rows_that_cannot_be_projected(x: np.ndarray, method: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        project(x, method)


def test_rows_of_one_direction_are_the_same_by_cosine() -> None:
    x = np.arange(1, 21)[:, None] * np.array([[0.1, 0.7, 0.3]])
    with pytest.raises(UsageError, match="all 20 rows are the same"):
        project(x, metric="cosine")
    rows = projectable_rows(x, "umap", neighbors=15, perplexity=30, metric="euclidean")
    np.testing.assert_array_equal(rows, x.astype(np.float32))


def test_without_umap_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r'pip install "featkit\[explain\]", or use --met'):
        load_umap()
    with pytest.raises(MissingExtraError):
        project(X)
