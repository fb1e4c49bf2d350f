"""Several sources of concepts as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from featkit.data.concepts.base import Concept, ConceptSource, Labels
from featkit.data.concepts.grid import Grid


class MergedConcepts:
    """The layers of several sources, one above the other.

    A concept that several sources have, by name and category, is one concept.

    Args:
        sources: One or more.
    """

    def __init__(self, sources: Sequence[ConceptSource]) -> None:
        self.sources = tuple(sources)
        every = dict.fromkeys(concept for source in sources for concept in source.concepts)
        self.concepts: tuple[Concept, ...] = tuple(every)
        number = {concept: i + 1 for i, concept in enumerate(every)}
        self._numbers = [
            np.array([0, *(number[c] for c in source.concepts)], dtype=np.int32)
            for source in sources
        ]

    @property
    def name(self) -> str:
        """Those of the sources, with a plus between them."""
        return " + ".join(source.name for source in self.sources)

    def identity(self) -> dict[str, Any]:
        """Those of the sources, in their order."""
        return {"sources": [source.identity() for source in self.sources]}

    def check(self, ids: Sequence[str]) -> None:
        """Refuse what one of the sources refuses."""
        for source in self.sources:
            source.check(ids)

    def label(self, sample: str, image: Image.Image, grid: Grid) -> Labels:
        """Stack the layers of all sources."""
        pairs = zip(self.sources, self._numbers, strict=True)
        return np.concatenate([n[s.label(sample, image, grid)] for s, n in pairs])
