"""Panels show the points of their rows in the colours of their classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure as Canvas
from PIL import Image

from featkit.analyses.base import Figure, Result
from featkit.report.figures import DRAWERS, draw_figures

FIGURE = Figure(
    "f", "facets", "points", "Points", "x", "y", hue="kind", labels="kinds",
    panels=("method", "net"),
)  # fmt: skip
PLAIN = Figure("f", "facets", "points", "Points", "x", "y", panels=("method", "net"))


def result(kinds: int, figure: Figure = FIGURE, net: str = "resnet20/avgpool") -> Result:
    rng = np.random.default_rng(0)
    rows = [
        {"method": method, "net": name, "kind": f"k{i % kinds}", "x": x, "y": y}
        for method in ("umap", "tsne")
        for name in ("one", "two", net)
        for i, (x, y) in enumerate(rng.standard_normal((60, 2)))
    ]
    names = np.array([f"k{i}" for i in range(kinds)])
    return Result("", {}, tables={"points": rows}, arrays={"kinds": names}, figures=[figure])


def drawn(made: Result) -> Any:
    axes = Canvas().add_subplot()
    DRAWERS["facets"](axes, made.figures[0], made)
    return axes


def at(panel: Any) -> dict[tuple[float, float], str]:
    """The colour of each point."""
    (cloud,) = panel.collections
    colours = cloud.get_facecolors()
    if len(colours) == 1:
        colours = np.repeat(colours, len(cloud.get_offsets()), axis=0)
    pairs = zip(cloud.get_offsets().tolist(), colours, strict=True)
    return {tuple(place): to_hex(colour) for place, colour in pairs}


def test_rows_and_columns_are_the_values_of_two_columns() -> None:
    made = result(3)
    axes = drawn(made)
    panels = axes.child_axes
    assert [panel.get_ylabel() for panel in panels] == ["umap", "", "", "tsne", "", ""]
    assert [panel.get_title() for panel in panels] == ["one", "two", "resnet20/avgpool"] + [""] * 3
    places = [panel.get_position() for panel in panels]
    assert places[0].y0 == places[2].y0 > places[3].y1
    assert places[0].x1 < places[1].x0 < places[2].x0
    assert places[0].x0 == places[3].x0
    for panel, first in zip(panels, range(0, 360, 60), strict=True):
        wanted = made.tables["points"][first : first + 60]
        colours = {(row["x"], row["y"]): int(row["kind"][1:]) for row in wanted}
        tab = ["#1f77b4", "#ff7f0e", "#2ca02c"]
        assert at(panel) == {place: tab[kind] for place, kind in colours.items()}
        assert not len(panel.get_xticks()) + len(panel.get_yticks())
        assert panel.get_aspect() == 1


@pytest.mark.parametrize(("kinds", "named"), [(2, 2), (10, 10), (20, 20), (21, 0), (1, 0)])
def test_classes_that_can_be_told_apart_have_a_legend(kinds: int, named: int) -> None:
    axes = drawn(result(kinds))
    assert len(set(at(axes.child_axes[0]).values())) == kinds
    box = axes.get_legend()
    texts = [text.get_text() for text in box.get_texts()] if box else []
    assert texts == [f"k{i}" for i in range(named)]
    if box:
        keys = [to_hex(handle.get_facecolor()[0]) for handle in box.legend_handles]
        assert len(set(keys)) == named


def test_without_classes_points_have_one_colour() -> None:
    axes = drawn(result(3, PLAIN))
    assert len(set(at(axes.child_axes[0]).values())) == 1
    assert axes.get_legend() is None


def test_points_without_a_class_among_others_are_grey() -> None:
    made = result(3)
    for row in made.tables["points"]:
        row["kind"] = None if row["kind"] == "k2" else row["kind"]
    assert set(at(drawn(made).child_axes[0]).values()) == {"#1f77b4", "#ff7f0e", "#999999"}


def test_no_class_lies_over_another() -> None:
    """Rows that come class by class are drawn in another order."""
    made = result(2)
    made.tables["points"].sort(key=lambda row: row["kind"])
    (cloud,) = drawn(made).child_axes[0].collections
    first = [to_rgba(colour) for colour in cloud.get_facecolors()[:30]]
    assert len(set(first)) == 2


def test_long_names_are_broken_and_the_picture_holds_all(tmp_path: Path) -> None:
    name = "train:efficientnet_lite0/global_pool.avg"
    axes = drawn(result(3, net=name))
    assert axes.child_axes[2].get_title() == "train:efficientnet_lite0/\nglobal_pool.avg"
    (file,) = draw_figures(result(3, net=name), tmp_path)
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels.shape[1] > 3 * 2.2 * 200
    assert pixels.shape[0] > 2 * 2.2 * 200
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge == 255).all()
