"""Maps as pictures that lie in rows and columns, uint8 (rows, columns, h, w, 3)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]

_TOP = 99
"""Percentile of a map that is as bright as it gets: single pixels would make the rest black."""


def in_unit(maps: NDArray[Any]) -> NDArray[np.float64]:
    """Divide each map (…, h, w) by the 99th percentile of its sizes, and clip to [-1, 1].

    Where that is 0 the largest takes its place.

    Example:
        >>> in_unit(np.array([[[0.0, 2.0]], [[0.0, 0.0]]])).tolist()
        [[[0.0, 1.0]], [[0.0, 0.0]]]
    """
    sizes = np.abs(maps)
    top = np.percentile(sizes, _TOP, axis=(-2, -1), keepdims=True)
    top = np.where(top > 0, top, sizes.max(axis=(-2, -1), keepdims=True))
    scaled: NDArray[np.float64] = np.clip(maps / np.where(top > 0, top, 1), -1, 1)
    return scaled


def overlay(maps: NDArray[Any]) -> Pixels:
    """Return two or three maps, (s, 2 or 3, h, w), as red, green and blue, (s, h, w, 3)."""
    colours = np.zeros((*maps.shape[:1], *maps.shape[2:], 3))
    colours[..., : maps.shape[1]] = np.moveaxis(in_unit(maps), 1, -1)
    return _bytes(colours)


def glow(maps: NDArray[Any]) -> Pixels:
    """Return maps (…, h, w) from black over red and yellow to white, (…, h, w, 3)."""
    return _bytes(np.clip(3 * in_unit(maps)[..., None] - np.arange(3), 0, 1))


def red_blue(values: NDArray[Any]) -> Pixels:
    """Return maps (…, h, w) with what is above 0 red, what is below blue, (…, h, w, 3).

    Example:
        >>> red_blue(np.array([[1.0, 0.0, -1.0]])).tolist()
        [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]
    """
    scaled = in_unit(values)[..., None]
    red, blue = np.array([0, 1, 1]), np.array([1, 1, 0])
    return _bytes(1 - np.clip(scaled, 0, 1) * red - np.clip(-scaled, 0, 1) * blue)


def _bytes(colours: NDArray[np.float64]) -> Pixels:
    return np.rint(255 * colours).astype(np.uint8)
