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
from featkit.ops.tail_quantiles import TailQuantiles
from featkit.ops.upsampling import Upsampling

PLACES = 1_000_000  # numbers of a unit from which a level of 1 % is taken, at most
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
        total: Numbers of each unit, if all images can be read.
        sampled: How many of these are looked at, the same share of every image.
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
        each = math.prod(cells if variant.upsampled else self.size)
        self.total = each * images
        most = int(PLACES * min(1.0, USUAL / share))
        self._drawn = min(each, max(1, most // images))
        self.sampled = self._drawn * images
        self._each, self._seed = each, seed
        self._tail = TailQuantiles(self.units, max(2, self.sampled), share)
        self._levels: Tensor | None = None
        self.peaks = torch.full((self.units, top), -torch.inf)
        self.rows = torch.full((self.units, top), -1, dtype=torch.int64)

    def maps(self, images: Tensor) -> Tensor:
        """Return the maps of normalised images (b, 3, h, w), float32 (b, units, *size)."""
        with computing_in(self._precision, self._device):
            maps: Tensor = self._runner(images)
        return maps.cpu()

    def look(self, row: int, maps: Tensor) -> None:
        """Take the maps (units, h, w) of an image into account for levels and top images."""
        numbers = self._upsample(maps) if self._variant.upsampled else maps
        numbers = numbers.flatten(1)
        if self._drawn < self._each:
            random = np.random.default_rng([self._seed, row])
            drawn = random.choice(self._each, self._drawn, replace=False, shuffle=False)
            numbers = numbers[:, torch.from_numpy(drawn)]
        self._tail.add(numbers)
        if self.peaks.shape[1]:
            peaks = torch.cat([self.peaks, maps.flatten(1).amax(1, keepdim=True)], 1)
            rows = torch.cat([self.rows, torch.full((self.units, 1), row)], 1)
            # of equal peaks the earlier image comes first
            order = peaks.sort(dim=1, descending=True, stable=True).indices[:, :-1]
            self.peaks, self.rows = peaks.gather(1, order), rows.gather(1, order)

    @property
    def levels(self) -> Tensor:
        """The level of each unit, float32 (units)."""
        if self._levels is None:
            self._levels = self._tail.levels()
        return self._levels

    def masks(self, maps: Tensor) -> Tensor:
        """Return where units exceed their levels, bool (units, places), of maps (units, h, w)."""
        # no cell exceeds the largest place, or 0 where a map fades into what is outside of it
        bound = maps.flatten(1).amax(1)
        if self._variant.border == "fade":
            bound = bound.clamp(min=0)
        some = torch.nonzero(bound > self.levels).squeeze(1)
        masks = torch.zeros(self.units, math.prod(self._upsample.want), dtype=torch.bool)
        masks[some] = self._upsample(maps[some]).flatten(1) > self.levels[some, None]
        return masks

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
