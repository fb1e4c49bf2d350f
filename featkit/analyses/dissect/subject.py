"""One network while it is dissected."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featkit.analyses.dissect.variants import Variant
from featkit.backbones.base import Backbone
from featkit.backbones.maps import MapRunner, map_tap
from featkit.backbones.precision import computing_in
from featkit.backbones.probe import probe
from featkit.errors import UsageError
from featkit.ops.tail_quantiles import TailQuantiles
from featkit.ops.upsampling import Upsampling

PLACES = 1_000_000  # numbers of a unit from which a level of 1 % is taken, at most
TOGETHER = 256  # units whose numbers fit a processor's cache
USUAL = 0.01  # share above a level; of larger ones fewer numbers are as exact, and more are held


class Subject:
    """A network, the levels of its units, and the images that excite them most.

    Args:
        backbone: The network, on its device.
        tap: Of its maps.
        variant: How masks are made.
        share: Of the numbers that exceed a unit's level.
        cells: Rows and columns in which masks are made.
        images: How many there are, at most.
        top: Images to keep of each unit.
        precision: Number format of the forward.
        device: Where it runs.
        seed: Of the sample of places.

    Attributes:
        path: Of the module that is read.
        units: How many.
        size: Height and width of the maps.
        each: Numbers of each unit in an image.
        looked: Numbers of each unit that were looked at, the same share of each image.
        peaks: Largest activation in each of the top images, float32 (units, top), descending.
        rows: Of these images, int64 (units, top), -1 where there are fewer.
    """

    def __init__(
        self,
        backbone: Backbone,
        tap: str,
        variant: Variant,
        share: float,
        cells: tuple[int, int],
        images: int,
        top: int,
        precision: str,
        device: torch.device,
        seed: int,
    ) -> None:
        outputs = probe(backbone)
        found = map_tap(backbone, tap, outputs)
        self.backbone, self.path = backbone, found.path
        self._runner = MapRunner(backbone, found, outputs)
        self.units, self.size = self._runner.units, self._runner.size
        self._precision, self._device, self._variant = precision, device, variant
        self._upsample = Upsampling(self.size, cells, variant.border)
        self.each = math.prod(cells if variant.upsampled else self.size)
        most = int(PLACES * min(1.0, USUAL / share))
        self._drawn = min(self.each, max(1, most // images))
        self._seed, self.looked = seed, 0
        self._tail = TailQuantiles(self.units, max(2, self._drawn * images), share)
        self._levels: Tensor | None = None
        self.peaks = torch.full((self.units, top), -torch.inf)
        self.rows = torch.full((self.units, top), -1, dtype=torch.int64)

    def maps(self, images: Tensor) -> Tensor:
        """Return the maps of normalised images (b, 3, h, w), float32 (b, units, *size)."""
        with computing_in(self._precision, self._device):
            maps: Tensor = self._runner(images)
        return maps.cpu()

    def look(self, row: int, maps: Tensor) -> None:
        """Take the maps (units, h, w) of an image into account for levels and top images.

        Raises:
            UsageError: Activations are not finite.
        """
        peaks = maps.flatten(1).amax(1)
        if not torch.isfinite(maps.sum()) and not torch.isfinite(maps).all():
            bad = int((~torch.isfinite(maps).flatten(1).all(1)).nonzero()[0])
            raise UsageError(
                f"{self.backbone.name}: activations of unit {bad} hold NaN or infinity; give"
                " another tap or precision, or for random weights another seed, or no chance"
            )
        drawn = None
        if self._drawn < self.each:
            random = np.random.default_rng([self._seed, row])
            chosen = random.choice(self.each, self._drawn, replace=False, shuffle=False)
            drawn = torch.from_numpy(chosen)
        exceeding = torch.nonzero(self._bound(peaks) > self._tail.least).squeeze(1)
        parts = (
            (units, self._numbers(maps[units], drawn)) for units in torch.split(exceeding, TOGETHER)
        )
        self._tail.add_parts(self._drawn, parts)
        self.looked += self._drawn
        if self.peaks.shape[1]:
            better = torch.nonzero(peaks > self.peaks[:, -1]).squeeze(1)
            mine = torch.cat([self.peaks[better], peaks[better, None]], 1)
            rows = torch.nn.functional.pad(self.rows[better], (0, 1), value=row)
            # of equal peaks the earlier image comes first
            order = mine.sort(dim=1, descending=True, stable=True).indices[:, :-1]
            self.peaks[better], self.rows[better] = mine.gather(1, order), rows.gather(1, order)

    def _numbers(self, maps: Tensor, drawn: Tensor | None) -> Tensor:
        """Return the numbers of some units that levels are taken from, at some places or at all."""
        if self._variant.upsampled:
            return self._upsample(maps, drawn).flatten(1)
        return maps.flatten(1) if drawn is None else maps.flatten(1)[:, drawn]

    def _bound(self, peaks: Tensor) -> Tensor:
        """Return what no cell exceeds: the largest place, or 0 where a map fades into nothing."""
        return peaks.clamp(min=0) if self._variant.border == "fade" else peaks

    @property
    def levels(self) -> Tensor:
        """The level of each unit, float32 (units)."""
        if self._levels is None:
            self._levels = self._tail.levels()
        return self._levels

    def masks(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return where units exceed their levels.

        Args:
            maps: (units, h, w).

        Returns:
            Which units do anywhere, int64 (u), ascending, and where, bool (u, cells).
        """
        peaks = maps.flatten(1).amax(1)
        some = torch.nonzero(self._bound(peaks) > self.levels).squeeze(1)
        masks = torch.empty(len(some), math.prod(self._upsample.want), dtype=torch.bool)
        for units, mask in zip(
            torch.split(some, TOGETHER), torch.split(masks, TOGETHER), strict=True
        ):
            torch.gt(self._upsample(maps[units]).flatten(1), self.levels[units, None], out=mask)
        return some, masks

    def shown(self) -> dict[int, list[tuple[int, int]]]:
        """Return the (unit, rank) pairs of which each image is a top image."""
        pairs: dict[int, list[tuple[int, int]]] = {}
        where: NDArray[np.int64] = self.rows.numpy()
        for unit, rank in np.argwhere(where >= 0).tolist():
            pairs.setdefault(int(where[unit, rank]), []).append((unit, rank))
        return pairs

    def close(self) -> None:
        """Take the hook off the network."""
        self._runner.close()
