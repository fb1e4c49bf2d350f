"""The linear probe against scikit-learn, and the rules of estimators."""

from __future__ import annotations

import pickle
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve
from sklearn.multiclass import OneVsRestClassifier

from featkit.errors import UsageError
from featkit.ops.linear_probe import LinearProbe

DATA = load_digits()
RNG = np.random.default_rng(0)
X = (DATA.data @ RNG.standard_normal((64, 10)) / 20).astype(np.float32)
X += RNG.standard_normal(X.shape).astype(np.float32)
Y = DATA.target
TRAIN, TEST = slice(0, 700), slice(700, 1200)
FEW = (1e-3, 1.0, 30.0, 1e3, 1e5)


def held_out(n: int, seed: int = 0, share: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()
    return drawn[: round(share * n)], drawn[round(share * n) :]


def peer(penalty: float, x: np.ndarray, y: np.ndarray) -> Any:
    model = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-8, max_iter=1000)
    return model.fit(x.astype(float), y)


def test_it_chooses_and_learns_as_scikit_learn_would() -> None:
    probe = LinearProbe(FEW).fit(X[TRAIN], Y[TRAIN])
    asked, kept = held_out(700)
    models = [peer(penalty, X[kept], Y[kept]) for penalty in FEW]
    scores = [model.score(X[asked].astype(float), Y[asked]) for model in models]
    np.testing.assert_allclose(probe.validation_scores_, scores, atol=1.5 / len(asked))
    best = int(np.argmax(probe.validation_scores_))
    assert probe.penalty_ == FEW[best]
    np.testing.assert_array_equal(probe.held_out_, asked)
    wanted = models[best].decision_function(X[asked].astype(float))
    wanted -= wanted.mean(1, keepdims=True)
    np.testing.assert_allclose(probe.held_out_logits_, wanted, atol=0.02)
    again = peer(probe.penalty_, X[TRAIN], Y[TRAIN])
    np.testing.assert_allclose(probe.coef_, again.coef_, rtol=0.02, atol=2e-3)
    np.testing.assert_allclose(
        probe.predict_proba(X[TEST]), again.predict_proba(X[TEST].astype(float)), atol=3e-3
    )
    assert probe.score(X[TEST], Y[TEST]) == pytest.approx(
        again.score(X[TEST].astype(float), Y[TEST]), abs=2 / 500
    )
    assert probe.converged_


def test_the_first_of_equal_penalties_is_taken() -> None:
    x = np.repeat(np.eye(3, dtype=np.float32), 20, 0) * 50
    y = np.repeat(["b", "a", "c"], 20)
    probe = LinearProbe((1.0, 1e-2, 1e-4)).fit(x, y)
    assert probe.validation_scores_.tolist() == [1, 1, 1]
    assert probe.penalty_ == 1.0
    assert probe.classes_.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(probe.predict(x), y)


def test_one_penalty_need_not_be_judged() -> None:
    probe = LinearProbe((30.0,), validation=None).fit(X[TRAIN], Y[TRAIN])
    assert not hasattr(probe, "validation_scores_")
    np.testing.assert_allclose(
        probe.coef_, peer(30, X[TRAIN], Y[TRAIN]).coef_, rtol=0.02, atol=2e-3
    )
    with pytest.raises(UsageError, match="2 penalties and validation None"):
        LinearProbe((1.0, 2.0), validation=None).fit(X[TRAIN], Y[TRAIN])


def test_a_class_that_is_held_out_only_is_always_missed_there() -> None:
    asked, _ = held_out(60)
    y = np.arange(60) % 2
    y[asked[0]] = 7
    x = (np.eye(8)[y] + 0.1 * np.random.default_rng(0).standard_normal((60, 8))).astype(np.float32)
    probe = LinearProbe(FEW[:2]).fit(x, y)
    assert probe.classes_.tolist() == [0, 1, 7]
    assert np.isneginf(probe.held_out_logits_[:, 2]).all()
    assert probe.validation_scores_.max() <= 1 - 1 / len(asked)
    assert probe.coef_.shape == (3, 8)
    assert probe.predict(x)[asked[0]] == 7


def test_columns_are_classifiers_of_their_own() -> None:
    members = np.stack([Y % 2 == 0, Y > 4, np.isin(Y, [1, 7])], axis=1).astype(np.uint8)
    probe = LinearProbe(FEW).fit(X[TRAIN], members[TRAIN])
    model = OneVsRestClassifier(
        LogisticRegression(C=1 / probe.penalty_, tol=1e-10, max_iter=10_000)
    ).fit(X[TRAIN].astype(float), members[TRAIN])
    wanted = model.predict_proba(X[TEST].astype(float))
    np.testing.assert_allclose(probe.predict_proba(X[TEST]), wanted, atol=3e-3)
    agree = probe.predict(X[TEST]) == model.predict(X[TEST].astype(float))
    assert agree.mean() > 0.998
    precisions = []
    for k in range(3):
        logits = probe.decision_function(X[TEST])[:, k]
        precision, recall, _ = precision_recall_curve(members[TEST, k], logits)
        precisions.append(np.mean([precision[recall >= r / 10].max() for r in range(11)]))
    assert probe.score(X[TEST], members[TEST]) == pytest.approx(np.mean(precisions), abs=5e-3)


def test_rules_of_estimators() -> None:
    probe = LinearProbe(FEW, random_state=3)
    assert clone(probe).get_params() == probe.get_params()
    with pytest.raises(NotFittedError):
        probe.predict(X)
    probe.fit(X[TRAIN], Y[TRAIN])
    same = pickle.loads(pickle.dumps(probe))
    np.testing.assert_array_equal(same.predict(X[TEST]), probe.predict(X[TEST]))
    again = clone(probe).fit(X[TRAIN], Y[TRAIN])
    np.testing.assert_array_equal(again.coef_, probe.coef_)
    assert probe.n_features_in_ == 10


@pytest.mark.parametrize(
    ("settings", "x", "y", "says"),
    [
        ({}, X[:50], np.zeros(50, int), "one class only, 0"),
        ({}, X[:50], Y[:40], r"X is \(50, 10\) and y \(40,\)"),
        ({}, X[0], Y[:1], "give \\(n, d\\)"),
        ({}, X[:2], np.arange(2), "holds out 0 of 2"),
        ({"validation": 0.6}, X[:2], np.arange(2), "1 samples that are not held out are of one"),
        ({"validation": 0.001}, X[:50], Y[:50], "holds out 0 of 50"),
        ({"validation": 1.0}, X[:50], Y[:50], "holds out 50 of 50"),
        ({"penalties": (-1.0,)}, X[:50], Y[:50], "-1"),
        ({"penalties": ()}, X[:50], Y[:50], "penalties"),
        ({}, np.full((50, 10), np.nan), Y[:50], "NaN|finite"),
        ({}, X[:50], np.linspace(0, 1, 50) + 1j, "give labels"),
    ],
)
def test_what_cannot_be_learned(
    settings: dict[str, Any], x: np.ndarray, y: np.ndarray, says: str
) -> None:
    with pytest.raises(UsageError, match=says) as error:
        LinearProbe(**settings).fit(x, y)
    assert "\n" not in str(error.value)


def test_what_cannot_be_asked() -> None:
    probe = LinearProbe(FEW).fit(X[TRAIN], Y[TRAIN])
    with pytest.raises(UsageError, match=r"give \(rows, 10\)"):
        probe.predict(X[:, :5])
    with pytest.raises(UsageError, match="NaN or infinity"):
        probe.predict(np.full((2, 10), np.inf, np.float32))


def test_two_classes_have_one_decision() -> None:
    y = Y > 4
    probe = LinearProbe((3.0,), validation=None).fit(X[TRAIN], y[TRAIN])
    logits = probe.decision_function(X[TEST])
    assert logits.shape == (500,)
    np.testing.assert_array_equal(logits > 0, probe.predict(X[TEST]))
    # a row of weights each, where scikit-learn has their difference: half the penalty
    model = LogisticRegression(C=2 / 3.0, tol=1e-10, max_iter=10_000)
    model.fit(X[TRAIN].astype(float), y[TRAIN])
    np.testing.assert_allclose(logits, model.decision_function(X[TEST]), atol=0.02)
    weights = np.where(y[TEST], 2.0, 1.0)
    wanted = np.average(probe.predict(X[TEST]) == y[TEST], weights=weights)
    assert probe.score(X[TEST], y[TEST], weights) == pytest.approx(wanted)


@pytest.mark.parametrize("several", [False, True])
def test_some_rows_are_those_of_a_copy(several):
    """Rows that take no part may hold anything, and those that do may come in any order."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=300) + 2
    x = rng.standard_normal((300, 6)) + np.eye(6)[y]
    rows = rng.permutation(300)[:250]
    targets = np.eye(5, dtype=int)[y][:, 2:] if several else y
    copied = LinearProbe(tol=1e-9).fit(x[rows], targets[rows])
    x[np.setdiff1d(np.arange(300), rows)] = np.nan
    found = LinearProbe(tol=1e-9).fit(x, targets[rows], rows)
    assert found.penalty_ == copied.penalty_
    np.testing.assert_array_equal(found.held_out_, copied.held_out_)
    np.testing.assert_allclose(found.coef_, copied.coef_, atol=1e-4)
    asked = rows[:7]
    np.testing.assert_allclose(found.logits(x, asked), copied.logits(x[asked]), atol=1e-3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 1, 1, 2], "some come twice"),
        ([0, 1, 2, 40], "give whole numbers below 40"),
        ([0, 1, 2, -1], "give whole numbers below 40"),
        ([0.0, 1.0, 2.0, 3.0], "rows are float64"),
        ([0, 1, 2], "3 rows and 4 in y"),
    ],
)
def test_rows_that_cannot_take_part(rows, message):
    with pytest.raises(UsageError, match=message):
        LinearProbe().fit(np.ones((40, 2)), [0, 1, 0, 1], rows)


def test_memory_mapped_rows_are_never_all_copied(tmp_path):
    """With one row left out, of a table that is read block by block."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=20_000)
    held = np.memmap(tmp_path / "x", np.float32, "w+", shape=(20_000, 256))
    held[:] = rng.standard_normal(held.shape, np.float32)
    held[:, 0] += 4 * y
    held[1000] = np.nan
    rows = np.delete(np.arange(20_000), 1000)
    tracemalloc.start()
    probe = LinearProbe(penalties=(10.0,)).fit(held, y[rows], rows)
    right = (probe.logits(held, rows).argmax(1) == y[rows]).mean()
    most = tracemalloc.get_traced_memory()[1]  # of NumPy
    tracemalloc.stop()
    assert right > 0.95
    assert most < held.nbytes * 0.75


@pytest.mark.parametrize("labels", [[0.0, 1.0], [True, False], ["a", "b"], [3, 4]])
def test_labels_are_those_that_scikit_learn_takes(labels):
    x, y = np.array([[0.0], [1.0]] * 10), np.array(labels * 10)
    peer = LogisticRegression().fit(x, y)
    found = LinearProbe().fit(x, y)
    assert found.classes_.tolist() == peer.classes_.tolist()
    assert found.classes_.dtype == peer.classes_.dtype
    np.testing.assert_array_equal(found.predict(x), peer.predict(x))


@pytest.mark.parametrize("y", [[0.5, 1.2], [np.nan, 1.0], [np.inf, 1.0], [None, 1]])
def test_labels_that_scikit_learn_refuses(y):
    x = np.array([[0.0], [1.0]] * 10)
    with pytest.raises(ValueError), np.errstate(invalid="ignore"):  # noqa: PT011
        LogisticRegression().fit(x, np.array(y * 10))
    with pytest.raises(UsageError, match=r"y is .*: give labels, whole numbers or strings"):
        LinearProbe().fit(x, np.array(y * 10))
