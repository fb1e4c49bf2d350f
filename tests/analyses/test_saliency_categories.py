"""Leaves whose category is known by how they are made."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from featkit.analyses.saliency.categories import (
    LeafMeasures,
    class_selectivity,
    half_share,
    measure_leaf,
)

CLASSES, EACH, SIDE = 5, 12, 16
LABELS = np.repeat(np.arange(CLASSES), EACH)
N = len(LABELS)
RNG = np.random.default_rng(0)
CODED = np.eye(CLASSES)[LABELS] + 0.2 * RNG.standard_normal((N, CLASSES))
WEAK = 0.9 * np.eye(8)[LABELS] + RNG.standard_normal((N, 8))
NOISE = RNG.standard_normal((N, 8))


def points() -> NDArray[np.float64]:
    maps = np.zeros((N, SIDE, SIDE))
    maps[np.arange(N), RNG.integers(SIDE, size=N), RNG.integers(SIDE, size=N)] = 7.0
    return maps


FLAT, NOWHERE = np.full((N, SIDE, SIDE), 0.3), np.zeros((N, SIDE, SIDE))


@pytest.mark.parametrize(
    ("maps", "vectors", "expected"),
    [
        (points(), CODED, "consistent specialist"),
        (points(), WEAK, "inconsistent specialist"),
        (FLAT, CODED, "generalist"),
        (FLAT, WEAK, "generalist"),
        (points(), NOISE, "failed"),
        (FLAT, NOISE, "failed"),
        (NOWHERE, CODED, "failed"),
        (FLAT, np.ones((N, 4)), "failed"),
    ],
)
def test_categories(maps: NDArray[np.float64], vectors: NDArray[np.float64], expected: str) -> None:
    leaf = measure_leaf(half_share(maps), vectors, LABELS)
    assert leaf.category(1 / CLASSES) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "consistent specialist"),
        ({"concentration": 0.1501}, "generalist"),
        ({"selectivity": 0.1399}, "inconsistent specialist"),
        ({"low": 0.1}, "failed"),
        ({"dark": 0.5}, "consistent specialist"),
        ({"dark": 0.51}, "failed"),
    ],
)
def test_borders(change: dict[str, float], expected: str) -> None:
    border = {"concentration": 0.15, "dark": 0.0, "selectivity": 0.14, "accuracy": 0.2}
    leaf = LeafMeasures(**{**border, "low": 0.1001, "high": 0.3, **change})
    assert leaf.category(0.1) == expected


def test_half_share_of_known_maps() -> None:
    maps = np.array([[[4.0, 0], [0, 0]], [[1, 1], [1, 1]], [[3, 1], [1, 1]], [[0, 0], [0, 0]]])
    np.testing.assert_array_equal(half_share(maps), [0.25, 0.5, 0.25, np.nan])
    np.testing.assert_array_equal(half_share(1e-30 * maps), half_share(maps))


@pytest.mark.parametrize(
    ("draw", "share"), [(RNG.standard_normal, 0.239), (RNG.standard_exponential, 0.187)]
)
def test_half_share_of_noise_is_above_the_border(draw: object, share: float) -> None:
    """Half of E|g| lies above t: exp(-t²/2) = 1/2 (Gaussian), (1 + t) exp(-t) = 1/2 (Laplacian)."""
    maps = np.abs(draw((4, 200, 200)))  # type: ignore[operator]
    assert half_share(maps) == pytest.approx(np.full(4, share), abs=0.005)


def test_selectivity_has_no_bias_with_few_images() -> None:
    labels = np.repeat(np.arange(10), 3)
    found = [class_selectivity(RNG.standard_normal((30, 6)), labels) for _ in range(400)]
    assert np.mean(found) == pytest.approx(0, abs=0.01)  # η² would be 9/29 = 0.31


def test_selectivity_of_one_dimension_is_that_of_the_analysis_of_variance() -> None:
    from scipy.stats import f_oneway

    angle = 0.3 * LABELS + 0.4 * RNG.standard_normal(N)
    vectors = np.stack([np.cos(angle), np.sin(angle)], 1)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    # of a single coordinate, F = (S_between / (k - 1)) / (S_within / (n - k))
    plain = np.stack([unit[:, 0], np.sqrt(1 - unit[:, 0] ** 2)], 1)
    parts = []
    for column in plain.T:
        f = f_oneway(*[column[c == LABELS] for c in range(CLASSES)]).statistic
        total = ((column - column.mean()) ** 2).sum()
        parts.append((total / (1 + (CLASSES - 1) * f / (N - CLASSES)), total))
    within, total = np.sum(parts, 0)
    expected = 1 - (within / (N - CLASSES)) / (total / (N - 1))
    assert class_selectivity(plain, LABELS) == pytest.approx(expected, abs=1e-5)


def test_lengths_and_order_do_not_matter() -> None:
    order = RNG.permutation(N)
    scaled = CODED * RNG.uniform(0.5, 2, (N, 1))
    first = measure_leaf(half_share(FLAT), CODED, LABELS)
    second = measure_leaf(half_share(FLAT), scaled[order], LABELS[order])
    assert second.selectivity == pytest.approx(first.selectivity, abs=1e-5)
    assert second.accuracy == pytest.approx(first.accuracy, abs=2 / N)
