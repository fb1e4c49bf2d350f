"""Many points in a grid of small pictures, coloured by class."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from featkit.analyses.base import Figure, Result

_PANEL, _GAP, _LINE = 2.2, 0.08, 0.15
"""Side of a panel, what lies between two, and a line of a panel's title, in inches."""

_LETTERS = 34
"""Of a title, that fit on a panel."""

_PLAIN, _NAMELESS = "#0072B2", "#999999"
"""Of points without classes, and of those without one among others that have."""

_INK = 9000
"""Square points of all the points of a panel."""


def draw_facets(axes: Axes, figure: Figure, result: Result) -> None:
    """Draw a panel for each pair of values of the figure's ``panels``; axes themselves are blank.

    Up to 10 and 20 classes have colours that can be told apart, and a legend; more have those of a
    continuous map, in their order.
    """
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    names = figure.panels or ("", "")
    for row in result.tables[figure.data]:
        cells.setdefault((str(row[names[0]]), str(row[names[1]])), []).append(row)
    downs, acrosses = (list(dict.fromkeys(cell[i] for cell in cells)) for i in (0, 1))
    titles = {across: _lines(across) for across in acrosses}
    wide, high = ((_PANEL + _GAP) * len(side) for side in (acrosses, downs))
    tall = high + _LINE * max(map(len, titles.values()))
    page: Any = axes.figure
    axes.set_position((0.125, 0.11, wide / page.get_figwidth(), tall / page.get_figheight()))
    axes.set_axis_off()
    colours = _colours(figure, result)
    for (down, across), rows in cells.items():
        i, j = downs.index(down), acrosses.index(across)
        left, low = j * (_PANEL + _GAP), high - (i + 1) * (_PANEL + _GAP)
        panel = axes.inset_axes((left / wide, low / tall, _PANEL / wide, _PANEL / tall))
        _draw_panel(panel, figure, rows, colours)
        if i == 0:
            panel.set_title("\n".join(titles[across]), fontsize=8)
        if j == 0:
            panel.set_ylabel(down)
    if 1 < len(colours) <= 20:
        for name, colour in colours.items():
            axes.scatter([], [], color=colour, label=name)
        axes.legend(
            title=figure.hue, alignment="left", loc="upper left", bbox_to_anchor=(1, high / tall)
        )


def _lines(name: str) -> list[str]:
    """Break the title of a panel, after a slash where there is one."""
    return [line.replace("/ ", "/") for line in textwrap.wrap(name.replace("/", "/ "), _LETTERS)]


def _colours(figure: Figure, result: Result) -> dict[str, Any]:
    """Colour of each value of the figure's hue; none without one."""
    if figure.labels is None:
        return {}
    names = [str(name) for name in result.arrays[figure.labels]]
    found: Any = mpl.colormaps["turbo"](np.linspace(0, 1, len(names)))
    if len(names) <= 20:
        found = mpl.color_sequences["tab10" if len(names) <= 10 else "tab20"]
    return dict(zip(names, found, strict=False))


def _draw_panel(
    panel: Axes, figure: Figure, rows: Sequence[dict[str, Any]], colours: dict[str, Any]
) -> None:
    order = np.random.default_rng(0).permutation(len(rows))  # or one class lies over another
    xs, ys = ([rows[i][name] for i in order] for name in (figure.x, figure.y))
    colour: Any = _PLAIN
    if figure.hue is not None:
        colour = [colours.get(str(rows[i][figure.hue]), _NAMELESS) for i in order]
    size = min(max(_INK / len(rows), 1.2), 14)
    panel.scatter(xs, ys, size, colour, alpha=0.7, linewidths=0)
    panel.set_aspect("equal", adjustable="datalim")
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set(visible=True, linewidth=0.5, color="#888888")
