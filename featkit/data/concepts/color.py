"""The eleven basic colours, named from the pixels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree  # type: ignore[import-untyped]

from featkit.data.concepts.base import Concept, Labels
from featkit.data.concepts.color_survey import SURVEY
from featkit.data.concepts.grid import Grid
from featkit.data.concepts.view import view

COLORS = (
    *("black", "blue", "brown", "green", "grey", "orange", "pink", "purple", "red", "white"),
    "yellow",
)
"""The basic terms of English (Berlin and Kay, 1969)."""


_ACHROMATIC = ("black", "grey", "white")
_BLACK, _WHITE = 28.28, 79.65  # lightness up to which no hue is black, and from which it is white
_NEIGHBORS = 9


class Colors:
    """Each pixel's basic colour: a `ConceptSource` that needs no files.

    The pixels are those of :func:`featkit.data.concepts.view.view`. See :func:`name_colors` for
    how they are named.

    Args:
        name: The source as the user wrote it.
    """

    def __init__(self, name: str = "color") -> None:
        self.name = name
        self.concepts = tuple(Concept(color, "color") for color in COLORS)

    def identity(self) -> dict[str, Any]:
        """The method; raised with every change of it."""
        return {"layout": "color", "version": 1}

    def check(self, ids: Sequence[str]) -> None:
        """Accept every image."""

    def label(self, _sample: str, image: Image.Image, grid: Grid) -> Labels:
        """Name the pixels under the cells; one layer.

        Cost: one resize of the image, one search among 558 colours a cell.
        """
        seen = np.moveaxis(np.asarray(view(image)), -1, 0)
        cells = np.moveaxis(grid.sample(seen, image.size), 0, -1)
        inside = grid.sample(np.ones(seen.shape[1:], dtype=np.int32), image.size)
        named = name_colors(cells.reshape(-1, 3)).reshape(grid.cells) + 1
        labels: Labels = (named * inside).astype(np.int32)[None]
        return labels


def name_colors(pixels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the basic colour of pixels.

    The nine colours of the survey that are nearest in CIELAB (D65) vote for the names people gave
    them, weighted by 1 / distance². Colours without hue, which the survey mostly calls grey, are
    then divided by lightness: black up to L* = 28.28, white from 79.65.

    Args:
        pixels: (n, 3) sRGB.

    Returns:
        (n,) places in ``COLORS``.

    Cost: O(n log 558).

    Source: :data:`featkit.data.concepts.color_survey.SURVEY` (Munroe 2010). The lightnesses are the
    fitted ones of Benavente, Vanrell and Baldrich 2008, Parametric fuzzy sets for automatic color
    naming, JOSA A 25(10). Left out of the vote in turn, 89 % of the survey's colours get their own
    name; the eleven focal colours of Heider 1972 all do.

    Example:
        >>> pixels = np.array([[255, 0, 0], [20, 60, 200], [128, 128, 128]], dtype=np.uint8)
        >>> [COLORS[i] for i in name_colors(pixels)]
        ['red', 'blue', 'grey']
    """
    tree, terms = _survey()
    lab = srgb_to_lab(pixels)
    distances, nearest = tree.query(lab, _NEIGHBORS)
    votes = np.zeros((len(pixels), len(COLORS)))
    rows = np.arange(len(pixels))[:, None]
    np.add.at(votes, (rows, terms[nearest]), 1 / np.maximum(distances**2, 1e-9))
    black, grey, white = (COLORS.index(name) for name in _ACHROMATIC)
    votes[:, grey] += votes[:, black] + votes[:, white]
    votes[:, [black, white]] = 0
    best = votes.argmax(1)
    by_lightness = np.where(lab[:, 0] <= _BLACK, black, np.where(lab[:, 0] < _WHITE, grey, white))
    return np.where(best == grey, by_lightness, best)


@functools.cache
def _survey() -> tuple[cKDTree, NDArray[np.intp]]:
    """Return the survey's colours in CIELAB, and the place of each one's name in ``COLORS``."""
    named = [(name, text) for name, colors in SURVEY.items() for text in colors.split()]
    pixels = np.array([list(bytes.fromhex(text)) for _, text in named], dtype=np.uint8)
    return cKDTree(srgb_to_lab(pixels)), np.array([COLORS.index(name) for name, _ in named])


_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def srgb_to_lab(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Convert 8-bit sRGB to CIELAB with the white point D65.

    Args:
        pixels: (…, 3).

    Returns:
        (…, 3): L* in [0, 100], a*, b*.

    Source: IEC 61966-2-1 (sRGB) and CIE 15 (L*a*b*).

    Example:
        >>> srgb_to_lab(np.array([255, 0, 0], dtype=np.uint8)).round(1)
        array([53.2, 80.1, 67.2])
    """
    scaled = np.arange(256) / 255
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    xyz = linear[pixels] @ (_TO_XYZ / _TO_XYZ.sum(1, keepdims=True)).T
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1
    )
