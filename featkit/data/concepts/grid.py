"""The cells of a network's input at which an image is labelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from featkit.data.preprocessing import Preprocessing
from featkit.errors import UsageError

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class Grid:
    """Equal cells over the crop that a network sees.

    A cell takes the label of the pixel under its centre. With resized width ``r``, crop width ``c``
    that begins at ``l``, ``n`` cells and a map of width ``m``, the centre of cell j is at
    ``x = l + (j + 1/2) c / n`` in the resized image and lies on pixel ``⌊x m / r⌋`` of the map,
    for 0 ≤ x < r. A centre on the border of two pixels belongs to the right or lower one.

    Attributes:
        preprocessing: How the network's input was resized and cropped.
        cells: (rows, columns).

    Raises:
        UsageError: There are no cells.

    Example:
        >>> recipe = Preprocessing((4, 4), None, "bilinear", (0.5,) * 3, (0.5,) * 3)
        >>> labels = np.arange(1, 37, dtype=np.int32).reshape(6, 6)
        >>> Grid(recipe, (2, 2)).sample(labels, (6, 6))
        array([[15, 17],
               [27, 29]], dtype=int32)
    """

    preprocessing: Preprocessing
    cells: tuple[int, int]

    def __post_init__(self) -> None:
        if len(self.cells) != 2 or min(self.cells) < 1:
            raise UsageError(f"cells {self.cells} are rows and columns, at least 1 each")

    def pixels(
        self, image_size: tuple[int, int], map_size: tuple[int, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the row and the column of a map under the centre of each cell.

        Args:
            image_size: (width, height) of the image that was resized.
            map_size: (width, height) of a map of the same picture, of any resolution.

        Returns:
            (rows,) and (columns,) int64, -1 where a cell lies beside the image.
        """
        resized, start = self.preprocessing.placement(image_size)
        height, width = self.preprocessing.size
        return (
            _under(self.cells[0], height, start[1], resized[1], map_size[1]),
            _under(self.cells[1], width, start[0], resized[0], map_size[0]),
        )

    def sample(
        self, maps: NDArray[Number], image_size: tuple[int, int], outside: int = 0
    ) -> NDArray[Number]:
        """Sample maps of an image at the cells, by the nearest pixel.

        Args:
            maps: (…, h, w), any dtype and resolution.
            image_size: (width, height) of the image.
            outside: Of cells beside the image.

        Returns:
            (…, *cells), of the same dtype.

        Cost: one read and one write a cell.
        """
        rows, columns = self.pixels(image_size, (maps.shape[-1], maps.shape[-2]))
        sampled = maps[..., np.maximum(rows, 0)[:, None], np.maximum(columns, 0)]
        sampled[..., rows < 0, :] = outside
        sampled[..., columns < 0] = outside
        return sampled


def _under(cells: int, crop: int, start: int, resized: int, pixels: int) -> NDArray[np.int64]:
    """Return the pixel under each cell's centre along one axis, in whole numbers throughout."""
    centre = (2 * np.arange(cells, dtype=np.int64) + 1) * crop + 2 * cells * start
    whole = 2 * cells * resized
    return np.where((centre >= 0) & (centre < whole), centre * pixels // whole, -1)
