"""Names stand beside their points and hide nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.transforms import Bbox

from featkit.report.labels import write_beside


def written(places: np.ndarray, names: list[str] | None = None) -> tuple[Axes, list[Bbox]]:
    axes = Canvas(figsize=(6.4, 4)).add_subplot()
    axes.plot(*places.T, "o")
    names = names or [f"efficientnet_lite{i}" for i in range(len(places))]
    write_beside(axes, [(n, tuple(p), "blue") for n, p in zip(names, places, strict=True)])
    axes.figure.draw_without_rendering()
    return axes, [text.get_window_extent() for text in axes.texts]


def covers(one: Bbox, other: Bbox) -> float:
    shared = Bbox.intersection(one, other)
    return 0.0 if shared is None else shared.width * shared.height


CLOSE = np.array([[0.0, 0.0], [0.1, 0.02], [0.05, -0.06], [1.0, 1.0], [0.96, 0.97], [0.5, -1.0]])


@pytest.mark.parametrize("seed", range(3))
def test_names_hide_neither_each_other_nor_points(seed: int) -> None:
    places = CLOSE if seed == 0 else np.random.default_rng(seed).random((10, 2))
    axes, boxes = written(places)
    assert all(covers(one, other) < 1 for one, other in itertools.combinations(boxes, 2))
    for place in axes.transData.transform(places):
        assert not any(box.contains(*place) for box in boxes)
    # those at the edge stay inside
    assert all(covers(box, axes.bbox) > 0.95 * box.width * box.height for box in boxes)


def test_a_name_is_near_its_point_and_of_its_colour() -> None:
    axes, boxes = written(CLOSE)
    for place, box, text in zip(axes.transData.transform(CLOSE), boxes, axes.texts, strict=True):
        nearest = np.clip(place, [box.x0, box.y0], [box.x1, box.y1])
        assert np.hypot(*(place - nearest)) < 40
        assert text.get_color() == "blue"


def test_points_that_come_once_have_their_name_above() -> None:
    axes, boxes = written(np.array([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5]]), ["a", "b", "c"])
    place = axes.transData.transform((0.5, 0.5))
    assert boxes[2].y0 - place[1] == pytest.approx(5 * axes.figure.dpi / 72, abs=1.5)
    assert abs((boxes[2].x0 + boxes[2].x1) / 2 - place[0]) < 2


def test_points_at_one_place_have_all_their_names() -> None:
    axes, boxes = written(np.zeros((4, 2)), list("abcd"))
    assert [text.get_text() for text in axes.texts] == list("abcd")
    assert all(covers(one, other) == 0 for one, other in itertools.combinations(boxes, 2))
