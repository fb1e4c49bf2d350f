"""Correlation and evenness of units against NumPy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import hadamard

import featkit.ops.unit_correlation
from featkit.errors import UsageError
from featkit.ops.unit_correlation import mean_absolute_correlation, spectral_evenness


@pytest.mark.parametrize("block", [3, 1024])
@pytest.mark.parametrize("shape", [(50, 8), (6, 20)])
def test_correlations_are_numpys(
    shape: tuple[int, int], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(featkit.ops.unit_correlation, "_COLUMNS", block)
    x = np.random.default_rng(0).normal(size=shape) ** 2 + 3
    c = np.abs(np.corrcoef(x, rowvar=False))
    wanted = (c.sum() - len(c)) / (c.size - len(c))
    assert mean_absolute_correlation(x) == pytest.approx(wanted, rel=1e-12)
    assert mean_absolute_correlation(x.astype(np.float32)) == pytest.approx(wanted, rel=1e-5)


def test_constant_units_have_no_correlation() -> None:
    x = np.random.default_rng(0).random((40, 5)).astype(np.float32)
    still = np.full((40, 2), 1e3 / 3, np.float32)
    wanted = mean_absolute_correlation(x)
    assert mean_absolute_correlation(np.hstack([still, x])) == pytest.approx(wanted, rel=1e-6)
    assert math.isnan(mean_absolute_correlation(np.hstack([still, x[:, :1]])))


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


@pytest.mark.parametrize("measure", [mean_absolute_correlation, spectral_evenness])
@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.zeros(3), "give real numbers"),
        (np.zeros((1, 3)), "give real numbers"),
        (np.zeros((3, 0)), "give real numbers"),
        (np.array([["a", "b"], ["c", "d"]]), "give real numbers"),
        (np.array([[1.0, np.nan], [2.0, 3.0]]), "NaN or infinity"),
    ],
)
def test_what_cannot_be_measured(measure: object, x: np.ndarray, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        measure(x)  # type: ignore[operator]
