"""Intersections over unions, by hand and by scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from featkit.errors import UsageError
from featkit.ops.concept_tally import ConceptTally, Union

UNIONS: list[Union] = ["everywhere", "category", "category under the mask"]


def tally(images, categories, union="everywhere", units=1) -> ConceptTally:
    found = ConceptTally(units, categories, union)
    for masks, labels in images:
        found.add(torch.tensor(masks, dtype=torch.bool), torch.tensor(labels))
    return found


def test_by_hand() -> None:
    """Two images of four places; car and road are objects, red is a color.

    Image 1: the unit is active at 1 and 2; car at 2 and 3, red at 2.
    Image 2: active at 1 and 4; road at 3, no color.
    """
    images = [
        ([[1, 1, 0, 0]], [[0, 1, 1, 0], [0, 3, 0, 0]]),
        ([[1, 0, 0, 1]], [[0, 0, 2, 0], [0, 0, 0, 0]]),
    ]
    wanted = {
        # I / (A + G - I): car 1 / (4 + 2 - 1), road 0 / (4 + 1), red 1 / (4 + 1 - 1)
        "everywhere": [1 / 5, 0, 1 / 4],
        # objects occur in both images, colors in the first, where A is 2: red 1 / (2 + 1 - 1)
        "category": [1 / 5, 0, 1 / 2],
        # under the mask objects occur in the first only: car 1 / (2 + 2 - 1)
        "category under the mask": [1 / 3, 0, 1 / 2],
    }
    for union, values in wanted.items():
        found = tally(images, ["object", "object", "color"], union).iou()
        np.testing.assert_allclose(found, [values], rtol=1e-12)


def made_up(units: int, concepts: int, seed: int):
    """Return three images: random masks, two layers of labels that overlap."""
    rng = np.random.default_rng(seed)
    return [
        (rng.random((units, 90)) < 0.2, rng.integers(0, concepts + 1, (2, 90))) for _ in range(3)
    ]


def test_everywhere_is_the_jaccard_score_of_all_places() -> None:
    images = made_up(4, 6, 0)
    found = tally(images, ["object"] * 6, units=4).iou()
    for unit in range(4):
        active = np.concatenate([masks[unit] for masks, _ in images])
        for concept in range(6):
            true = np.concatenate([(labels == concept + 1).any(0) for _, labels in images])
            assert found[unit, concept] == pytest.approx(jaccard_score(true, active), rel=1e-12)


def test_a_category_is_the_jaccard_score_of_the_images_that_have_it() -> None:
    categories = ["object", "part", "object", "color"]
    images = made_up(3, 2, 1)  # concepts 1 and 2: an object and a part
    images += [(masks, labels * 2 - labels % 2) for masks, labels in made_up(3, 2, 2)]
    images += [(masks, np.full_like(labels, 4)) for masks, labels in made_up(3, 2, 3)]
    found = tally(images, categories, "category", units=3).iou()
    for concept, category in enumerate(categories):
        same = [i + 1 for i, other in enumerate(categories) if other == category]
        having = [image for image in images if np.isin(image[1], same).any()]
        true = np.concatenate([(labels == concept + 1).any(0) for _, labels in having])
        for unit in range(3):
            active = np.concatenate([masks[unit] for masks, _ in having])
            wanted = jaccard_score(true, active, zero_division=0)
            assert found[unit, concept] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("union", UNIONS)
def test_the_order_of_images_and_the_layers_do_not_matter(union: Union) -> None:
    images = made_up(4, 6, 0)
    categories = ["a", "b", "a", "c", "b", "a"]
    whole = tally(images, categories, union, 4).iou()
    turned = [(masks, np.vstack([labels[::-1], labels[:1]])) for masks, labels in images[::-1]]
    torch.testing.assert_close(tally(turned, categories, union, 4).iou(), whole, rtol=0, atol=0)


@pytest.mark.parametrize("union", UNIONS)
def test_nothing_gives_zero(union: Union) -> None:
    """A silent unit, a concept that never occurs, an image without labels, no image at all."""
    assert not tally([], ["object"], union).iou().any()
    silent = [([[0, 0, 0]], [[0, 1, 1]])]
    unlabelled = [([[1, 1, 0]], [[0, 0, 0]])]
    for images in (silent, unlabelled):
        found = tally(images, ["object", "color"], union).iou()
        assert found.tolist() == [[0, 0]]


def test_a_perfect_unit() -> None:
    images = [([[0, 1, 1, 0]], [[2, 1, 1, 0]]), ([[1, 0, 0, 0]], [[1, 0, 0, 2]])]
    for union in UNIONS:
        assert tally(images, ["object", "object"], union).iou().tolist() == [[1, 0]]


def test_counts_beyond_the_whole_numbers_of_float32_are_exact() -> None:
    places, images = 2**16 + 1, 300
    masks, labels = torch.ones(1, places, dtype=torch.bool), torch.ones(1, places, dtype=torch.int)
    found = ConceptTally(1, ["object"])
    for _ in range(images):
        found.add(masks, labels)
    assert int(found.places()[0]) == found.seen == places * images
    found.add(masks[:, :1], labels[:, :1] * 0)  # one place more that is active, and not labelled
    whole = places * images
    assert found.iou().item() == whole / (whole + 1)


@pytest.mark.parametrize(
    ("categories", "union", "message"),
    [
        ([], "everywhere", "there are no concepts"),
        (["a"], "nowhere", "union 'nowhere' is unknown: give everywhere or category or"),
    ],
)
def test_what_cannot_be_used(categories, union, message) -> None:
    with pytest.raises(UsageError, match=message):
        ConceptTally(1, categories, union)


def test_draws_are_tallies_of_images_that_come_several_times() -> None:
    """With weights of numpy's own generator, in the order in which a buffer takes them."""
    images, categories = made_up(3, 5, 4), ["a", "b", "a", "b", "b"]
    for union in UNIONS:
        found = ConceptTally(3, categories, union, draws=4, seed=7)
        for masks, labels in images:
            found.add(torch.from_numpy(masks), torch.from_numpy(labels))
        weights = np.random.default_rng(7).poisson(1.0, (3, 4))
        for draw, iou in enumerate(found.draws()):
            again = [
                image for w, image in zip(weights[:, draw], images, strict=True) for _ in range(w)
            ]
            torch.testing.assert_close(iou, tally(again, categories, union, 3).iou())
    assert not list(ConceptTally(3, categories).draws())
