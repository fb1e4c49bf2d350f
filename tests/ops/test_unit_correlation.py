"""Correlation and evenness of units against NumPy and closed forms."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from scipy.linalg import hadamard

from featkit.errors import UsageError
from featkit.ops import unit_correlation as module
from featkit.ops.unit_correlation import (
    UnitCorrelation,
    correlate_units,
    mean_absolute_correlation,
    spectral_evenness,
)


@pytest.fixture(params=["whole", "blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "blocks":
        monkeypatch.setattr(module, "_COLUMNS", 3)
        monkeypatch.setattr(module, "_FLOATS", 1)


def numpys(x: np.ndarray) -> tuple[float, float]:
    c = np.abs(np.corrcoef(x, rowvar=False))
    shares = np.linalg.eigvalsh(np.cov(x, rowvar=False))[::-1][: min(len(c), len(x) - 1)]
    shares = shares / shares.sum()
    entropy = -(shares * np.log(shares)).sum()
    return (c.sum() - len(c)) / (c.size - len(c)), entropy / math.log(len(shares))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(50, 8), (6, 20), (8, 8), (9, 2)])
def test_both_are_numpys(shape: tuple[int, int], order: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape) ** 2 * np.arange(1, shape[1] + 1) + 3
    x = np.array(x[np.argsort(x[:, 0])], order=order)  # type: ignore[call-overload] # means drift
    for columns, rel in ((x, 1e-12), (x.astype(np.float32), 1e-5)):
        found = correlate_units(columns)
        assert (found.mean_absolute, found.evenness) == pytest.approx(numpys(x), rel=rel)
        assert mean_absolute_correlation(columns) == found.mean_absolute
        assert spectral_evenness(columns) == found.evenness
    whole = (100 * x).astype(np.int32)
    found = correlate_units(whole)
    assert (found.mean_absolute, found.evenness) == pytest.approx(numpys(whole), rel=1e-12)


def test_a_mean_far_from_zero_takes_no_digits() -> None:
    """Rows that jump by 1e6 of their deviation: a covariance about 0 would have no digits left."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(70_000, 3)) @ [[1.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 1.0]] + 1e6
    found = correlate_units(x)
    assert (found.mean_absolute, found.evenness) == pytest.approx(numpys(x - 1e6), rel=1e-8)


@pytest.mark.parametrize(("shape", "most"), [((200_000, 8), 4.0), ((40, 9000), 1.5)])
def test_memory_is_that_of_blocks(shape: tuple[int, int], most: float) -> None:
    """As float64, the features are 12 and 3 MiB, all correlations of the latter 600 MiB."""
    x = np.random.default_rng(0).random(shape, np.float32)
    tracemalloc.start()
    correlate_units(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    blocks = 2 * module._COLUMNS**2 * 8 if shape[1] > module._COLUMNS else 0
    assert peak < most * 2**20 + blocks


def test_the_covariance_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    scatter = module._scatter
    monkeypatch.setattr(module, "_scatter", lambda x: made.append(x.shape) or scatter(x))
    correlate_units(np.random.default_rng(0).random((30, 4)))
    assert made == [(30, 4)]


def test_constant_units_have_no_correlation() -> None:
    x = np.random.default_rng(0).random((40, 5)).astype(np.float32)
    still = np.full((40, 2), 1e3 / 3, np.float32)
    wanted = mean_absolute_correlation(x)
    assert mean_absolute_correlation(np.hstack([still, x])) == pytest.approx(wanted, rel=1e-6)
    assert math.isnan(mean_absolute_correlation(np.hstack([still, x[:, :1]])))
    wide = np.hstack([still, x])[:4]
    assert mean_absolute_correlation(wide) == pytest.approx(
        mean_absolute_correlation(x[:4]), rel=1e-6
    )


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("n", [4, 300])
@pytest.mark.parametrize(("deviation", "varies"), [(0.8e-6, False), (1.3e-6, True)])
def test_columns_that_vary_by_a_millionth_of_their_largest_value_are_constant(
    n: int, deviation: float, varies: bool
) -> None:
    signs = np.where(np.arange(n) % 2, 1.0, -1.0)
    for largest in (7.0, -7.0):
        x = np.stack([largest * (1 + deviation * signs), np.arange(n), -np.arange(n)], axis=1)
        assert (mean_absolute_correlation(x) < 0.99) == varies
        wide = np.hstack([x, x[:, :1].repeat(n, axis=1)])
        assert (mean_absolute_correlation(wide) != 1) == varies


def test_opposite_units_are_fully_correlated() -> None:
    x = np.arange(9.0)
    assert mean_absolute_correlation(np.stack([x, -2 * x + 1, 3 * x], axis=1)) == 1


def test_evenness_of_known_spectra() -> None:
    orthogonal = hadamard(16)[:, 1:9].astype(float)  # columns of mean 0 and equal length
    assert spectral_evenness(orthogonal) == pytest.approx(1)
    stretched = orthogonal[:, :2] * np.sqrt([3.0, 1.0])  # eigenvalues 3 : 1
    wanted = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)
    assert spectral_evenness(stretched) == pytest.approx(wanted)
    one = np.outer(np.arange(8.0), [1.0, 2.0, -1.0])
    assert spectral_evenness(one) == pytest.approx(0, abs=1e-6)
    simplex = np.eye(5)  # four equal directions are all that five rows can have
    assert spectral_evenness(simplex) == pytest.approx(1)


def test_evenness_does_not_see_offset_scale_or_rotation() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6)) * np.arange(1, 7)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert spectral_evenness(3 * x @ turn + 7) == pytest.approx(spectral_evenness(x), rel=1e-9)


def test_what_does_not_vary_has_no_evenness() -> None:
    assert math.isnan(spectral_evenness(np.full((5, 3), 0.1, np.float32)))
    assert math.isnan(spectral_evenness(np.arange(6.0)[:, None]))
    assert math.isnan(spectral_evenness(np.zeros((5, 3))))


def test_orthogonal_columns_have_neither_correlation_nor_an_uneven_spectrum() -> None:
    assert correlate_units(hadamard(8)[:, 1:5]) == UnitCorrelation(0, pytest.approx(1))


@pytest.mark.parametrize("measure", [mean_absolute_correlation, spectral_evenness, correlate_units])
@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.zeros(3), "give real numbers"),
        (np.zeros((1, 3)), "features are of 1 row: give two or more"),
        (np.zeros((3, 0)), "give real numbers"),
        (np.array([["a", "b"], ["c", "d"]]), "give real numbers"),
        (np.array([[1.0, np.nan], [2.0, 3.0]]), "hold NaN, infinity"),
        (np.array([[1.0, np.inf], [2.0, 3.0], [4.0, 5.0]]), "hold NaN, infinity"),
        (np.array([[1.0, np.inf, 3.0], [2.0, 3.0, 4.0]]), "hold NaN, infinity"),
        (np.array([[1e200, 1.0], [2.0, 3.0], [4.0, 5.0]]), "numbers above 1e150"),
    ],
)
def test_what_cannot_be_measured(measure: object, x: np.ndarray, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        measure(x)  # type: ignore[operator]
