"""What a concept is, and what a source of labelled pixels is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featkit.data.concepts.grid import Grid

Labels: TypeAlias = NDArray[np.int32]


MOST_CODE = 2**24
"""The largest number that label maps may hold: three bytes a pixel."""


@dataclass(frozen=True, order=True)
class Concept:
    """Something that pixels can show.

    Attributes:
        name: Such as ``car``.
        category: ``object``, ``part``, ``material``, ``color``, ``texture``, ``scene``, or a word
            of the user's own.
    """

    name: str
    category: str


@runtime_checkable
class ConceptSource(Protocol):
    """Names of concepts, and for each image which of its pixels show them."""

    @property
    def name(self) -> str:
        """The source as the user wrote it."""

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """The concepts, each once; label i stands for ``concepts[i - 1]``."""

    def identity(self) -> dict[str, Any]:
        """What decides the labels, as JSON holds it; equal sources give equal dictionaries."""

    def check(self, ids: Sequence[str]) -> None:
        """Raise `SourceError` where an image has no labels in this source."""

    def label(self, sample: str, image: Image.Image, grid: Grid, /) -> Labels:
        """Label the cells of an image.

        Args:
            sample: The id of the sample in its image source.
            image: Mode RGB, as it was decoded.
            grid: Where on the image the cells lie.

        Returns:
            (layers, *grid.cells) int32, layers ≥ 1, not the same for all images. A cell has as many
            labels as layers that are not 0 there; 0 is unlabelled, as is all that the image does
            not cover.

        Raises:
            SourceError: The image has no labels, or they cannot be read.
        """


class CodeBook:
    """What the numbers stored in label maps stand for.

    Args:
        codes: Pairs of a stored number, ≥ 0, and its concept. Several numbers may stand for one.
        unlabelled: Stored numbers that stand for nothing. None: all numbers not in ``codes``;
            otherwise all further numbers are errors.

    Example:
        >>> book = CodeBook([(8, Concept("car", "object")), (9, Concept("person", "object"))])
        >>> book.labels(np.array([[8, 9, 0, 1000, -1]]))
        array([[1, 2, 0, 0, 0]], dtype=int32)
    """

    def __init__(
        self, codes: Iterable[tuple[int, Concept]], unlabelled: Iterable[int] | None = None
    ) -> None:
        pairs = list(codes)
        self.concepts = tuple(dict.fromkeys(concept for _, concept in pairs))
        number = {concept: i + 1 for i, concept in enumerate(self.concepts)}
        empty = [] if unlabelled is None else list(unlabelled)
        known = [(code, number[concept]) for code, concept in pairs] + [(e, 0) for e in empty]
        # entry 0 is for -1, outside the image, and the last for every larger number
        self._table = np.full(max(code for code, _ in known) + 3, 0 if unlabelled is None else -1)
        self._table = self._table.astype(np.int32)
        self._table[0] = 0
        for code, label in known:
            self._table[code + 1] = label

    def labels(self, codes: NDArray[Any]) -> Labels:
        """Map stored numbers to labels: -1 to 0, and those that have no meaning to -1."""
        return np.take(self._table, np.minimum(codes.astype(np.int64) + 1, len(self._table) - 1))

    def digest(self) -> str:
        """Return the sha256 of the concepts and the numbers that stand for them."""
        digest = hashlib.sha256(json.dumps([[c.name, c.category] for c in self.concepts]).encode())
        digest.update(self._table.tobytes())
        return digest.hexdigest()
