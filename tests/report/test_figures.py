"""Figures show the numbers of the result."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Polygon
from numpy.typing import NDArray
from PIL import Image

from featkit.analyses.base import Figure, Result
from featkit.errors import UsageError
from featkit.report.figures import COLOURS, DRAWERS, draw_figures

ROWS = [
    {"net": "a", "k": 1, "top1": 0.5, "low": 0.4, "high": 0.7},
    {"net": "a", "k": 5, "top1": 0.75, "low": 0.7, "high": 0.8},
    {"net": "b", "k": 1, "top1": 0.25, "low": None, "high": None},
    {"net": "b", "k": 5, "top1": None, "low": 0.1, "high": 0.2},
    {"net": "b", "k": 7, "top1": float("nan"), "low": 0.1, "high": 0.2},
]
ARRAYS = {
    "confusion": np.array([[3, 1], [0, 4]]),
    "classes": np.array(["cat", "dog"]),
    "cosine/a": np.array([0.0, 1, 1, np.nan, 6]),
    "cosine/b/c": np.array([2.0, 5, 5]),
    "cosine/none": np.array([np.nan]),
    "cosine_of_others": np.array([90.0]),
    "spectrum/a": np.array([9.0, 3, 0, -1, np.nan, 1]),
    "spectrum/zeros": np.zeros(3),
}


def result(*figures: Figure) -> Result:
    return Result("knn", {}, tables={"accuracy": ROWS}, arrays=ARRAYS, figures=list(figures))


def drawn(figure: Figure, **changes: Any) -> Axes:
    axes = Canvas().add_subplot()
    DRAWERS[figure.kind](axes, replace(figure, **changes), result())
    return axes


def legend(axes: Axes) -> list[str]:
    box = axes.get_legend()
    assert box is not None
    return [text.get_text() for text in box.get_texts()]


def error_bars(axes: Axes) -> list[list[list[float]]]:
    """The ends of every error bar, a list a group."""
    groups = []
    for container in axes.containers:
        if isinstance(container, ErrorbarContainer):
            bars = [ends for kind in container.lines[2] for ends in kind.get_segments()]
            groups.append([np.round(ends, 9).tolist() for ends in bars if len(ends)])
    return groups


LINE = Figure("line", "line", "accuracy", "By k", "k", "top1", hue="net")
BAR = Figure("bar", "bar", "accuracy", "By net", "net", "top1", hue="k")
HEAT = Figure("heat", "heatmap", "confusion", "Confusion", "predicted", "true", labels="classes")
HISTOGRAM = Figure("histogram", "histogram", "cosine", "Cosines", "cosine", "images")
CURVES = Figure("curves", "curves", "spectrum", "Spectrum", "rank", "singular value")
INTERVAL = ("low", "high")


def test_lines_bars_and_cells_are_the_numbers() -> None:
    axes = drawn(LINE)
    assert [line.get_xydata().tolist() for line in axes.lines] == [
        [[1, 0.5], [5, 0.75]],
        [[1, 0.25]],
    ]
    assert legend(axes) == ["a", "b"]
    axes = drawn(BAR)
    assert sorted(bar.get_width() for bar in axes.patches) == [0.25, 0.5, 0.75]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert legend(axes) == ["1", "5"]
    axes = drawn(HEAT)
    np.testing.assert_array_equal(axes.images[0].get_array(), [[3, 1], [0, 4]])
    assert cells(axes) == {(0, 0): "3", (0, 1): "1", (1, 0): "0", (1, 1): "4"}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]


def test_error_bars_are_the_interval_and_labels_stand_after_them() -> None:
    assert error_bars(drawn(LINE, interval=INTERVAL)) == [
        [[[1, 0.4], [1, 0.7]], [[5, 0.7], [5, 0.8]]],
        [],
    ]
    axes = drawn(BAR, interval=INTERVAL)
    bars, errors = axes.patches, error_bars(axes)
    middles = [round(bar.get_y() + bar.get_height() / 2, 9) for bar in bars]
    assert [bar.get_width() for bar in bars] == [0.5, 0.25, 0.75]
    assert errors == [
        [[[0.4, middles[0]], [0.7, middles[0]]]],
        [[[0.7, middles[2]], [0.8, middles[2]]]],
    ]
    labels = [(text.get_text().strip(), text.get_position()[0]) for text in axes.texts]
    assert labels == [("0.500", 0.7), ("0.250", 0.25), ("0.750", 0.8)]
    assert not any(itertools.chain(*error_bars(drawn(LINE)), *error_bars(drawn(BAR))))


def test_a_value_outside_its_interval_is_drawn_as_it_is() -> None:
    axes = drawn(BAR, y="high", interval=("low", "top1"))
    assert error_bars(axes)[0][0] == [[0.4, 0], [0.5, 0]]
    assert axes.texts[0].get_position()[0] == 0.7


def test_a_logarithmic_axis_is_labelled_by_the_values_that_occur() -> None:
    axes = drawn(LINE, log_x=True)
    assert axes.get_xscale() == "log"
    assert drawn(LINE).get_xscale() == "linear"
    assert axes.get_xticks().tolist() == [1, 5]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "5"]
    assert not len(axes.get_xticks(minor=True))


def test_whole_numbers_have_whole_ticks() -> None:
    rows = [{"epoch": epoch, "loss": 1 / (1 + epoch)} for epoch in range(5)]
    axes = Canvas().add_subplot()
    figure = Figure("x", "line", "epochs", "", "epoch", "loss")
    DRAWERS["line"](axes, figure, Result("x", {}, tables={"epochs": rows}))
    assert all(tick == round(tick) for tick in axes.get_xticks())


def heat_map(
    values: NDArray[Any],
    *,
    diagonal: bool,
    center: float | None = None,
    counts: NDArray[Any] | None = None,
) -> Axes:
    canvas = Canvas()
    arrays = {"m": values, "names": np.array([f"n{i}" for i in range(len(values))])}
    figure = Figure(
        "m", "heatmap", "m", "", "", "", labels="names", diagonal=diagonal, center=center
    )
    if counts is not None:
        arrays["counts"] = counts
        figure = replace(figure, counts="counts")
    DRAWERS["heatmap"](canvas.add_subplot(), figure, Result("", {}, arrays=arrays))
    return canvas.axes[0]


def cells(axes: Axes) -> dict[tuple[int, int], str]:
    """The numbers written into a heat map by row and column."""
    at = [text.get_position() for text in axes.texts]
    return {(int(y), int(x)): t.get_text() for (x, y), t in zip(at, axes.texts, strict=True)}


def test_a_diagonal_that_tells_nothing_is_blank_and_does_not_set_the_colours() -> None:
    values = np.array([[1, 0.1, 0.25], [0.1, 1, -0.04], [0.25, -0.04, 1]])
    given = values.copy()
    axes = heat_map(values, diagonal=False)
    (image,) = axes.images
    shown = image.get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), np.eye(3, dtype=bool))
    np.testing.assert_array_equal(np.ma.filled(shown, 1), given)
    assert image.get_clim() == (-0.04, 0.25)
    assert cells(axes) == {
        (0, 1): "0.100", (0, 2): "0.250", (1, 0): "0.100", (1, 2): "-0.040", (2, 0): "0.250",
        (2, 1): "-0.040",
    }  # fmt: skip
    np.testing.assert_array_equal(values, given)
    whole = heat_map(values, diagonal=True)
    assert whole.images[0].get_clim() == (-0.04, 1)
    assert len(cells(whole)) == 9


def test_two_models_have_one_colour_and_no_bar_for_it() -> None:
    one = heat_map(np.array([[1, 0.4], [0.4, 1]]), diagonal=False)
    assert set(cells(one).values()) == {"0.400"}
    assert len(one.figure.axes) == 1
    assert len(heat_map(np.array([[1, 0.4], [0.4, 1]]), diagonal=True).figure.axes) == 2


def test_what_is_not_a_number_is_blank() -> None:
    axes = heat_map(np.array([[0.5, np.nan], [0.25, 0.75]]), diagonal=True)
    assert cells(axes) == {(0, 0): "0.500", (1, 0): "0.250", (1, 1): "0.750"}
    assert axes.images[0].get_clim() == (0.25, 0.75)


def test_above_and_below_the_center_are_two_colours_with_one_scale() -> None:
    values = np.array([[np.nan, 0.3, -0.1], [0.5, 0.2, 0.2], [0.2, -0.1, -0.00004]])
    axes = heat_map(values, diagonal=True, center=0.2)
    (image,) = axes.images
    assert image.get_clim() == pytest.approx((-0.1, 0.5))
    above, below, middle = (image.to_rgba(value)[:3] for value in (0.5, -0.1, 0.2))
    assert min(middle) > 0.95
    assert above[0] > above[2] + 0.3  # orange
    assert below[2] > below[0] + 0.1  # purple
    assert cells(axes)[0, 1] == "+0.300"
    assert cells(axes)[0, 2] == "-0.100"
    assert cells(axes)[2, 2] == "+0.000"
    assert (0, 0) not in cells(axes)


@pytest.mark.parametrize("values", [np.zeros((2, 2)), np.full((2, 2), np.nan)])
def test_nothing_but_the_center_is_white(values: NDArray[Any]) -> None:
    axes = heat_map(values, diagonal=True, center=0)
    (image,) = axes.images
    assert image.get_clim() == (-1, 1)
    assert min(image.to_rgba(0.0)[:3]) > 0.95
    assert len(axes.figure.axes) == 1


def test_counts_stand_below_their_numbers() -> None:
    values = np.array([[0.5, np.nan], [0.25, 0.75]])
    axes = heat_map(values, diagonal=True, counts=np.array([[3, 0], [4, 12]]))
    assert cells(axes) == {(0, 0): "0.500\n(3)", (1, 0): "0.250\n(4)", (1, 1): "0.750\n(12)"}


@pytest.mark.parametrize(("count", "written", "named"), [(10, 90, 10), (11, 0, 11), (31, 0, 0)])
def test_numbers_and_names_stand_where_there_is_room(count: int, written: int, named: int) -> None:
    values = np.random.default_rng(0).random((count, count))
    axes = heat_map(values, diagonal=False)
    assert len(axes.texts) == written
    labels = {label.get_text() for label in axes.get_yticklabels()}
    assert len({f"n{i}" for i in range(count)} & labels) == named


@pytest.mark.parametrize("center", [None, 0])
def test_numbers_can_be_read_on_their_cells(center: float | None) -> None:
    """Contrast of WCAG 2.1, 1.4.3: 3 or more."""

    def luminance(colour: Any) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    values = np.linspace(-3, 5, 100).reshape(10, 10)
    axes = heat_map(values, diagonal=True, center=center)
    (image,) = axes.images
    for text in axes.texts:
        x, y = map(int, text.get_position())
        cell = luminance(image.to_rgba(image.get_array()[y, x]))
        ink = luminance(to_rgb(text.get_color()))
        assert (max(cell, ink) + 0.05) / (min(cell, ink) + 0.05) > 3


def test_cells_keep_their_size_however_long_the_names(tmp_path: Path) -> None:
    values, widths = np.random.default_rng(0).random((7, 7)), []
    for name in ("short", "efficientnet_lite0/global_pool"):
        arrays = {"m": values, "names": np.array([f"{name}{i}" for i in range(7)])}
        figure = Figure(name[0], "heatmap", "m", "", "", "", labels="names", diagonal=False)
        (file,) = draw_figures(Result("", {}, arrays=arrays, figures=[figure]), tmp_path)
        with Image.open(file) as image:
            blank = (np.asarray(image.convert("RGB")) == 0xE8).all(2)
        widths.append(blank.sum())
    assert widths[0] == pytest.approx(widths[1], rel=0.02)
    assert widths[0] > 7 * 60**2


def test_histograms_share_their_bins_and_show_medians() -> None:
    axes = drawn(HISTOGRAM)
    assert legend(axes) == ["a", "b/c", "none"]
    edges = np.linspace(0, 6, 61)
    for outline, name in zip(axes.patches, legend(axes), strict=True):
        values = ARRAYS[f"cosine/{name}"]
        counts, _ = np.histogram(values[np.isfinite(values)], edges)
        assert isinstance(outline, Polygon)
        corners = outline.get_xy()
        np.testing.assert_allclose(corners[1:121:2], np.column_stack([edges[:-1], counts]))
    assert [line.get_xdata() for line in axes.lines] == [[1, 1], [5, 5]]
    assert [line.get_color() for line in axes.lines] == list(COLOURS[:2])
    assert {line.get_linestyle() for line in axes.lines} == {"--"}


def test_curves_are_values_by_rank_and_leave_out_those_up_to_zero() -> None:
    axes = drawn(CURVES)
    assert axes.get_yscale() == "log"
    assert legend(axes) == ["a", "zeros"]
    one, zeros = (line.get_ydata() for line in axes.lines)
    assert axes.lines[0].get_xdata().tolist() == [1, 2, 3, 4, 5, 6]
    assert np.ma.filled(one, 0).tolist() == [9, 3, 0, 0, 0, 1]
    assert np.ma.getmaskarray(zeros).all()


STAGES = [
    {"layer": layer, "diversity": d, "error": error, "epochs": epochs, "spread": s, "best": best}
    for layer, epochs, d, error, s, best in [
        ("a", 300, -2.0, 0.3, 0.5, False), ("a", 100, -1.0, 0.5, 0.25, False),
        ("a", 200, -3.0, 0.2, None, True), ("b", 100, -5.0, 0.5, 0.125, False),
        ("b", 200, -4.0, 0.2, 0.25, True), ("b", None, -6.0, 0.1, 0.25, False),
    ]
]  # fmt: skip
PATH = Figure(
    "path", "scatter", "stages", "", "diversity", "error", hue="layer", path="epochs", mark="best",
    spreads={"diversity": "spread"},
)  # fmt: skip


def stages(figure: Figure, rows: list[dict[str, Any]] = STAGES) -> Axes:
    axes = Canvas().add_subplot()
    DRAWERS[figure.kind](axes, figure, Result("", {}, tables={"stages": rows}))
    return axes


def points(axes: Axes) -> dict[str, list[list[float]]]:
    return {str(line.get_label()): line.get_xydata().tolist() for line in axes.lines}


def test_a_path_joins_points_in_its_order_and_rings_the_marked_one() -> None:
    axes = stages(PATH)
    assert points(axes) == {
        "a": [[-1, 0.5], [-3, 0.2], [-2, 0.3]],
        "b": [[-5, 0.5], [-4, 0.2]],
        "best": [[-3, 0.2], [-4, 0.2]],
    }
    assert [line.get_linestyle() for line in axes.lines] == ["-", "-", "None"]
    assert legend(axes) == ["a", "b", "best"]
    box = axes.get_legend()
    assert box is not None
    assert box.get_title().get_text() == "layer\n(numbers: epochs)"
    written = {(text.get_text(), text.xy) for text in axes.texts}  # type: ignore[attr-defined]
    assert written == {
        ("100", (-1, 0.5)), ("200", (-3, 0.2)), ("300", (-2, 0.3)),
        ("100", (-5, 0.5)), ("200", (-4, 0.2)),
    }  # fmt: skip
    assert len(axes.texts) == 5  # where the last is the marked one, once


def test_points_without_a_path_are_neither_joined_nor_numbered() -> None:
    axes = stages(replace(PATH, path=None, mark=None))
    assert points(axes)["b"] == [[-5, 0.5], [-4, 0.2], [-6, 0.1]]
    assert {line.get_linestyle() for line in axes.lines} == {"None"}
    assert not axes.texts
    assert legend(axes) == ["a", "b"]


def test_spreads_reach_to_both_sides_along_their_own_axis() -> None:
    assert error_bars(stages(PATH)) == [
        [[[-1.25, 0.5], [-0.75, 0.5]], [[-2.5, 0.3], [-1.5, 0.3]]],
        [[[-5.125, 0.5], [-4.875, 0.5]], [[-4.25, 0.2], [-3.75, 0.2]]],
    ]
    upright = replace(PATH, x="error", y="diversity", path=None)
    assert error_bars(stages(upright))[0] == [
        [[0.3, -2.5], [0.3, -1.5]], [[0.5, -1.25], [0.5, -0.75]],
    ]  # fmt: skip
    line = Figure("x", "bar", "stages", "", "epochs", "error", spreads={"error": "spread"})
    assert [end for (_, (end, _)) in error_bars(stages(line, STAGES[:2]))[0]] == [0.8, 0.75]
    line = Figure("x", "line", "stages", "", "epochs", "diversity", spreads={"diversity": "spread"})
    rows = [row for row in STAGES if row["layer"] == "a"]
    assert error_bars(stages(line, rows))[-1] == [
        [[300, -2.5], [300, -1.5]], [[100, -1.25], [100, -0.75]],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high"), [(3.4e6, 4.8e6), (2.7e5, 8.5e5), (2.4e7, 4e8), (1e4, 1e9), (5, 5)]
)
def test_a_logarithmic_axis_of_points_has_some_short_numbers_that_do_not_meet(
    low: float, high: float
) -> None:
    rows = [{"n": n, "y": 0.5} for n in (low, high)]
    axes = stages(Figure("x", "scatter", "stages", "", "n", "y", log_x=True), rows)
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    first, last = axes.get_xlim()
    shown = [label for label in axes.get_xticklabels() if first <= label.get_position()[0] <= last]
    texts = [label.get_text() for label in shown]
    assert 3 <= len(set(texts)) == len(texts) <= 12
    assert max(map(len, texts)) <= 5
    boxes = sorted((box.x0, box.x1) for box in (label.get_window_extent() for label in shown))
    assert all(before[1] < after[0] for before, after in itertools.pairwise(boxes))
    assert not len(axes.get_xticks(minor=True))


def test_names_that_have_no_room_side_by_side_are_turned() -> None:
    for count, turned in ((4, False), (14, True)):
        rows = [{"layer": f"blocks.{n}", "y": n} for n in range(count)]
        axes = stages(Figure("x", "line", "stages", "", "layer", "y"), rows)
        assert {bool(label.get_rotation()) for label in axes.get_xticklabels()} == {turned}


@pytest.mark.parametrize("kind", ["line", "scatter"])
def test_where_colours_come_again_markers_differ(kind: str) -> None:
    rows = [{"net": f"n{n}", "x": n, "y": n} for n in range(2 * len(COLOURS) + 1)]
    axes = stages(Figure("x", kind, "stages", "", "x", "y", hue="net"), rows)
    kinds = {
        (line.get_color(), line.get_marker()) for line in axes.lines if line.get_marker() != "None"
    }
    assert len(kinds) == len(rows)


@pytest.mark.parametrize("figure", [HISTOGRAM, CURVES])
def test_arrays_that_are_not_there_are_not_drawn_as_nothing(figure: Figure) -> None:
    with pytest.raises(KeyError, match="spectra/"):
        drawn(figure, data="spectra")


def test_every_figure_becomes_a_png(tmp_path: Path) -> None:
    names = ["line", "bar", "heat", "histogram", "curves"]
    files = draw_figures(result(LINE, BAR, HEAT, HISTOGRAM, CURVES), tmp_path / "new")
    assert [file.name for file in files] == [f"{name}.png" for name in names]
    for file in files:
        assert len(np.unique(pixels(file))) > 5


def pixels(file: Path) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        return np.asarray(image.convert("L"))


def longest_line(file: Path) -> int:
    """Of the horizontal axis, in dots."""
    return int((pixels(file) < 50).sum(1).max())


@pytest.mark.parametrize("figure", [LINE, replace(BAR, hue=None)])
def test_long_names_and_many_bars_enlarge_the_picture_not_squash_it(
    figure: Figure, tmp_path: Path
) -> None:
    files = []
    for name, count in (("n", 2), ("individual:efficientnet_lite0/global_pool", 40)):
        rows = [{"net": f"{name}{n}", "k": n, "top1": n + 1} for n in range(count)]
        one = replace(figure, name=name[0])
        files += draw_figures(Result("", {}, tables={"accuracy": rows}, figures=[one]), tmp_path)
    short, long = map(pixels, files)
    assert long.shape[0] > short.shape[0] + 400
    assert long.shape[1] > short.shape[1] + 400
    assert abs(longest_line(files[0]) - longest_line(files[1])) < 10
    for edge in (long[0], long[-1], long[:, 0], long[:, -1]):
        assert (edge == 255).all()


@pytest.mark.parametrize("kind", ["bar", "line"])
def test_a_table_without_values_is_an_empty_picture(kind: str, tmp_path: Path) -> None:
    rows = [{"net": "a", "top1": None}]
    figure = Figure("x", kind, "accuracy", "", "net", "top1")
    empty = Result("", {}, tables={"accuracy": rows}, figures=[figure])
    (file,) = draw_figures(empty, tmp_path)
    assert file == tmp_path / "x.png"
    axes = Canvas().add_subplot()
    DRAWERS[kind](axes, figure, empty)
    assert not axes.patches
    assert all(len(line.get_xdata()) == 0 for line in axes.lines)


def test_unknown_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean bar"):
        draw_figures(result(Figure("x", "bars", "accuracy", "", "net", "top1")), tmp_path)


PLACES = [
    {"net": net, "group": group, "a": a, "b": b, "c": c}
    for net, group, a, b, c in (
        ("one", "x", 0.0, 1.0, 2.0), ("two", "x", 1.0, 0.0, -1.0), ("three", "y", 2.0, 2.0, 0.5),
        ("four", "y", 3.0, 1.0, None),
    )
]  # fmt: skip


def test_points_have_their_names_in_the_colour_of_their_group() -> None:
    axes = stages(Figure("x", "scatter", "stages", "", "a", "b", hue="group", names="net"), PLACES)
    assert [(text.get_text(), text.xy) for text in axes.texts] == [  # type: ignore[attr-defined]
        ("one", (0, 1)), ("two", (1, 0)), ("three", (2, 2)), ("four", (3, 1)),
    ]  # fmt: skip
    assert [text.get_color() for text in axes.texts] == [COLOURS[0]] * 2 + [COLOURS[1]] * 2
    assert legend(axes) == ["x", "y"]


SPACE = Figure("s", "scatter3d", "stages", "", "a", "b", z="c", hue="group", names="net")


def test_points_in_space_stand_on_feet_and_have_names(tmp_path: Path) -> None:
    axes: Any = Canvas().add_subplot(projection="3d")
    DRAWERS["scatter3d"](axes, SPACE, Result("", {}, tables={"stages": PLACES}))
    lines = [np.array(line.get_data_3d()).T.tolist() for line in axes.lines]
    assert [[0, 1, 2], [1, 0, -1]] in lines  # the points of x
    assert [[2, 2, 0.5]] in lines  # of y: what has no third coordinate is left out
    assert [[0, 1, -1], [0, 1, 2]] in lines  # down to the lowest
    assert [text.get_text() for text in axes.texts] == ["one", "two", "three"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_zlabel()) == ("a", "b", "c")
    assert legend(axes) == ["x", "y"]
    (file,) = draw_figures(Result("", {}, tables={"stages": PLACES}, figures=[SPACE]), tmp_path)
    with Image.open(file) as image:
        assert min(image.size) > 300


def test_names_in_space_stand_at_their_points() -> None:
    canvas = Canvas()
    axes: Any = canvas.add_subplot(projection="3d")
    DRAWERS["scatter3d"](axes, SPACE, Result("", {}, tables={"stages": PLACES}))
    canvas.draw_without_rendering()
    for text, row in zip(axes.texts, PLACES, strict=False):
        (line,) = (
            line for line in axes.lines
            if np.array(line.get_data_3d()).T.tolist()[-1:] == [[row["a"], row["b"], row["c"]]]
            and line.get_marker() == "None"
        )  # fmt: skip
        drawn_at = line.get_xydata()[-1]  # where matplotlib itself has put it
        np.testing.assert_allclose(text.xy, drawn_at, atol=1e-3)


def test_the_largest_bars_of_either_sign_come_first() -> None:
    rows = [
        {"stage": n, "kind": k, "y": y}
        for n, k, y in (("a", "p", 1), ("b", "q", -5), ("c", "p", 3), ("d", "q", 0.5))
    ]
    axes = stages(Figure("x", "bar", "stages", "", "stage", "y", hue="kind", most=3), rows)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "c", "a"]
    assert sorted((round(bar.get_y() + bar.get_height() / 2), bar.get_width())
                  for bar in axes.patches) == [(0, -5), (1, 3), (2, 1)]  # fmt: skip
    assert {round(bar.get_height(), 3) for bar in axes.patches} == {0.736}  # none stands beside
    assert [text.get_text().strip() for text in axes.texts] == ["1", "3", "-5"]
    whole = stages(Figure("x", "bar", "stages", "", "stage", "y", hue="kind"), rows)
    assert [label.get_text() for label in whole.get_yticklabels()] == ["a", "c", "b", "d"]


def test_a_map_of_other_columns_has_its_own_labels_ends_and_stars() -> None:
    arrays = {
        "m": np.array([[0.9, -0.2], [np.nan, 0.5], [-1.0, 0.0]]),
        "rows": np.array(["p", "q", "r"]),
        "cols": np.array(["pc1", "pc2"]),
        "sure": np.array([[True, False], [True, False], [False, False]]),
    }
    figure = Figure(
        "m", "heatmap", "m", "", "", "", labels="rows", columns="cols", limits=(-1.0, 1.0),
        mark="sure",
    )  # fmt: skip
    canvas = Canvas()
    axes = canvas.add_subplot()
    DRAWERS["heatmap"](axes, figure, Result("", {}, arrays=arrays))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["pc1", "pc2"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["p", "q", "r"]
    assert cells(axes) == {
        (0, 0): "0.900*", (0, 1): "-0.200", (1, 1): "0.500", (2, 0): "-1.000", (2, 1): "0.000",
    }  # fmt: skip
    image = axes.images[0]
    assert image.get_clim() == (-1, 1)
    red, green, blue, _ = image.cmap(image.norm(0.0))
    assert min(red, green, blue) > 0.95  # nothing is white
    assert image.cmap(image.norm(0.5))[0] > 0.8 > image.cmap(image.norm(-0.9))[0]
