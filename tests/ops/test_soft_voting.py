"""Weighted soft votes against hand-made ones and scikit-learn's VotingClassifier."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from featkit.errors import UsageError
from featkit.ops.soft_voting import pair_votes, pair_weights

RNG = np.random.default_rng(0)


def softmaxes(m: int, n: int, c: int) -> np.ndarray:
    raw = np.exp(RNG.standard_normal((m, n, c)))
    return raw / raw.sum(2, keepdims=True)


def test_weights_are_those_printed():
    """E = (0.5 + |a - b|) m_1 + (0.5 - |a - b|) m_2, a > b."""
    weights = pair_weights([0.5, 0.75, 0.625])
    assert weights.tolist() == [[0.5, 0.25, 0.375], [0.75, 0.5, 0.625], [0.625, 0.375, 0.5]]
    np.testing.assert_array_equal(weights + weights.T, 1)
    np.testing.assert_array_equal(pair_weights([0.5, 0.75, 0.625], "convex"), weights)


def test_weights_outside_of_0_to_1_as_printed_and_convex():
    assert pair_weights([0.125, 0.875]).tolist() == [[0.5, -0.25], [1.25, 0.5]]
    assert pair_weights([0.125, 0.875], "convex").tolist() == [[0.5, 0], [1, 0.5]]
    assert pair_weights([0, 1]).tolist() == [[0.5, -0.5], [1.5, 0.5]]
    assert pair_weights([0.25, 0.75]).tolist() == [[0.5, 0], [1, 0.5]]


@pytest.mark.parametrize("accuracies", [(0.9, 0.2), (0.3, 1.0), (0.6, 0.55), (0.5, 0.5), (1, 0)])
def test_convex_weights_are_the_nearest_that_sum_to_1(accuracies):
    share = np.linspace(0, 1, 100_001)
    printed = pair_weights(accuracies)
    asked = printed[0, 1], printed[1, 0]
    apart = (share - asked[0]) ** 2 + (1 - share - asked[1]) ** 2
    convex = pair_weights(accuracies, "convex")
    assert convex[0, 1] == pytest.approx(share[apart.argmin()], abs=1e-5)
    assert convex[0, 1] + convex[1, 0] == 1


def test_the_vote_is_the_weighted_sum():
    one, other = [0.5, 0.4, 0.1], [0.1, 0.45, 0.45]
    # 0.75 · one + 0.25 · other = 0.4, 0.4125, 0.1875; with the weights changed 0.2, 0.4375, 0.3625
    assert pair_votes([[one], [other]], pair_weights([0.75, 0.5]))[0, 1] == 1
    # 0.875 · one + 0.125 · other = 0.45, 0.40625, 0.14375
    assert pair_votes([[one], [other]], pair_weights([0.875, 0.5]))[0, 1] == 0
    assert pair_votes([[one], [other]], pair_weights([0.5, 0.875]))[0, 1] == 1


def test_a_negative_weight_can_take_a_class_that_both_vote_for():
    one, other = [0.5, 0.4, 0.1], [0.9, 0.05, 0.05]
    # 1.25 · one - 0.25 · other = 0.4, 0.4875, 0.1125
    p = [[one], [other]]
    assert pair_votes(p, pair_weights([0.875, 0.125])).ravel().tolist() == [0, 1, 1, 0]
    assert pair_votes(p, pair_weights([0.875, 0.125], "convex")).ravel().tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("accuracies", [(0.8, 0.7), (0.4, 0.95), (0.5, 0.5), (0.97, 0.2)])
def test_votes_are_those_of_scikit_learn(accuracies):
    x, y = load_wine(return_X_y=True)
    halves = [slice(0, 3), slice(3, 6)]
    models = [
        make_pipeline(
            FunctionTransformer(lambda x, columns=columns: x[:, columns]),
            StandardScaler(),
            LogisticRegression(),
        )
        for columns in halves
    ]
    weights = pair_weights(accuracies)
    peer = VotingClassifier(
        [("one", models[0]), ("other", models[1])],
        voting="soft",
        weights=[weights[0, 1], weights[1, 0]],
    ).fit(x[::2], y[::2])
    votes = pair_votes([model.predict_proba(x) for model in peer.estimators_], weights)
    np.testing.assert_array_equal(votes[0, 1], peer.predict(x))
    for i, model in enumerate(peer.estimators_):
        np.testing.assert_array_equal(votes[i, i], model.predict(x))
    assert len(np.unique(votes[0, 1] - votes[[0, 1], [0, 1]])) > 1


def test_the_order_of_models_and_of_classes_does_not_matter():
    p, accuracies = softmaxes(5, 300, 7), RNG.random(5)
    votes = pair_votes(p, pair_weights(accuracies))
    np.testing.assert_array_equal(votes, votes.swapaxes(0, 1))
    models, classes = RNG.permutation(5), RNG.permutation(7)
    turned = pair_votes(p[models], pair_weights(accuracies[models]))
    np.testing.assert_array_equal(turned, votes[np.ix_(models, models)])
    renamed = pair_votes(p[:, :, classes], pair_weights(accuracies))
    np.testing.assert_array_equal(classes[renamed], votes)
    assert (votes != p.argmax(2)).mean() > 0.1


def test_a_model_beside_itself_answers_as_alone():
    p = softmaxes(1, 200, 5)
    votes = pair_votes(np.concatenate([p, p]), pair_weights([0.7, 0.7]))
    np.testing.assert_array_equal(votes, np.broadcast_to(p[0].argmax(1), (2, 2, 200)))


def test_of_equal_classes_the_first():
    p = np.array([[[0, 1, 0]], [[0, 0, 1]]], np.float32)
    assert pair_votes(p, pair_weights([0.5, 0.5]))[0, 1] == 1


@pytest.mark.parametrize(
    ("performance", "rule", "message"),
    [
        ([85.3, 77.1], "printed", "give fractions, not per cent"),
        ([0.5, -0.1], "printed", "outside of [0, 1]"),
        ([0.5, np.nan], "printed", "outside of [0, 1]"),
        ([[0.5]], "printed", "performance is float64 (1, 1): give numbers (m)"),
        (["a"], "printed", "give numbers (m)"),
        ([0.5, 0.6], "equal", "weights 'equal': use printed or convex"),
    ],
)
def test_performances_that_are_none(performance, rule, message):
    with pytest.raises(UsageError) as raised:
        pair_weights(performance, rule)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


HALF = [[0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("probabilities", "weights", "message"),
    [
        (HALF, HALF, "probabilities are float64 (2, 2): give floats (models, samples, classes)"),
        ([[[1, 0]], [[0, 1]]], HALF, "probabilities are int64"),
        (np.zeros((2, 0, 3)), HALF, "probabilities are float64 (2, 0, 3)"),
        ([[[2.0, -1.0]]] * 2, HALF, "negative or do not sum to 1"),
        ([[[0.5, 0.4]]] * 2, HALF, "negative or do not sum to 1"),
        ([[[np.nan, 0.5]]] * 2, HALF, "negative or do not sum to 1"),
        ([[[0.5, 0.5]]] * 2, [0.5, 0.5], "weights are float64 (2,): give finite numbers (2, 2)"),
        ([[[0.5, 0.5]]] * 2, [[0.5, np.inf], [0, 0.5]], "give finite numbers (2, 2)"),
    ],
)
def test_votes_of_what_is_no_probability(probabilities, weights, message):
    with pytest.raises(UsageError) as raised:
        pair_votes(probabilities, weights)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
