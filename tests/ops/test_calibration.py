"""Calibration against closed forms, scikit-learn and SciPy, and logits of known temperature."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from featkit.errors import UsageError
from featkit.ops import calibration
from featkit.ops.calibration import (
    confidence_at,
    expected_calibration_error,
    fit_temperature,
    reliability,
)


def drawn(n, c, seed=0, spread=2.0):
    """Logits, and labels drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = spread * rng.standard_normal((n, c))
    chances = softmax(logits, axis=1).cumsum(1)
    return logits, (rng.random((n, 1)) > chances[:, :-1]).sum(1)


def two_levels(a, n, right):
    """Logits (a, 0) of n samples of which some are of the first class."""
    return np.tile([a, 0.0], (n, 1)), (np.arange(n) >= right).astype(int)


@pytest.mark.parametrize("right", [13, 15, 19])
@pytest.mark.parametrize("a", [1e-3, 1.0, 40.0])
def test_temperature_of_one_logit_is_its_log_odds(a, right):
    """All samples alike: the softmax must say right / n, whose logit is log(right / wrong)."""
    found = fit_temperature(*two_levels(a, 20, right))
    assert found == pytest.approx(a / math.log(right / (20 - right)), rel=1e-10)


def test_temperature_of_two_classes_is_logistic_regression_without_intercept():
    logits, labels = drawn(500, 2, spread=3.0)
    margin = (logits[:, 1] - logits[:, 0])[:, None]
    model = LogisticRegression(C=1e12, fit_intercept=False, tol=1e-12, max_iter=1000)
    assert fit_temperature(logits, labels) == pytest.approx(
        1 / model.fit(margin, labels).coef_[0, 0], rel=1e-6
    )


@pytest.mark.parametrize("c", [3, 10])
def test_temperature_is_the_minimum_that_scipy_finds(c):
    logits, labels = drawn(400, c)

    def loss(inverse):
        return -log_softmax(logits * inverse, axis=1)[np.arange(400), labels].mean()

    wanted = minimize_scalar(loss, bounds=(0.01, 10), method="bounded", options={"xatol": 1e-10})
    found = fit_temperature(logits, labels)
    assert 1 / found == pytest.approx(wanted.x, abs=1e-6)
    peers = [
        log_loss(labels, softmax(logits / t, axis=1), labels=range(c))
        for t in (found, found * 1.001, found / 1.001)
    ]
    assert peers[0] < min(peers[1:])


@pytest.mark.parametrize("scale", [1e-290, 1e-3, 7.0, 1e140])
def test_logits_times_a_number_have_a_temperature_times_it(scale):
    logits, labels = drawn(3000, 5)
    plain = fit_temperature(logits, labels)
    assert plain == pytest.approx(1, abs=0.1)  # the labels were drawn at temperature 1
    assert fit_temperature(logits * scale, labels) == pytest.approx(plain * scale, rel=1e-9)


def test_temperature_does_not_depend_on_shifts_order_copies_or_blocks(monkeypatch):
    logits, labels = drawn(300, 4)
    wanted = pytest.approx(fit_temperature(logits, labels), rel=1e-9)
    shift = np.random.default_rng(1).standard_normal((300, 1)) * 50
    order, columns = np.random.default_rng(2).permutation(300), [2, 0, 3, 1]
    assert fit_temperature(logits + shift, labels) == wanted
    turned = logits[:, columns]
    assert fit_temperature(turned[order], np.argsort(columns)[labels][order]) == wanted
    assert fit_temperature(np.vstack([logits] * 3), np.tile(labels, 3)) == wanted
    confidence = confidence_at(logits, 1.7)
    monkeypatch.setattr(calibration, "_CELLS", 23)
    assert fit_temperature(logits, labels) == wanted
    np.testing.assert_array_equal(confidence_at(logits, 1.7), confidence)


def test_the_limits_of_temperature():
    logits, _ = drawn(50, 3)
    assert fit_temperature(logits, logits.argmax(1)) == 0
    assert fit_temperature(logits, logits.argmin(1)) == math.inf
    assert fit_temperature(np.zeros((4, 3)), [0, 1, 2, 0]) == math.inf
    assert fit_temperature([[1.0, 1.0, 0.0], [5.0, 2.0, 2.0]], [1, 0]) == 0  # a tie is no error
    one_wrong = logits.argmax(1)
    one_wrong[0] = logits[0].argsort()[-2]
    assert 0 < fit_temperature(logits, one_wrong) < 1
    # on average no higher than the mean: as likely as chance only at ∞
    assert fit_temperature([[2.0, 0.0], [2.0, 0.0]], [0, 1]) == math.inf
    barely = fit_temperature(*two_levels(2.0, 2001, 1001))
    assert barely == pytest.approx(2 / math.log(1001 / 1000), rel=1e-9)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("temperature", [0.01, 0.5, 1.0, 30.0, 1e200])
def test_confidence_is_the_largest_of_scipys_softmax(dtype, temperature):
    logits = drawn(200, 7)[0].astype(dtype)
    wanted = softmax(logits.astype(float) / temperature, axis=1).max(1)
    np.testing.assert_allclose(confidence_at(logits, temperature), wanted, rtol=1e-12)


def test_confidence_at_the_limits_is_shared_by_those_who_tie():
    logits = [[3.0, 3.0, 0.0, -1.0], [0.0, 1e149, -1e149, 2.0], [5.0, 5.0, 5.0, 5.0]]
    np.testing.assert_array_equal(confidence_at(logits, 0.0), [1 / 2, 1, 1 / 4])
    np.testing.assert_array_equal(confidence_at(logits, math.inf), [1 / 4] * 3)
    np.testing.assert_array_equal(confidence_at([[1e-200, 0.0]], 0.0), [1])
    np.testing.assert_allclose(confidence_at(logits[:1], 1e-3), [1 / 2])
    np.testing.assert_allclose(confidence_at(logits[:1], 1e9), [1 / 4])


def test_bins_of_the_reliability_are_those_of_scikit_learn():
    """Confidence of no sample lies on an end of a bin, where scikit-learn's are left-closed."""
    rng = np.random.default_rng(0)
    confidence = rng.random(2000) ** 0.5
    right = rng.random(2000) < confidence**2
    found = reliability(confidence, right, bins=12)
    accuracy, mean = calibration_curve(right, confidence, n_bins=12)
    np.testing.assert_allclose(found.confidence, mean, rtol=1e-12)
    np.testing.assert_allclose(found.right / found.n, accuracy, rtol=1e-12)
    assert (found.n.sum(), found.right.sum()) == (2000, right.sum())


def test_bins_are_closed_on_the_right_and_empty_ones_left_out():
    confidence = np.array([0.0, 0.2, np.nextafter(0.2, 1), 0.4, 0.6, 1.0, 1.0])
    right = np.array([True, False, True, True, False, True, False])
    found = reliability(confidence, right, bins=5)
    assert found.n.tolist() == [2, 2, 1, 2]
    assert found.right.tolist() == [1, 2, 0, 1]
    np.testing.assert_allclose(found.confidence, [0.1, 0.3, 0.6, 1.0])
    for bins in (3, 10, 15, 49, 1000):
        ends = np.arange(1, bins + 1) / bins
        assert (reliability(ends, ends < 2, bins).n == 1).all()


def test_calibration_error_by_hand():
    """Bins (0.5, 0.6] and (0.9, 1]: |1/2 - 0.55| of 2 samples, |2/3 - 0.95| of 3."""
    sure = np.array([0.52, 0.58, 0.92, 0.95, 0.98])
    probabilities = np.column_stack([sure, 1 - sure])
    found = expected_calibration_error(probabilities, [0, 1, 0, 0, 1], bins=10)
    assert found == pytest.approx((2 * 0.05 + 3 * (0.95 - 2 / 3)) / 5)
    one = expected_calibration_error(probabilities, [0, 1, 0, 0, 1], bins=1)
    assert one == pytest.approx(abs(3 / 5 - sure.mean()))


@pytest.mark.parametrize("right", [0, 3, 10])
def test_calibration_error_of_equal_rows_is_the_gap(right):
    probabilities = np.tile([0.1, 0.7, 0.2], (10, 1)).astype(np.float32)
    labels = np.where(np.arange(10) < right, 1, 2)
    found = expected_calibration_error(probabilities, labels)
    assert found == pytest.approx(abs(right / 10 - 0.7), abs=1e-7)


def test_calibrated_probabilities_have_a_small_error_and_the_fitted_temperature_finds_them():
    logits, labels = drawn(40_000, 6, spread=1.5)
    error = expected_calibration_error(softmax(logits, axis=1), labels)
    assert error < 0.01
    bold = 4 * logits
    assert expected_calibration_error(softmax(bold, axis=1), labels) > 0.2
    temperature = fit_temperature(bold[:20_000], labels[:20_000])
    assert temperature == pytest.approx(4, rel=0.03)
    confidence, right = confidence_at(bold, temperature), bold.argmax(1) == labels
    assert reliability(confidence, right).error < 0.012
    scaled = softmax(bold / temperature, axis=1)
    assert reliability(confidence, right).error == pytest.approx(
        expected_calibration_error(scaled, labels), abs=1e-12
    )


def test_probabilities_that_rounding_lifted_above_one():
    probabilities = np.float32([[np.nextafter(np.float32(1), np.float32(2)), 0]])
    assert expected_calibration_error(probabilities, [0]) == 0
    many = softmax(np.random.default_rng(0).standard_normal((50, 300)), axis=1)
    assert expected_calibration_error(many.astype(np.float16), many.argmax(1)) == pytest.approx(
        1 - many.max(1).mean(), abs=1e-3
    )


P, Z = [[0.5, 0.5], [1.0, 0.0]], [[1.0, 0.0], [2.0, 0.0]]


@pytest.mark.parametrize(
    ("call", "arguments", "message"),
    [
        (reliability, ([0.5, 0.5], [True]), r"float64 \(2,\) and bool \(1,\): give numbers"),
        (reliability, ([0.5, 0.5], [1, 0]), r"int64 \(2,\): give numbers \(n\) and bool"),
        (reliability, ([[0.5]], [[True]]), "give numbers"),
        (reliability, ([1, 0], [True, False]), "give numbers"),
        (reliability, ([1.5], [True]), "outside of"),
        (reliability, ([-0.1], [True]), "outside of"),
        (reliability, ([math.nan], [True]), "outside of"),
        (reliability, (np.empty(0), np.empty(0, bool)), "no samples"),
        (reliability, ([0.5], [True], 0), "bins is 0"),
        (expected_calibration_error, (P, [0, 1], 2.5), "bins is 2.5"),
        (expected_calibration_error, ([[1, 0]], [0]), "probabilities are int64"),
        (expected_calibration_error, ([0.5, 0.5], [0, 1]), r"probabilities are float64 \(2,\)"),
        (expected_calibration_error, (np.empty((0, 2)), []), r"\(0, 2\)"),
        (expected_calibration_error, ([[0.5, math.nan]], [0]), "hold NaN"),
        (expected_calibration_error, ([[1.5, -0.5]], [0]), "negative or do not sum to 1"),
        (expected_calibration_error, ([[0.5, 0.6]], [0]), "negative or do not sum to 1"),
        (expected_calibration_error, (P, [0]), r"labels are int64 \(1,\): give 2 whole numbers"),
        (expected_calibration_error, (P, [0.0, 1.0]), "labels are float64"),
        (expected_calibration_error, (P, [0, 2]), "labels are 0 to 2 and there are 2 classes"),
        (fit_temperature, (Z, [-1, 0]), "labels are -1 to 0"),
        (fit_temperature, ([[1.0], [2.0]], [0, 0]), "logits of one class"),
        (fit_temperature, ([[math.inf, 0.0]], [0]), "logits hold NaN, infinity"),
        (fit_temperature, ([[-math.inf, 0.0]], [0]), "logits hold NaN, infinity"),
        (fit_temperature, ([[-1e200, 0.0]], [0]), "numbers above 1e\\+150"),
        (confidence_at, (Z, -1.0), "temperature is -1"),
        (confidence_at, (Z, math.nan), "temperature is nan"),
        (confidence_at, ([1.0], 1.0), "give floats in the shape"),
    ],
)
def test_what_cannot_be_used(call, arguments, message):
    with pytest.raises(UsageError, match=message) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
