"""Labels of pixels from a network: what all of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from featkit.backbones.base import hash_tensors
from featkit.data.concepts.base import CodeBook, Concept, Labels
from featkit.data.concepts.grid import Grid

UNLABELLED = frozenset(
    ("", "-", "__background__", "background", "other", "unlabeled", "unlabelled", "unknown", "void")
)
"""Names, in lower case, of classes that stand for nothing."""

Predict = Callable[[Image.Image], Labels]


@dataclass(frozen=True, eq=False)
class NetworkConcepts:
    """What a network sees in the whole image: a `ConceptSource`.

    The image is labelled as a whole, whatever part of it the cells cover, so that the labels do not
    depend on the network whose units are looked at.

    Attributes:
        name: The source as the user wrote it.
        architecture: Of the network.
        module: The network in evaluation mode.
        book: What its class numbers stand for.
        predict: From an image to class numbers, (layers, h, w), of any resolution.
        settings: Whatever else decides the labels.
    """

    name: str
    architecture: str
    module: nn.Module
    book: CodeBook
    predict: Predict
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """The classes that stand for something."""
        return self.book.concepts

    def identity(self) -> dict[str, Any]:
        """The network, its weights, and how images are given to it.

        Cost: one pass over the weights, the first time.
        """
        return {
            "network": self.architecture,
            "weights": self._weights,
            "codes": self.book.digest(),
            **self.settings,
        }

    @cached_property
    def _weights(self) -> str:
        return hash_tensors(self.module.state_dict())

    def check(self, ids: Sequence[str]) -> None:
        """Accept every image."""

    def label(self, _sample: str, image: Image.Image, grid: Grid) -> Labels:
        """Run the network on the image and sample its classes at the cells.

        Cost: one forward.
        """
        return self.book.labels(grid.sample(self.predict(image), image.size, outside=-1))


def objects(names: Mapping[int, str]) -> CodeBook:
    """Take class numbers for objects, but for those whose names stand for nothing.

    Example:
        >>> objects({0: "__background__", 7: "car"}).concepts
        (Concept(name='car', category='object'),)
    """
    named = [(code, name) for code, name in names.items() if name.lower() not in UNLABELLED]
    return CodeBook([(code, Concept(name, "object")) for code, name in named])


def classes(scores: Tensor) -> Labels:
    """Return the best class of each pixel, (b, h, w), of scores (b, classes, h, w)."""
    best: Labels = scores.argmax(1).to(torch.int32).cpu().numpy()
    return best
