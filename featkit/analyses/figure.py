"""What a picture of a result is, before it is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A picture of a result's own tables and arrays, to be drawn by ``featkit.report``.

    Attributes:
        name: File stem.
        kind: ``bar``, ``line``, ``scatter``, ``scatter3d``, ``heatmap``, ``histogram``, ``curves``
            (the values of each array against their rank, index + 1, on a logarithmic axis; values
            up to 0 are left out), ``facets`` (a grid of panels of many points, without numbers) or
            ``pictures`` (rows and columns of images).
        data: What is drawn: the name of a table (``bar``, ``line``, ``scatter``, ``scatter3d``,
            ``facets``) or an array (``heatmap``; ``pictures``: uint8 (rows, columns, h, w, 3)), or
            the PREFIX of all arrays called PREFIX/LABEL (``histogram``, ``curves``).
        title: Over the picture.
        x: Column on the horizontal axis (``bar``: of the bars' names; ``line``: numbers or names);
            where arrays are drawn, the axis title.
        y: Column of the values, rows without one being left out; where arrays are drawn, the title
            of the vertical axis.
        z: Column on the third axis (``scatter3d``).
        hue: Column that tells the lines, groups of bars or colours of points apart.
        labels: Name of the array of tick labels of a heat map, of the rows (``pictures``), or of
            the values of ``hue`` in the order of their colours (``facets``).
        columns: Name of the array of those of its horizontal axis, where they are others.
        limits: Values at the ends of the colours of a heat map, which then run from one colour over
            white to another; None for the least and the largest.
        diagonal: Whether the diagonal of a heat map tells anything. If not it is left blank, and
            the colours are those of the other cells.
        center: Value of a heat map that is neither good nor bad: white, with one colour for what is
            above and another for what is below; its numbers have signs.
        counts: Name of the array of whole numbers that are written below those of a heat map.
        interval: Columns of the lower and the upper bound of ``y`` (``bar``, ``line``); the bounds
            themselves, not their distance from ``y``.
        log_x: Whether the horizontal axis is logarithmic; that of a ``line`` has each value of x
            as a tick.
        where: Values that columns must have for a row to be drawn; None for all rows.
        spreads: Columns of the standard deviation of ``y`` (``bar``, ``line``, ``scatter``) or
            ``x`` (``scatter``), by the column that they are of; drawn to both sides of the points
            that have one.
        path: Column in whose order a line joins the points of a group (``scatter``), rows without a
            value being left out; the values of the first, the last and the marked point are written
            beside them.
        mark: Column that is true for the points that get a ring (``scatter``); or the array that is
            true for the cells that get a star (``heatmap``).
        names: Column that is written beside each point (``scatter``, ``scatter3d``).
        most: Rows that are drawn, those of the largest ``y`` of either sign, largest first
            (``bar``); None for all, as they stand in the table.
        solid: Column of the part of ``y`` that is drawn as other bars are, the rest being pale
            (``bar``).
        panels: Columns whose values are the rows and the columns of the grid (``facets``).
    """

    name: str
    kind: str
    data: str
    title: str
    x: str
    y: str
    hue: str | None = None
    labels: str | None = None
    diagonal: bool = True
    center: float | None = None
    counts: str | None = None
    interval: tuple[str, str] | None = None
    log_x: bool = False
    where: Mapping[str, Any] | None = None
    spreads: Mapping[str, str] | None = None
    path: str | None = None
    mark: str | None = None
    z: str | None = None
    columns: str | None = None
    limits: tuple[float, float] | None = None
    names: str | None = None
    most: int | None = None
    solid: str | None = None
    panels: tuple[str, str] | None = None
