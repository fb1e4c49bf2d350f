"""Draw the figures of a result, alike in type and colour wherever they come from."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator
from mpl_toolkits.mplot3d import proj3d  # type: ignore[import-untyped]
from numpy.typing import NDArray

from featkit.analyses.base import Figure, Result
from featkit.errors import UsageError
from featkit.registry import Registry
from featkit.report.facets import draw_facets
from featkit.report.labels import write_beside
from featkit.report.pictures import draw_pictures
from featkit.store.files import explain_full_disk, make_folder, write_whole

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#F0E442")
"""Told apart by colour-blind readers and in print; yellow, faint on white, comes last.

Source: Okabe and Ito, Color universal design, 2008.
"""

MARKERS = "o^sDv"
"""The next one where colours come again."""

STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",  # labels and legends widen the picture, and leave the axes their size
}

T = TypeVar("T")
_PALE = 0.35
_ASIDE = 1.04
"""Factor between neighbouring lines on a logarithmic axis."""

_LIGHTNESS = (0.299, 0.587, 0.114)
"""How bright red, green and blue look (ITU-R BT.601)."""

_ROOM = 72
"""Letters that a horizontal axis has room for."""

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
        DiskFullError: The disk is full.
        UsageError: A figure is of an unknown kind, or the folder cannot be written to.
    """
    folder = Path(folder)
    files = []
    for figure in result.figures:
        files.append(folder / f"{figure.name}.png")
        drawn = draw_figure(figure, result)
        try:
            with explain_full_disk("figures", folder):
                make_folder(folder)
                write_whole(files[-1], drawn)
        except OSError as error:
            raise UsageError(f"cannot write figures to {folder} ({error.strerror})") from error
    return files


def draw_figure(figure: Figure, result: Result) -> bytes:
    """Draw a figure of a result.

    Returns:
        A PNG that says in its own words what it shows: its ``Title``.

    Raises:
        UsageError: It is of an unknown kind.
    """
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(6.4, 4.0))
        axes = canvas.add_subplot(projection=None if figure.z is None else "3d")
        DRAWERS[figure.kind](axes, figure, result)
        axes.set_title(figure.title, loc="left")
        encoded = io.BytesIO()  # Pillow writes half a file to a full disk, and is silent
        canvas.savefig(encoded, format="png", metadata={"Title": described(figure)})
    return encoded.getvalue()


def described(figure: Figure) -> str:
    """Return in words what a figure shows.

    Example:
        >>> described(Figure("knn", "bar", "knn", "Nearest neighbours", "features", "top1"))
        'Nearest neighbours (bar: top1 by features)'
        >>> described(Figure("seen", "pictures", "images", "What is seen", "", ""))
        'What is seen (pictures)'
    """
    axes = f": {figure.y} by {figure.x}" if figure.x and figure.y else ""
    return f"{figure.title} ({figure.kind}{axes})"


def _groups(figure: Figure, result: Result) -> dict[str, list[dict[str, Any]]]:
    """The rows of the figure's table that are wanted and have a value, by the value of its hue."""
    groups: dict[str, list[dict[str, Any]]] = {}
    wanted = (figure.where or {}).items()
    for row in result.tables[figure.data]:
        if not all(row[name] == value for name, value in wanted):
            continue
        if row[figure.x] is not None and row[figure.y] is not None and np.isfinite(row[figure.y]):
            name = "" if figure.hue is None else str(row[figure.hue])
            groups.setdefault(name, []).append(row)
    return groups


def _bounds(figure: Figure, rows: list[dict[str, Any]]) -> NDArray[np.float64]:
    """Lower and upper bound of ``y`` in each row, (2, rows); not a number where there is none."""
    if figure.interval is None:
        values, spread = np.array([row[figure.y] for row in rows]), _spread(figure, rows, figure.y)
        return np.array([values - spread, values + spread])
    return np.array([[row[name] for row in rows] for name in figure.interval], float)


def _spread(figure: Figure, rows: list[dict[str, Any]], name: str) -> NDArray[np.float64]:
    """Standard deviation of a column in each row; not a number where there is none."""
    spread = (figure.spreads or {}).get(name)
    return np.array([None if spread is None else row[spread] for row in rows], float)


def _series(figure: Figure, result: Result) -> dict[str, NDArray[np.float64]]:
    """The arrays of the figure by the rest of their names."""
    start = figure.data + "/"
    series = {
        name.removeprefix(start): np.asarray(values, float)
        for name, values in result.arrays.items()
        if name.startswith(start)
    }
    if not series:
        raise KeyError(start)
    return series


def _coloured(groups: dict[str, T]) -> Iterator[tuple[str, T, str]]:
    """Name, members and colour of each group."""
    for (name, members), colour in zip(groups.items(), itertools.cycle(COLOURS), strict=False):
        yield name, members, colour


def _add_legend(axes: Axes, title: str | None = None, right: float = 1) -> None:
    handles, _ = axes.get_legend_handles_labels()
    if len(handles) > 1:
        axes.legend(title=title, alignment="left", loc="upper left", bbox_to_anchor=(right, 1))


def _draw_bars(axes: Axes, figure: Figure, result: Result) -> None:
    groups = _groups(figure, result)
    rows = list(itertools.chain.from_iterable(groups.values()))
    if figure.most is not None:
        rows = sorted(rows, key=lambda row: -abs(row[figure.y]))[: figure.most]
    names = list(dict.fromkeys(str(row[figure.x]) for row in rows))
    abreast = len(groups) if len(names) < len(rows) else 1  # groups share no name: one bar each
    height = 0.8 / max(1, abreast)
    for index, (group, all_members, colour) in enumerate(_coloured(groups)):
        members = [row for row in all_members if row in rows]
        aside = index * height if abreast > 1 else 0
        places = [names.index(str(row[figure.x])) + aside for row in members]
        values = [row[figure.y] for row in members]
        solid = values
        if figure.solid is not None:
            solid = [row[figure.solid] for row in members]
            axes.barh(places, values, height * 0.92, color=colour, alpha=_PALE)
        axes.barh(places, solid, height * 0.92, color=colour, label=group)
        lower, upper = _bounds(figure, members)
        axes.errorbar(
            (lower + upper) / 2,
            places,
            xerr=(upper - lower) / 2,
            fmt="none",
            ecolor="black",
            elinewidth=0.8,
            capsize=2,
            capthick=0.8,
        )
        ends = np.fmax(values, upper).clip(0)
        for end, place, value in zip(ends, places, values, strict=True):
            text = f"  {value}" if isinstance(value, int) else f"  {value:.3f}"
            axes.text(end, place, text, verticalalignment="center", fontsize=8)
    # many bars make the axes, and with them the picture, as high as their labels need
    tall = min(max(0.77, 0.04 * len(names) * abreast), 10.0)
    axes.set_position((0.125, 0.11, 0.775, tall))
    middle = height * (abreast - 1) / 2
    axes.set_yticks([place + middle for place in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xlabel(figure.y)
    axes.margins(x=0.12)
    _add_legend(axes, figure.hue)


def _draw_lines(axes: Axes, figure: Figure, result: Result) -> None:
    groups = _groups(figure, result)
    for number, (group, rows, colour) in enumerate(_coloured(groups)):
        marker = MARKERS[number // len(COLOURS) % len(MARKERS)]
        aside = number - (len(groups) - 1) / 2 if figure.log_x and figure.interval else 0
        xs = [row[figure.x] for row in rows]
        if aside:  # or intervals hide each other
            xs = [x * _ASIDE**aside for x in xs]
        ys = [row[figure.y] for row in rows]
        axes.plot(xs, ys, f"{marker}-", color=colour, label=group, markersize=4)
        lower, upper = _bounds(figure, rows)
        axes.errorbar(xs, (lower + upper) / 2, yerr=(upper - lower) / 2, fmt="none", ecolor=colour)
    if figure.log_x:
        ticks = sorted({row[figure.x] for rows in groups.values() for row in rows})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xticks([], minor=True)
    names = {row[figure.x] for rows in groups.values() for row in rows}
    if not figure.log_x and all(isinstance(name, int) for name in names):
        axes.locator_params("x", integer=True)
    if sum(len(name) + 2 for name in names if isinstance(name, str)) > _ROOM:
        for label in axes.get_xticklabels():
            label.set(rotation=30, horizontalalignment="right", rotation_mode="anchor")
    axes.set_xlabel(figure.x)
    axes.set_ylabel(figure.y)
    axes.grid(alpha=0.25)
    _add_legend(axes, figure.hue)


def _draw_points(axes: Axes, figure: Figure, result: Result) -> None:
    rings: list[dict[str, Any]] = []
    groups = {name: _in_order(figure, rows) for name, rows in _groups(figure, result).items()}
    for number, (group, rows, colour) in enumerate(_coloured(groups)):
        xs, ys = ([row[name] for row in rows] for name in (figure.x, figure.y))
        line = MARKERS[number // len(COLOURS) % len(MARKERS)] + ("-" if figure.path else "")
        axes.plot(xs, ys, line, color=colour, label=group, markersize=5, linewidth=1, alpha=0.85)
        across, along = (_spread(figure, rows, name) for name in (figure.x, figure.y))
        axes.errorbar(xs, ys, along, across, fmt="none", ecolor=colour, elinewidth=1)
        marked = [row for row in rows if figure.mark is not None and row[figure.mark]]
        rings += marked
        if figure.path is not None and rows:
            _write_values(axes, figure, [rows[0], rows[-1], *marked], figure.path, colour)
    if rings:
        xs, ys = ([row[name] for row in rings] for name in (figure.x, figure.y))
        name = str(figure.mark).replace("_", " ")
        axes.plot(xs, ys, "o", color="black", label=name, markersize=9, markerfacecolor="none")
    if figure.log_x:
        axes.set_xscale("log")
        _label_numbers(axes)
    if all(isinstance(row[figure.y], int) for rows in groups.values() for row in rows):
        axes.locator_params("y", integer=True)
    axes.set_xlabel(figure.x)
    axes.set_ylabel(figure.y)
    axes.grid(alpha=0.25)
    numbers = "" if figure.path is None else f"\n(numbers: {figure.path})"
    _add_legend(axes, f"{figure.hue or ''}{numbers}" or None)
    _write_names(axes, figure, groups, lambda row: (row[figure.x], row[figure.y]))


def _write_names(
    axes: Axes,
    figure: Figure,
    groups: dict[str, list[dict[str, Any]]],
    place: Callable[[dict[str, Any]], tuple[float, float]],
) -> None:
    """Write the name of each point beside it, in the colour of its group."""
    if figure.names is None:
        return
    points = [
        (str(row[figure.names]), place(row), colour)
        for _, rows, colour in _coloured(groups)
        for row in rows
    ]
    if points:
        write_beside(axes, points)


def _draw_space(axes: Axes, figure: Figure, result: Result) -> None:
    space: Any = axes
    columns = (figure.x, figure.y, str(figure.z))
    groups = {
        group: [row for row in rows if row[columns[2]] is not None]
        for group, rows in _groups(figure, result).items()
    }
    heights = [row[columns[2]] for rows in groups.values() for row in rows]
    for number, (group, rows, colour) in enumerate(_coloured(groups)):
        xs, ys, zs = ([row[name] for row in rows] for name in columns)
        marker = MARKERS[number // len(COLOURS) % len(MARKERS)]
        space.plot(xs, ys, zs, marker, color=colour, label=group, markersize=6)
        for x, y, z in zip(xs, ys, zs, strict=True):  # its foot tells where a point is
            space.plot([x, x], [y, y], [min(heights), z], color=colour, linewidth=0.8, alpha=0.6)
    for title, name in zip(("x", "y", "z"), columns, strict=True):
        getattr(space, f"set_{title}label")(name)
    _add_legend(axes, figure.hue, right=1.15)  # beyond the third axis
    flat = space.get_proj()

    def place(row: dict[str, Any]) -> tuple[float, float]:
        x, y, _ = proj3d.proj_transform(*(row[name] for name in columns), flat)
        return float(x), float(y)

    _write_names(axes, figure, groups, place)


def _label_numbers(axes: Axes) -> None:
    """Label a logarithmic axis as 20k, 50k, 100k: as many numbers as there is room for."""
    low, high = axes.get_xlim()
    steps = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high < 30 * low else (1.0, 3.0)
    axes.xaxis.set_major_locator(LogLocator(subs=steps if high < 1e4 * low else (1.0,)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_locator(NullLocator())


def _in_order(figure: Figure, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that have a place on the path, one after the other; without a path, all."""
    path = figure.path
    if path is None:
        return rows
    return sorted((row for row in rows if row[path] is not None), key=lambda row: row[path])


def _write_values(
    axes: Axes, figure: Figure, rows: list[dict[str, Any]], column: str, colour: str
) -> None:
    """Write a column's value beside each point, once where points come twice."""
    places = {row[column]: (row[figure.x], row[figure.y]) for row in rows}
    for value, place in places.items():
        text = axes.annotate(
            f"{value:g}", place, (5, 4), textcoords="offset points", color=colour, fontsize=7
        )
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])


def _draw_histograms(axes: Axes, figure: Figure, result: Result) -> None:
    series = _series(figure, result)
    finite = {name: values[np.isfinite(values)] for name, values in series.items()}
    bins = np.histogram_bin_edges(np.concatenate(list(finite.values())), 60)
    for name, values, colour in _coloured(finite):
        axes.hist(
            values,
            bins.tolist(),
            histtype="stepfilled",
            label=name,
            facecolor=(colour, 0.25),
            edgecolor=colour,
        )
        if len(values):
            axes.axvline(float(np.median(values)), color=colour, linestyle="--", linewidth=1)
    axes.set_xlabel(figure.x)
    axes.set_ylabel(figure.y)
    _add_legend(axes, "dashed: median")


def _draw_curves(axes: Axes, figure: Figure, result: Result) -> None:
    for name, values, colour in _coloured(_series(figure, result)):
        ranks = np.arange(1, len(values) + 1)
        positive = np.ma.masked_where(~(values > 0), values)
        axes.plot(ranks, positive, ".-", color=colour, label=name, markersize=3, linewidth=1)
    if figure.log_x:
        axes.set_xscale("log")
    else:
        axes.locator_params("x", integer=True)
    axes.set_yscale("log")
    axes.set_xlabel(figure.x)
    axes.set_ylabel(figure.y)
    axes.grid(alpha=0.25)
    _add_legend(axes)


def _draw_heatmap(axes: Axes, figure: Figure, result: Result) -> None:
    values = np.ma.masked_invalid(result.arrays[figure.data])
    if not figure.diagonal:
        values[np.diag_indices_from(values)] = np.ma.masked
    rows, columns = values.shape
    few = columns <= 10 and (rows <= 10 or figure.columns is not None)  # there is room for numbers
    low, high = figure.limits or (None, None)
    if figure.center is not None:
        farthest = np.ma.abs(values - figure.center).max() or 1
        low, high = figure.center - farthest, figure.center + farthest
    colours = mpl.colormaps["cividis" if low is None else "PuOr_r"]
    image = axes.imshow(values, cmap=colours.with_extremes(bad="#e8e8e8"), vmin=low, vmax=high)
    if figure.columns is not None:  # cells as wide and high as their numbers, whatever the shape
        axes.set_aspect("auto")
        axes.set_position((0.125, 0.11, 0.1 * columns, 0.055 * rows))
        beside = axes.inset_axes((1 + 0.15 / columns, 0, 0.2 / columns, 1))
        axes.figure.colorbar(image, cax=beside, ticks=figure.limits)
    elif values.min() < values.max():
        axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.04)  # as high as a square
    axes.set_xlabel(figure.x)
    axes.set_ylabel(figure.y)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if figure.labels is not None and max(values.shape) <= (30 if figure.columns is None else 200):
        labels = [str(label) for label in result.arrays[figure.labels]]
        across = [str(label) for label in result.arrays[figure.columns or figure.labels]]
        slanted: Any = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(len(across)), across, **(slanted if few else {"rotation": 90}))
        axes.set_yticks(range(len(labels)), labels)
    if few:
        _write_cells(axes, figure, values, result, image)


def _write_cells(
    axes: Axes, figure: Figure, values: NDArray[Any], result: Result, image: AxesImage
) -> None:
    stars = np.zeros(values.shape, bool) if figure.mark is None else result.arrays[figure.mark]
    form = ".3f" if figure.center is None else "+z.3f"  # no -0.000
    size = 8 if figure.columns is not None else min(8, 60 / len(values))
    style: Any = {"fontsize": size, "ha": "center", "va": "center"}
    for row, column in np.argwhere(~np.ma.getmaskarray(values)):
        value = values[row, column]
        text = format(value, form) if values.dtype.kind == "f" else f"{value}"
        text += "*" * bool(stars[row, column])
        if figure.counts is not None:
            text += f"\n({result.arrays[figure.counts][row, column]})"
        light = np.dot(image.to_rgba(value)[:3], _LIGHTNESS) > 0.5
        axes.text(column, row, text, color="black" if light else "white", **style)


DRAWERS.register("bar", _draw_bars)
DRAWERS.register("line", _draw_lines)
DRAWERS.register("scatter", _draw_points)
DRAWERS.register("scatter3d", _draw_space)
DRAWERS.register("heatmap", _draw_heatmap)
DRAWERS.register("histogram", _draw_histograms)
DRAWERS.register("curves", _draw_curves)
DRAWERS.register("facets", draw_facets)
DRAWERS.register("pictures", draw_pictures)
