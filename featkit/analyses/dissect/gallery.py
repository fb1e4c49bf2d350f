"""The images that excite each unit most, with the regions that do."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 160  # pixels of the longer side of an image that is kept
DECODED = 512  # images that are held decoded, 75 kB each


@dataclass
class Gallery:
    """Top images of units.

    Attributes:
        cells: Rows and columns of the regions.
        rows: Of each unit's images, int64 (units, top), -1 where there are fewer.
        names: Of the images by row.
        images: Their JPEGs by row, as the network saw them.
        regions: Where the unit was active, packed bits, by unit and rank.
    """

    cells: tuple[int, int]
    rows: NDArray[np.int64]
    names: dict[int, str] = field(default_factory=dict)
    images: dict[int, bytes] = field(default_factory=dict)
    regions: dict[tuple[int, int], NDArray[np.uint8]] = field(default_factory=dict)
    _decoded: dict[int, NDArray[np.uint8]] = field(default_factory=dict, repr=False)

    def image(self, row: int) -> NDArray[np.uint8]:
        """Return an image, (h, w, 3); the last few are kept decoded."""
        if row not in self._decoded:
            if len(self._decoded) == DECODED:
                self._decoded.clear()
            self._decoded[row] = np.asarray(Image.open(io.BytesIO(self.images[row])))
        return self._decoded[row]

    def keep(self, row: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Keep an image, (h, w, 3)."""
        image = Image.fromarray(pixels)
        scale = SIDE / max(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=85)
        self.names[row], self.images[row] = name, file.getvalue()

    def mark(self, unit: int, rank: int, mask: NDArray[np.bool_]) -> None:
        """Keep the region (places) of a unit in one of its images."""
        self.regions[unit, rank] = np.packbits(mask)

    def region(self, unit: int, rank: int) -> NDArray[np.bool_]:
        """Return a region, bool (rows, columns)."""
        rows, columns = self.cells
        bits = np.unpackbits(self.regions[unit, rank], count=rows * columns)
        return bits.astype(bool).reshape(rows, columns)
