"""Edge orientation and blur, from the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]

from featkit.data.concepts.base import Concept, Labels
from featkit.data.concepts.grid import Grid
from featkit.data.concepts.view import view

ORIENTATIONS = ("horizontal", "rising", "vertical", "falling")
"""Of lines: from left to right, to the upper right, upright, and to the lower right."""

FOCUS = ("sharp", "blurred")

_FINE = 1.0  # pixels: deviation of the Gaussian whose derivatives are taken
_WINDOW = 4.0  # pixels: deviation of the Gaussian over which they are averaged
_EDGE = 4.0  # root mean square gradient in grey levels a pixel that makes an edge
_COHERENT = 0.5  # of the structure tensor, from 0 (no direction) to 1 (one)
_SHARP, _BLURRED = 1.0, 2.0  # pixels: widest sharp and narrowest blurred edge

Floats = NDArray[np.floating[Any]]


class Textures:
    """Edge orientation and blur of each pixel: a `ConceptSource` that needs no files.

    The pixels are those of :func:`featkit.data.concepts.view.view`, in grey (Rec. 601 luma). Two
    layers: the orientation where the gradient is at least 4 grey levels a pixel (root mean square)
    and its coherence at least 0.5, in four bins of 45°; and ``sharp`` where edges are at most
    1 pixel wide, ``blurred`` where at least 2, both with the same least gradient. Flat regions are
    unlabelled in both.

    Args:
        name: The source as the user wrote it.
    """

    def __init__(self, name: str = "texture") -> None:
        self.name = name
        self.concepts = tuple(Concept(each, "texture") for each in (*ORIENTATIONS, *FOCUS))

    def identity(self) -> dict[str, Any]:
        """The method; raised with every change of it."""
        return {"layout": "texture", "version": 1}

    def check(self, ids: Sequence[str]) -> None:
        """Accept every image."""

    def label(self, _sample: str, image: Image.Image, grid: Grid) -> Labels:
        """Label the pixels under the cells; two layers.

        Cost: nine Gaussian filters over the reduced image.
        """
        grey = np.asarray(view(image).convert("L"), dtype=np.float32)
        energy, angle, coherence, width = edge_measures(grey)
        edge = energy >= _EDGE**2
        bins = np.floor(angle / (np.pi / 4) + 0.5).astype(np.int32) % 4 + 1
        orientation = np.where(edge & (coherence >= _COHERENT), bins, 0)
        focus = np.where(edge & (width <= _SHARP), 5, np.where(edge & (width >= _BLURRED), 6, 0))
        return grid.sample(np.stack([orientation, focus]).astype(np.int32), image.size)


def edge_measures(grey: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Measure how strong, oriented and wide the edges around each pixel are.

    With the gradient (g_x, g_y) and the Laplacian l of the image under a Gaussian of 1 pixel, and
    ⟨·⟩ the mean under a Gaussian of 4 pixels, the structure tensor is
    ``J = ⟨(g_x², g_x g_y; g_x g_y, g_y²)⟩`` with eigenvalues λ₁ ≥ λ₂. An edge between two levels
    that a Gaussian of deviation s has blurred has ``∫ g² / ∫ l² = 2 (s² + 1)``; so s is measured.

    Args:
        grey: (h, w), any scale.

    Returns:
        Four arrays (h, w): the energy λ₁ + λ₂; the angle of the lines in radians, in [0, π),
        counted from left to right towards the top; the coherence (λ₁ - λ₂) / (λ₁ + λ₂) in [0, 1];
        and the width s in pixels, ≥ 0. The last three are 0 where the image is flat.

    Source: Bigün and Granlund 1987, Optimal orientation detection of linear symmetry (the tensor
    and its coherence). The width is the closed form above.
    """
    options = {"sigma": _FINE, "mode": "nearest"}
    gx = ndimage.gaussian_filter(grey, order=(0, 1), **options)
    gy = ndimage.gaussian_filter(grey, order=(1, 0), **options)
    laplacian = ndimage.gaussian_filter(grey, order=(0, 2), **options)
    laplacian += ndimage.gaussian_filter(grey, order=(2, 0), **options)
    xx, yy, xy, ll = (
        ndimage.gaussian_filter(product, _WINDOW, mode="nearest")
        for product in (gx * gx, gy * gy, gx * gy, laplacian * laplacian)
    )
    energy = xx + yy
    flat = energy <= 1e-12
    safe = np.where(flat, 1, energy)
    coherence = np.where(flat, 0, np.hypot(xx - yy, 2 * xy) / safe)
    # rows count downwards: the gradient's angle upwards is that of (g_x, -g_y), and lines are
    # perpendicular to it
    gradient = np.arctan2(-2 * xy, xx - yy) / 2
    angle = np.where(flat, 0, (gradient + np.pi / 2) % np.pi)
    square = safe / (2 * np.where(flat, 1, np.maximum(ll, 1e-30))) - _FINE**2
    return energy, angle, coherence, np.where(flat, 0, np.sqrt(np.maximum(square, 0)))
