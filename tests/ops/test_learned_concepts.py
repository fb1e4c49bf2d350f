"""The embedding against scikit-learn's PCA, closed forms and its own metamorphoses."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError

import featkit
from featkit.errors import UsageError
from featkit.ops.learned_concepts import LearnedConceptsEmbedding, explained_by_chance

RNG = np.random.default_rng(0)
CATEGORIES = ["object"] * 20 + ["part"] * 12 + ["color"] * 5
SIZES = np.repeat([20.0, 12.0, 5.0], [20, 12, 5])
COUNTS = RNG.poisson(RNG.gamma(0.5, 20, (9, 37)))


def fitted(counts: np.ndarray = COUNTS, **options: int) -> LearnedConceptsEmbedding:
    return LearnedConceptsEmbedding(CATEGORIES, **options).fit(counts)


def test_components_are_those_of_scikit_learn() -> None:
    wanted = PCA(3, svd_solver="full").fit(COUNTS / SIZES)
    lce = fitted()
    turns = np.sign((lce.components_ * wanted.components_).sum(1))
    np.testing.assert_allclose(lce.components_, wanted.components_ * turns[:, None], atol=1e-12)
    np.testing.assert_allclose(
        lce.transform(COUNTS), wanted.transform(COUNTS / SIZES) * turns, atol=1e-10
    )
    np.testing.assert_allclose(lce.explained_variance_, wanted.explained_variance_)
    np.testing.assert_allclose(lce.explained_variance_ratio_, wanted.explained_variance_ratio_)
    np.testing.assert_allclose(lce.mean_, wanted.mean_)
    np.testing.assert_array_equal(
        LearnedConceptsEmbedding(CATEGORIES).fit_transform(COUNTS), lce.transform(COUNTS)
    )


def test_a_matrix_by_hand() -> None:
    """Two objects: divided by 2, the corners of a rectangle of 8 by 4 about (4, 2)."""
    lce = LearnedConceptsEmbedding(["object", "object"], n_components=2)
    places = lce.fit_transform([[16, 8], [16, 0], [0, 8], [0, 0]])
    np.testing.assert_allclose(places, [[4, 2], [4, -2], [-4, 2], [-4, -2]], atol=1e-12)
    np.testing.assert_allclose(lce.components_, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(lce.explained_variance_, [64 / 3, 16 / 3])
    np.testing.assert_allclose(lce.explained_variance_ratio_, [0.8, 0.2])
    np.testing.assert_allclose(lce.transform([[18, 8]]), [[5, 2]], atol=1e-12)


def test_models_keep_their_places_in_any_order() -> None:
    order = RNG.permutation(9)
    np.testing.assert_allclose(
        fitted(COUNTS[order]).transform(COUNTS), fitted().transform(COUNTS), atol=1e-10
    )
    columns = RNG.permutation(37)
    turned = LearnedConceptsEmbedding([CATEGORIES[j] for j in columns])
    np.testing.assert_allclose(
        turned.fit_transform(COUNTS[:, columns]), fitted().transform(COUNTS), atol=1e-10
    )


def test_concepts_that_come_twice_shrink_the_embedding_and_nothing_else() -> None:
    """Each of two copies is halved by t, and two halves are 1/√2 of the length."""
    doubled = LearnedConceptsEmbedding(CATEGORIES * 2)
    places = doubled.fit_transform(np.hstack([COUNTS, COUNTS]))
    np.testing.assert_allclose(places, fitted().transform(COUNTS) / np.sqrt(2), atol=1e-10)
    np.testing.assert_allclose(
        doubled.explained_variance_ratio_, fitted().explained_variance_ratio_
    )
    np.testing.assert_allclose(
        fitted(COUNTS * 3).transform(COUNTS * 3), fitted().transform(COUNTS) * 3, atol=1e-9
    )


def test_signs_do_not_hang_on_rounding() -> None:
    """Of two coefficients as large, +a and -a, the first is positive, whatever comes first."""
    for counts in ([[7, 1], [1, 7]], [[1, 7], [7, 1]]):
        lce = LearnedConceptsEmbedding(["object", "object"]).fit(counts)
        np.testing.assert_allclose(lce.components_, [[0.5**0.5, -(0.5**0.5)]])
    rng = np.random.default_rng(8)
    for _ in range(50):
        signs = rng.choice([-1, 1], 37)
        counts = 9 + np.outer([3, -1, -2, 5, -5], signs)  # all coefficients are as large
        (row,) = LearnedConceptsEmbedding(["part"] * 37).fit(counts).components_
        np.testing.assert_allclose(row, signs * signs[0] / np.sqrt(37))
    largest = np.abs(fitted().components_).argmax(1)
    assert (fitted().components_[np.arange(3), largest] > 0).all()


def test_no_more_components_than_profiles_span() -> None:
    assert fitted(COUNTS[:2]).components_.shape == (1, 37)
    assert fitted(COUNTS[:3]).components_.shape == (2, 37)
    assert fitted(COUNTS[[0, 1, 2, 2, 1]]).components_.shape == (2, 37)
    assert fitted(COUNTS[:3]).explained_variance_ratio_.sum() == pytest.approx(1)
    assert fitted(n_components=2).components_.shape == (2, 37)
    np.testing.assert_allclose(fitted(n_components=2).components_, fitted().components_[:2])


def test_it_is_an_estimator() -> None:
    lce = featkit.LearnedConceptsEmbedding(CATEGORIES, n_components=2)
    assert lce.get_params() == {"categories": CATEGORIES, "n_components": 2}
    assert clone(lce).get_params() == lce.get_params()
    with pytest.raises(NotFittedError):
        lce.transform(COUNTS)
    assert lce.fit(COUNTS) is lce
    assert lce.n_features_in_ == 37


@pytest.mark.parametrize(
    ("counts", "options", "says"),
    [
        (COUNTS[:1], {}, "profiles of 1 model: give those of two or more"),
        (COUNTS[[3, 3, 3]], {}, "the profiles of all 3 models are the same"),
        (np.zeros((4, 37)), {}, "the profiles of all 4 models are the same"),
        (COUNTS, {"n_components": 0}, "n_components is 0"),
        (COUNTS[:, :5], {}, "profiles of 5 concepts and categories of 37"),
        (-COUNTS, {}, "negative"),
    ],
)
def test_what_cannot_be_embedded(counts: np.ndarray, options: dict[str, int], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        fitted(counts, **options)


def test_chance_of_three_models_and_two_concepts_can_be_counted() -> None:
    """Of the six orders of (1, 0, -1), two have r = ±1 with the first, four have ±1/2."""
    chance = explained_by_chance([[1.0, 7.0], [0.0, 6.0], [-1.0, 5.0]], 3, draws=6000, seed=1)
    values, counts = np.unique(chance[:, 0].round(9), return_counts=True)
    np.testing.assert_allclose(values, [0.75, 1])
    assert counts[0] / 6000 == pytest.approx(2 / 3, abs=0.02)
    np.testing.assert_allclose(chance.sum(1), 1)
    np.testing.assert_allclose(chance[:, 2], 0, atol=1e-12)


def test_chance_is_a_pca_of_columns_permuted_by_themselves() -> None:
    """Its mean is that of scikit-learn's PCA on columns that another generator has permuted."""
    x = COUNTS / SIZES
    chance = explained_by_chance(x, 3, draws=400)
    rng = np.random.default_rng(77)
    wanted = [
        PCA(3, svd_solver="full")
        .fit(np.column_stack([rng.permutation(column) for column in x.T]))
        .explained_variance_ratio_
        for _ in range(400)
    ]
    np.testing.assert_allclose(chance.mean(0), np.mean(wanted, 0), rtol=0.03)
    np.testing.assert_allclose(
        np.quantile(chance.sum(1), 0.95), np.quantile(np.sum(wanted, 1), 0.95), rtol=0.03
    )


def test_structure_exceeds_chance_and_noise_does_not() -> None:
    rng = np.random.default_rng(3)
    one = rng.gamma(1, 5, (12, 1)) @ rng.random((1, 40)) + 0.01 * rng.random((12, 40))
    ratio = PCA(1).fit(one).explained_variance_ratio_.sum()
    assert ratio > explained_by_chance(one, 1, 200).max() + 0.2
    beyond = 0
    for _ in range(40):
        noise = rng.random((12, 40))
        ratio = PCA(3, svd_solver="full").fit(noise).explained_variance_ratio_.sum()
        beyond += ratio > np.quantile(explained_by_chance(noise, 3, 99).sum(1), 0.95)
    assert beyond <= 7  # of 40 at 5 %: more than 7 once in 2000


def test_draws_follow_the_seed_and_not_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = COUNTS / SIZES
    whole = explained_by_chance(x, 3, 50, seed=4)
    np.testing.assert_array_equal(explained_by_chance(x, 3, 50, seed=4), whole)
    assert not np.array_equal(explained_by_chance(x, 3, 50, seed=5), whole)
    monkeypatch.setattr("featkit.ops.learned_concepts.BLOCK_FLOATS", 7 * x.size)
    np.testing.assert_allclose(explained_by_chance(x, 3, 50, seed=4), whole, atol=1e-12)


@pytest.mark.parametrize(
    ("x", "components", "draws", "says"),
    [
        (np.ones((3, 4)), 2, 9, "the profiles of all 3 models are the same"),
        (np.eye(3), 0, 9, "0 components, 9 draws: give 1 or more of both"),
        (np.eye(3), 2, 0, "2 components, 0 draws"),
        ([[np.inf, 1.0], [0.0, 1.0]], 2, 9, "NaN or infinity"),
    ],
)
def test_what_chance_cannot_be_taken_of(x: object, components: int, draws: int, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        explained_by_chance(x, components, draws)  # type: ignore[arg-type]
