"""Draw the figures of a result, alike in type and colour wherever they come from."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from featkit.analyses.base import Figure, Result
from featkit.errors import UsageError
from featkit.registry import Registry

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Told apart by colour-blind readers and in print.

Source: Okabe and Ito, Color universal design, 2008.
"""

STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 200,
}

Drawer = Callable[[Axes, Figure, Result], None]
DRAWERS: Registry[Drawer] = Registry("kind of figure")


def draw_figures(result: Result, folder: str | Path) -> list[Path]:
    """Draw every figure of a result as a PNG.

    Args:
        result: With its figures, and the tables and arrays that they draw.
        folder: Made if it is not there.

    Returns:
        The files, one a figure.

    Raises:
        UsageError: A figure is of an unknown kind, or the folder cannot be written to.
    """
    folder = Path(folder)
    files = []
    for figure in result.figures:
        with mpl.rc_context(STYLE):
            canvas = Canvas(figsize=(6.0, 3.8), layout="constrained")
            axes = canvas.add_subplot()
            DRAWERS[figure.kind](axes, figure, result)
            axes.set_title(figure.title, loc="left")
            files.append(folder / f"{figure.name}.png")
            try:
                folder.mkdir(parents=True, exist_ok=True)
                canvas.savefig(files[-1])
            except OSError as error:
                raise UsageError(f"cannot write figures to {folder} ({error.strerror})") from error
    return files


def _groups(figure: Figure, result: Result) -> dict[str, list[dict[str, Any]]]:
    """The rows of the figure's table, by the value of its hue."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in result.tables[figure.data]:
        name = "" if figure.hue is None else str(row[figure.hue])
        groups.setdefault(name, []).append(row)
    return groups


def _draw_bars(axes: Axes, figure: Figure, result: Result) -> None:
    groups = _groups(figure, result)
    rows = list(itertools.chain.from_iterable(groups.values()))
    names = list(dict.fromkeys(str(row[figure.x]) for row in rows))
    height = 0.8 / len(groups)
    for index, (group, members) in enumerate(groups.items()):
        places = [names.index(str(row[figure.x])) + index * height for row in members]
        values = [row[figure.y] for row in members]
        bars = axes.barh(
            places, values, height * 0.92, color=COLOURS[index % len(COLOURS)], label=group
        )
        axes.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
    middle = height * (len(groups) - 1) / 2
    axes.set_yticks([place + middle for place in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xlabel(figure.y)
    axes.margins(x=0.12)
    if len(groups) > 1:
        axes.legend(title=figure.hue, loc="upper left", bbox_to_anchor=(1, 1))


def _draw_lines(axes: Axes, figure: Figure, result: Result) -> None:
    groups = _groups(figure, result)
    for (group, rows), colour in zip(groups.items(), itertools.cycle(COLOURS), strict=False):
        xs, ys = [row[figure.x] for row in rows], [row[figure.y] for row in rows]
        axes.plot(xs, ys, "o-", color=colour, label=group, markersize=4)
    axes.set_xlabel(figure.x)
    axes.set_ylabel(figure.y)
    axes.grid(alpha=0.25)
    if len(groups) > 1:
        axes.legend(title=figure.hue, loc="upper left", bbox_to_anchor=(1, 1))


def _draw_heatmap(axes: Axes, figure: Figure, result: Result) -> None:
    values = result.arrays[figure.data]
    image = axes.imshow(values, cmap="cividis", aspect="equal")
    axes.figure.colorbar(image, ax=axes, shrink=0.85)
    axes.set_xlabel(figure.x)
    axes.set_ylabel(figure.y)
    if figure.labels is not None and len(values) <= 30:
        labels = [str(label) for label in result.arrays[figure.labels]]
        axes.set_xticks(range(len(labels)), labels, rotation=90)
        axes.set_yticks(range(len(labels)), labels)


DRAWERS.register("bar", _draw_bars)
DRAWERS.register("line", _draw_lines)
DRAWERS.register("heatmap", _draw_heatmap)
