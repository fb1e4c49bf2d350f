"""Pictures in rows and columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from featkit.analyses.base import Figure, Result

_SIDE = 0.95
"""Of the longer side of a picture, in inches."""

_LETTERS = 14
"""Of a title, that fit on a picture."""


def draw_pictures(axes: Axes, figure: Figure, result: Result) -> None:
    """Draw an array (rows, columns, h, w, 3) as one image, its pixels as squares."""
    pictures = result.arrays[figure.data]
    rows, columns, h, w = pictures.shape[:4]
    gap = max(1, max(h, w) // 24)
    high, wide = rows * (h + gap) - gap, columns * (w + gap) - gap
    page = np.full((high, wide, 3), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (h + gap), column * (w + gap)
            page[top : top + h, left : left + w] = pictures[row, column]
    scale = _SIDE / max(h, w)
    paper: Any = axes.figure
    across, down = paper.get_size_inches()
    axes.set_position((0.125, 0.11, wide * scale / across, high * scale / down))
    axes.imshow(page, interpolation="nearest")
    downs, acrosses = (
        [str(name) for name in result.arrays[str(names)]]
        for names in (figure.labels, figure.columns)
    )
    axes.set_yticks((h - 1) / 2 + np.arange(rows) * (h + gap), downs)
    titles = [name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…" for name in acrosses]
    axes.set_xticks((w - 1) / 2 + np.arange(columns) * (w + gap), titles)
    axes.tick_params(length=0, labelsize=8, top=False, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
