"""Figures show the numbers of the result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas
from PIL import Image

from featkit.analyses.base import Figure, Result
from featkit.errors import UsageError
from featkit.report.figures import DRAWERS, draw_figures

ROWS = [
    {"net": "a", "k": 1, "top1": 0.5},
    {"net": "a", "k": 5, "top1": 0.75},
    {"net": "b", "k": 1, "top1": 0.25},
]


def result(*figures: Figure) -> Result:
    arrays = {"confusion": np.array([[3, 1], [0, 4]]), "classes": np.array(["cat", "dog"])}
    return Result("knn", {}, tables={"accuracy": ROWS}, arrays=arrays, figures=list(figures))


LINE = Figure("line", "line", "accuracy", "By k", "k", "top1", hue="net")
BAR = Figure("bar", "bar", "accuracy", "By net", "net", "top1", hue="k")
HEAT = Figure("heat", "heatmap", "confusion", "Confusion", "predicted", "true", labels="classes")


def test_lines_bars_and_cells_are_the_numbers() -> None:
    axes = Canvas().add_subplot()
    DRAWERS["line"](axes, LINE, result())
    assert [line.get_xydata().tolist() for line in axes.lines] == [
        [[1, 0.5], [5, 0.75]],
        [[1, 0.25]],
    ]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    axes = Canvas().add_subplot()
    DRAWERS["bar"](axes, BAR, result())
    assert sorted(bar.get_width() for bar in axes.patches) == [0.25, 0.5, 0.75]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    axes = Canvas().add_subplot()
    DRAWERS["heatmap"](axes, HEAT, result())
    np.testing.assert_array_equal(axes.images[0].get_array(), [[3, 1], [0, 4]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog"]


def test_every_figure_becomes_a_png(tmp_path: Path) -> None:
    files = draw_figures(result(LINE, BAR, HEAT), tmp_path / "new")
    assert [file.name for file in files] == ["line.png", "bar.png", "heat.png"]
    for file in files:
        with Image.open(file) as image:
            assert image.size == (1200, 760)
            assert len(np.unique(np.asarray(image.convert("L")))) > 5


def test_unknown_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean bar"):
        draw_figures(result(Figure("x", "bars", "accuracy", "", "net", "top1")), tmp_path)
