"""How well the places where units are active fit the places of concepts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from featkit.errors import UsageError
from featkit.ops.poisson_bootstrap import PoissonBootstrap

Union = Literal["everywhere", "category", "category under the mask"]


class ConceptTally:
    """Counts of places: active, of a concept, and both; and their intersection over union.

    ``IoU = I / (A + G - I)``, summed over all images: I places where the unit is active and the
    concept is, G places of the concept, A places where the unit is active. ``everywhere``: A of all
    images. ``category``: A of images in which some concept of the same category occurs.
    ``category under the mask``: A of images in which some such concept occurs where the unit is
    active.

    Args:
        units: c.
        categories: That of each concept, k of them.
        union: Which A.
        draws: Of a bootstrap over the images; 0 for none.
        seed: Of the bootstrap.

    Attributes:
        seen: Places so far.
        active: Where each unit was active, int64 (c).

    Raises:
        UsageError: ``union`` is unknown, there are no concepts, or the bootstrap cannot be drawn.

    Cost: a product of 2·c'·p·k' operations an image of p places in which k' concepts occur and c'
    units are active, exact in whole numbers; with a bootstrap 2·draws·c·k more; memory 8·c·k bytes,
    and 5·c·k a draw.

    Source: ``everywhere`` is dissect (Bau et al. 2020, arXiv:2009.05041; github.com/davidbau/
    dissect, 9421eaa, ``netdissect/tally.py``), ``category`` NetDissect (Bau et al. 2017,
    arXiv:1704.05796; ``src/makeresult.py``), the last NetDissect-Lite (``feature_operation.py``).

    Example:
        >>> tally = ConceptTally(1, ["object"])
        >>> tally.add(torch.tensor([[True, True, False]]), torch.tensor([[0, 1, 1]]))
        >>> tally.iou().round(decimals=4).tolist()  # 1 of 3 places
        [[0.3333]]
    """

    def __init__(
        self,
        units: int,
        categories: Sequence[str],
        union: Union = "everywhere",
        draws: int = 0,
        seed: int = 0,
    ) -> None:
        if union not in get_args(Union):
            raise UsageError(f"union {union!r} is unknown: give {' or '.join(get_args(Union))}")
        if not len(categories):
            raise UsageError("there are no concepts: give one or more")
        self._union = union
        names = list(dict.fromkeys(categories)) if union != "everywhere" else ["everywhere"]
        of = (
            [names.index(c) for c in categories] if union != "everywhere" else [0] * len(categories)
        )
        self._category = torch.tensor(of)
        self._is_of = torch.eye(len(names))[self._category]
        self._shape = (units, len(categories), len(names))
        size = units * (len(categories) + len(names)) + len(categories)
        self._sums = torch.zeros(size, dtype=torch.int64)
        self._bootstrap = PoissonBootstrap(size, draws, seed) if draws else None
        self.seen, self.active = 0, torch.zeros(units, dtype=torch.int64)

    def add(self, masks: Tensor, labels: Tensor, units: Tensor | None = None) -> None:
        """Count one image.

        Args:
            masks: Where each unit is active, bool (c, p).
            labels: Concepts at each place, whole numbers (layers, p); 0 is none, i the concept
                ``i - 1``. A concept counts once where several layers have it.
            units: Of which units, int64 (c'), each once, where ``masks`` is (c', p); the others are
                active nowhere.
        """
        units = torch.arange(self._shape[0]) if units is None else units
        occurs = torch.bincount(labels.flatten(), minlength=self._shape[1] + 1)[1:]
        index = torch.nonzero(occurs).squeeze(1)
        place = torch.zeros(len(occurs) + 1, dtype=torch.int64)
        place[index + 1] = torch.arange(1, len(index) + 1)
        rows = torch.zeros(len(index) + 1, labels.shape[1])
        rows.scatter_(0, place[labels.long()], 1.0)
        rows[0] = 1  # everywhere
        products = masks.float() @ rows.T  # exact below 2^24 places
        total, shared = products[:, :1], products[:, 1:]
        if self._union == "everywhere":
            counted = total
        elif self._union == "category":
            counted = total * (self._is_of[index].sum(0, keepdim=True) > 0)
        else:
            counted = total * (shared @ self._is_of[index] > 0)
        sums = [self._sums]
        if self._bootstrap is not None:
            sums.append(torch.zeros(len(self._sums)))
        for each in sums:
            both, active, places = self._split(each)
            both[units[:, None], index] += shared.to(each.dtype)
            active[units] += counted.to(each.dtype)
            places[index] += rows[1:].sum(1).to(each.dtype)
        self.active[units] += total.squeeze(1).long()
        self.seen += labels.shape[1]
        if self._bootstrap is not None:
            self._bootstrap.add(sums[1])

    def iou(self) -> Tensor:
        """Return the intersection over union of each unit and concept, float64 (c, k), in [0, 1].

        0 where neither occurs.
        """
        return self._iou(self._sums)

    def draws(self) -> Iterator[Tensor]:
        """Give the same for each draw of the bootstrap."""
        if self._bootstrap is not None:
            yield from map(self._iou, self._bootstrap.sums)

    def places(self) -> Tensor:
        """Return how many places each concept has, int64 (k)."""
        return self._split(self._sums)[2]

    def _split(self, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return places of units and concepts (c, k), of units (c, categories), and of concepts."""
        units, concepts, names = self._shape
        lengths = [units * concepts, units * names, concepts]
        both, active, places = torch.split(counts, lengths)
        return both.view(units, concepts), active.view(units, names), places

    def _iou(self, counts: Tensor) -> Tensor:
        both, active, places = self._split(counts.double())
        union = active[:, self._category] + places - both
        return torch.where(union > 0, both / union.clamp(min=1), 0.0)
