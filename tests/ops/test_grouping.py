"""Groups of few points against scikit-learn and silhouettes by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from featkit.errors import UsageError
from featkit.ops.grouping import distinct_points, group_points


def blobs(centres: list[tuple[float, float]], each: int = 4) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.repeat(np.array(centres, float), each, 0) + 0.2 * rng.random((len(centres) * each, 2))


CENTRES = [(5.0, 0.0), (0.0, 0.0), (9.0, 9.0)]


def test_groups_that_are_there_are_found_with_their_number() -> None:
    points = blobs(CENTRES)
    found = group_points(points, (2, 3, 4))
    assert found.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert found.count == 3
    assert found.silhouette == pytest.approx(silhouette_score(points, np.repeat([0, 1, 2], 4)))
    assert group_points(blobs(CENTRES[:2]), (2, 3, 4)).count == 2


def test_a_silhouette_by_hand() -> None:
    """Points 0, 1 and 10, 11: each has its friend at 1 and the others at 10.5 or 9.5."""
    found = group_points([[10.0], [0.0], [11.0], [1.0]], (2,))
    assert found.labels.tolist() == [0, 1, 0, 1]
    assert found.silhouette == pytest.approx(1 - (1 / 10.5 + 1 / 9.5) / 2)


def test_who_belongs_together_does_not_hang_on_the_order() -> None:
    rng = np.random.default_rng(2)
    points = rng.random((60, 3))  # of no groups: starts decide where k-means ends
    labels = group_points(points, (9,)).labels
    together = labels[:, None] == labels
    for _ in range(5):
        order = rng.permutation(60)
        turned = group_points(points[order], (9,)).labels
        np.testing.assert_array_equal(turned[:, None] == turned, together[np.ix_(order, order)])
        assert list(dict.fromkeys(turned.tolist())) == list(range(9))


def test_where_no_silhouette_is_defined() -> None:
    points = [[0.0], [1.0], [5.0]]
    one = group_points(points, (1,))
    assert (one.labels.tolist(), one.count, one.silhouette) == ([0, 0, 0], 1, None)
    each = group_points(points, (3,))
    assert (each.labels.tolist(), each.silhouette) == ([0, 1, 2], None)
    assert group_points(points, (3, 2)).count == 2


def test_points_that_differ_by_rounding_are_one() -> None:
    assert distinct_points(np.array([[0.1 + 0.2], [0.3], [1.0]])) == 2
    assert distinct_points(np.zeros((3, 2))) == 1
    with pytest.raises(UsageError, match="3 groups of 2 distinct points: give 1 to 2"):
        group_points([[0.1 + 0.2], [0.3], [1.0]], (3,))


@pytest.mark.parametrize(
    ("points", "counts", "says"),
    [
        ([[0.0], [1.0]], (0,), "0 groups of 2 distinct points"),
        ([[0.0], [1.0]], (), "no number of groups"),
        ([[0.0], [np.nan]], (1,), "NaN or infinity"),
        ([0.0, 1.0], (1,), "give real numbers in the shape"),
    ],
)
def test_what_has_no_groups(points: object, counts: tuple[int, ...], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        group_points(points, counts)  # type: ignore[arg-type]
