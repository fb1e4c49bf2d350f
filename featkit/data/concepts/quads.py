"""The top, left, bottom and right part of every object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]

from featkit.data.concepts.base import Concept, ConceptSource, Labels
from featkit.data.concepts.grid import Grid

_SIDES = ("top", "left", "bottom", "right")


class QuadParts:
    """A source with the parts ``person-top``, ``-left``, ``-bottom``, ``-right`` of its objects.

    Each connected component (eight neighbours) of an object's cells is halved at the middle of its
    bounding box: of n rows the upper ⌊n / 2⌋ are top and the others bottom, of n columns the first
    ⌊n / 2⌋ are left. A cell is so in two parts, and each layer that holds objects gives two more:
    top or bottom, left or right.

    Args:
        source: Where the objects come from.

    Source: Bau et al. 2020, arXiv:2009.05041, as in davidbau/dissect at 9421eaa,
    ``netdissect/segmenter.py``, ``expand_segment_quad``. We differ in halving every component,
    where a range there leaves out the last, and in doing so in every layer of objects.
    """

    def __init__(self, source: ConceptSource) -> None:
        self.source = source
        objects = [i + 1 for i, c in enumerate(source.concepts) if c.category == "object"]
        known = len(source.concepts)
        self._first_part = np.zeros(known + 1, dtype=np.int32)
        for i, label in enumerate(objects):
            self._first_part[label] = known + 1 + len(_SIDES) * i
        names = [source.concepts[label - 1].name for label in objects]
        parts = [Concept(f"{name}-{side}", "part") for name in names for side in _SIDES]
        self.concepts = (*source.concepts, *parts)

    @property
    def name(self) -> str:
        """That of the source."""
        return self.source.name

    def identity(self) -> dict[str, Any]:
        """That of the source, and the kind of its parts."""
        return {**self.source.identity(), "parts": "quad"}

    def check(self, ids: Sequence[str]) -> None:
        """Refuse what the source refuses."""
        self.source.check(ids)

    def label(self, sample: str, image: Image.Image, grid: Grid) -> Labels:
        """Add two layers of parts for each layer with objects.

        Cost: one labelling of components for each object in a layer.
        """
        whole = self.source.label(sample, image, grid)
        parts = [self._halve(layer) for layer in whole if self._first_part[layer].any()]
        return np.concatenate([whole, *parts])

    def _halve(self, layer: Labels) -> Labels:
        """Return (2, h, w): top or bottom, left or right."""
        halves = np.zeros((2, *layer.shape), dtype=np.int32)
        for label in np.unique(layer):
            if first := self._first_part[label]:
                for rows, columns, inside in _components(layer == label):
                    middle = inside.shape[0] // 2, inside.shape[1] // 2
                    box = halves[:, rows, columns]
                    box[0, : middle[0]][inside[: middle[0]]] = first
                    box[1, :, : middle[1]][inside[:, : middle[1]]] = first + 1
                    box[0, middle[0] :][inside[middle[0] :]] = first + 2
                    box[1, :, middle[1] :][inside[:, middle[1] :]] = first + 3
        return halves


def _components(mask: NDArray[np.bool_]) -> list[tuple[slice, slice, NDArray[np.bool_]]]:
    """Return the bounding box of each component, and which of its cells belong to it."""
    numbered, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    boxes = ndimage.find_objects(numbered)
    return [(*box, numbered[box] == i + 1) for i, box in enumerate(boxes)]
