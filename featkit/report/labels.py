"""Names beside points, where they hide neither points nor each other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

Box: TypeAlias = NDArray[np.float64]
"""Left, bottom, right and top, in pixels; (…, 4)."""

_POINT = np.array([-4.0, -4.0, 4.0, 4.0])
"""What a point covers, about its place."""

_REACHES = (5, 11, 17)
_DIRECTIONS = ((0, 1), (0, -1), (1, 0.6), (1, -0.6), (-1, 0.6), (-1, -0.6), (1.2, 0), (-1.2, 0))

_FAR = 0.1
"""Pixels that may be covered to bring a name a point of the page nearer."""


def write_beside(axes: Axes, points: Sequence[tuple[str, tuple[float, float], str]]) -> None:
    """Write a name beside each point, where it covers least of the points and of other names.

    Args:
        axes: With all else drawn; their limits are settled now.
        points: Name, place in the coordinates of the axes, and colour of each.
    """
    axes.apply_aspect()
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    taken = [place + _POINT for place in _pixels(axes, [place for _, place, _ in points])]
    inside = np.array(axes.bbox.extents)
    for name, place, colour in points:
        text = axes.annotate(
            name, place, (0, 0), textcoords="offset points", color=colour, fontsize=7, ha="center",
            va="center", path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip
        middle = np.array(text.get_window_extent().extents)
        size = (middle[2:] - middle[:2]) * 72 / axes.figure.dpi
        costs, boxes = [], []
        spots = [_spot(reach, way, size) for reach, way in itertools.product(_REACHES, _DIRECTIONS)]
        for reach, spot in zip(np.repeat(_REACHES, len(_DIRECTIONS)), spots, strict=True):
            boxes.append(middle + np.tile(spot * axes.figure.dpi / 72, 2))
            hidden = _shared(boxes[-1], np.array(taken)).sum()
            outside = _shared(boxes[-1], boxes[-1]) - _shared(boxes[-1], inside)
            costs.append(hidden + outside + _FAR * reach)
        best = int(np.argmin(costs))
        text.set_position((float(spots[best][0]), float(spots[best][1])))
        taken.append(boxes[best])


def _pixels(axes: Axes, places: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    return np.tile(axes.transData.transform(places), 2)


def _spot(reach: float, way: tuple[float, float], size: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the middle of a name whose near edge is as far from its point, in points."""
    direction = np.array(way)
    middle: NDArray[np.float64] = direction * reach + np.sign(direction) * size / 2
    return middle


def _shared(box: Box, others: Box) -> NDArray[np.float64]:
    """Return the area that a box shares with others."""
    across = np.minimum(box[2], others[..., 2]) - np.maximum(box[0], others[..., 0])
    along = np.minimum(box[3], others[..., 3]) - np.maximum(box[1], others[..., 1])
    area: NDArray[np.float64] = across.clip(0) * along.clip(0)
    return area
