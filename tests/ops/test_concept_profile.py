"""Profiles by hand, from the matrix printed in the thesis."""

from __future__ import annotations

import numpy as np
import pytest

from featkit.errors import UsageError
from featkit.ops.concept_profile import (
    abstract_profiles,
    category_sizes,
    normalize_profiles,
)

CATEGORIES = ["object", "part", "object", "material", "part", "object"]
COUNTS = np.array([[6, 1, 0, 5, 3, 9], [0, 0, 0, 0, 0, 0], [3, 8, 12, 0, 0, 0]])


def test_every_count_is_divided_by_the_concepts_of_its_category() -> None:
    """D(m, c) / t_cat(c): three objects, two parts, one material."""
    assert category_sizes(CATEGORIES).tolist() == [3, 2, 3, 1, 2, 3]
    assert normalize_profiles(COUNTS, CATEGORIES).tolist() == [
        [2.0, 0.5, 0.0, 5.0, 1.5, 3.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [1.0, 4.0, 4.0, 0.0, 0.0, 0.0],
    ]


def test_a_category_has_all_units_and_unique_concepts() -> None:
    found = abstract_profiles(COUNTS, CATEGORIES)
    assert found.categories == ("object", "part", "material")
    assert found.units.tolist() == [[15, 4, 5], [0, 0, 0], [15, 8, 0]]
    assert found.unique.tolist() == [[2, 2, 1], [0, 0, 0], [2, 1, 0]]
    assert found.unique.dtype == np.int64


def test_shares_are_summed_like_counts_and_count_no_less() -> None:
    whole, shares = (abstract_profiles(x, CATEGORIES) for x in (COUNTS, COUNTS / 1000))
    np.testing.assert_allclose(shares.units, whole.units / 1000)
    np.testing.assert_array_equal(shares.unique, whole.unique)


def test_the_order_of_concepts_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(len(CATEGORIES))
    turned = abstract_profiles(COUNTS[:, order], [CATEGORIES[j] for j in order])
    whole = abstract_profiles(COUNTS, CATEGORIES)
    for q, name in enumerate(whole.categories):
        at = turned.categories.index(name)
        np.testing.assert_array_equal(turned.units[:, at], whole.units[:, q])
        np.testing.assert_array_equal(turned.unique[:, at], whole.unique[:, q])


@pytest.mark.parametrize("function", [normalize_profiles, abstract_profiles])
@pytest.mark.parametrize(
    ("counts", "categories", "says"),
    [
        ([[1, 2]], ["object"], "profiles of 2 concepts and categories of 1"),
        ([[1, -2]], ["object", "part"], "negative"),
        ([[1, np.nan]], ["object", "part"], "NaN"),
        ([1, 2], ["object", "part"], "give real numbers in the shape"),
        (np.zeros((2, 0)), [], "give real numbers in the shape"),
    ],
)
def test_what_is_no_profile(
    function: object, counts: object, categories: object, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        function(counts, categories)  # type: ignore[operator]
