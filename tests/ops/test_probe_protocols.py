"""Protocols on arrays; what they find is held against scikit-learn in the tests of the probe."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from featkit.errors import UsageError
from featkit.ops import linear_classifier, linear_probe, probe_protocols
from featkit.ops.hold_out import hold_out
from featkit.ops.linear_classifier import LinearEvaluation
from featkit.ops.linear_probe import LinearProbe
from featkit.ops.neighbors import BLOCK
from featkit.ops.probe_protocols import learn_probe


def blobs(n, d=5, c=3, seed=0):
    """Gaussians that overlap, about means drawn once."""
    means = 1.5 * np.random.default_rng(5).standard_normal((c, d))
    rng = np.random.default_rng(seed)
    y = rng.integers(c, size=n)
    return (means[y] + rng.standard_normal((n, d))).astype(np.float32), y


def drawn(n, share, seed):
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()
    return order[: round(share * n)], order[round(share * n) :]


@pytest.fixture
def quick(monkeypatch):
    """Few epochs for SGD."""
    usual = LinearEvaluation.__init__.__defaults__
    monkeypatch.setattr(LinearEvaluation.__init__, "__defaults__", (40, *usual[1:]))


@pytest.mark.parametrize("seed", [0, 7])
def test_logistic_is_the_linear_probe(seed):
    x, y = blobs(300)
    found, wanted = learn_probe(x, y, "logistic", seed), LinearProbe(random_state=seed).fit(x, y)
    new, _ = blobs(50, seed=1)
    np.testing.assert_array_equal(found.classes[found.logits(new).argmax(1)], wanted.predict(new))
    assert found.penalty == wanted.penalty_
    assert found.path == tuple(zip(wanted.penalties, wanted.validation_scores_, strict=True))
    assert found.validation == wanted.validation_scores_.max()
    assert (found.protocol, len(found.path)) == ("logistic", 45)


def test_sgd_is_the_linear_evaluation_of_unit_rows(quick):
    x, y = blobs(300)
    found = learn_probe(x, y, "sgd", 2)
    wanted = LinearEvaluation(random_state=2).fit(normalize(x), y)
    new, _ = blobs(50, seed=1)
    scores = normalize(new) @ wanted.coef_.T + wanted.intercept_
    np.testing.assert_allclose(found.logits(new), scores, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.logits(1000 * new), found.logits(new), rtol=1e-4, atol=1e-4)
    assert found.penalty == wanted.weight_decay_
    assert [score for _, score in found.path] == wanted.validation_accuracy_.tolist()


@pytest.mark.parametrize(
    ("protocol", "share"), [("logistic", 0.2), ("unregularised", 0.2), ("sgd", 0.1)]
)
def test_the_temperature_is_of_samples_that_the_classifier_has_not_seen(protocol, share, quick):
    """At 1 / T the loss on them by a classifier of the others has no slope."""
    x, y = blobs(400)
    found = learn_probe(x, y, protocol, 4)
    held_out, kept = drawn(400, share, 4)
    if protocol == "sgd":
        other = LinearEvaluation(weight_decays=(found.penalty,), random_state=4)
        other.fit(normalize(x[kept]), y[kept])
        logits = normalize(x[held_out]) @ other.coef_.T + other.intercept_
    else:
        strength = 1 / found.penalty if found.penalty else math.inf
        other = LogisticRegression(C=strength, tol=1e-9, max_iter=10_000)
        other.fit(x[kept].astype(float), y[kept])
        logits = other.decision_function(x[held_out].astype(float))

    def loss(inverse):
        return -log_softmax(logits * inverse, axis=1)[np.arange(len(logits)), y[held_out]].mean()

    logits = logits.astype(float)
    best, step = 1 / found.temperature, 0.01 / found.temperature
    slopes = [loss(best + step) - loss(best), loss(best) - loss(best - step)]
    assert slopes[1] < 0 < slopes[0]
    assert abs(sum(slopes)) < 0.1 * (slopes[0] - slopes[1])
    assert not 0.98 < found.temperature < 1.02


def test_labels_of_any_kind():
    x, y = blobs(200)
    plain = learn_probe(x, y, "unregularised")
    for names in (np.array(["dog", "cat", "owl"]), np.array([7, -3, 100])):
        found = learn_probe(x, names[y], "unregularised")
        assert found.classes.tolist() == sorted(names)
        voted = found.classes[found.logits(x).argmax(1)]
        np.testing.assert_array_equal(voted, names[plain.logits(x).argmax(1)])
        assert found.temperature == pytest.approx(plain.temperature, rel=1e-4)


def test_columns_of_one_value_are_not_learned():
    x, y = blobs(200)
    members = np.column_stack([y == 0, y < 9, y == 1, y > 9]).astype(np.uint8)
    found = learn_probe(x, members)
    assert found.classes.tolist() == [0, 2]
    assert found.logits(x).shape == (200, 2)
    assert found.temperature is None
    assert found.penalty == learn_probe(x, members[:, [0, 2]]).penalty


@pytest.mark.parametrize("protocol", ["unregularised", "sgd"])
def test_rows_are_asked_in_blocks(protocol, monkeypatch, quick):
    x, y = blobs(200)
    found = learn_probe(x, y, protocol)
    whole = found.logits(x)
    for module in (linear_probe, probe_protocols):
        monkeypatch.setattr(module, "BLOCK", 7)
    np.testing.assert_allclose(found.logits(x), whole, rtol=1e-5, atol=1e-6)


def test_sgd_copies_no_more_than_a_block_of_the_rows_asked(quick):
    learned = learn_probe(*blobs(200, d=64), "sgd")
    asked = np.ones((20 * BLOCK, 64), np.float32)
    tracemalloc.start()
    learned.logits(asked)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < asked.nbytes / 4


@pytest.mark.parametrize(
    ("protocol", "share"), [("logistic", 0.2), ("unregularised", 0.2), ("sgd", 0.1)]
)
@pytest.mark.parametrize("seed", [0, 11])
def test_the_learner_and_the_temperature_have_the_same_samples_held_out(
    protocol, share, seed, monkeypatch, quick
):
    """Those of torch's ``randperm``, wherever they are drawn."""
    wanted, seen = drawn(120, share, seed), []

    def watched(*arguments):
        seen.append((arguments[0], hold_out(*arguments)))
        return seen[-1][1]

    for module in (linear_classifier, linear_probe, probe_protocols):
        monkeypatch.setattr(module, "hold_out", watched)
    learn_probe(*blobs(120), protocol, seed)
    found = [rows for n, rows in seen if n == 120]
    assert len(found) == 2
    for rows in found:
        np.testing.assert_array_equal(rows[0], wanted[0])
        np.testing.assert_array_equal(rows[1], wanted[1])


X, Y = blobs(40)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, Y, "ridge"), "protocol 'ridge': use logistic or unregularised or sgd"),
        ((X, Y[:9]), r"x is \(40, 5\) and y \(9,\): give \(n, d\) and \(n\)"),
        ((X[0], Y[:5]), r"x is \(5,\)"),
        ((X, Y[:, None, None]), r"y \(40, 1, 1\)"),
        ((X, np.c_[Y > 0, Y > 1], "sgd"), "sgd learns one label a sample"),
        ((X, Y, "logistic", -1), "seed is -1: give a whole number"),
        ((X, Y, "logistic", 0.5), "seed is 0.5"),
        ((X, Y, "logistic", True), "seed is True"),
        ((X, Y, "logistic", None), "seed is None"),
        ((X, 0 * Y), "40 samples to train on are too few to hold out 20%"),
        ((X[:2], [0, 1]), "2 samples to train on are too few"),
        ((X[:0], Y[:0]), "0 samples to train on are too few"),
        ((np.full((40, 5), np.nan), Y), "NaN"),
    ],
)
def test_what_cannot_be_used(arguments, message):
    with pytest.raises(UsageError, match=message) as error:
        learn_probe(*arguments)
    assert "\n" not in str(error.value)


def test_it_says_whether_there_is_an_optimum(quick):
    x, y = blobs(200)
    assert learn_probe(x, y, "unregularised").converged is True
    assert learn_probe(x + 50 * np.eye(5)[y], y, "unregularised").converged is False
    assert learn_probe(x, y, "sgd").converged is None
