"""The features of several models for the same images, and where a representation starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from featkit.errors import UsageError
from featkit.ops.neighbors import unit_rows
from featkit.ops.pca import principal_components
from featkit.ops.row_sources import RowSource
from featkit.parallel.group import add_up, all_of, first, here

_BLOCK = 8192


class Targets:
    """What must be recovered: L2-normalised rows of m models, z_i^j = x_i^j / ‖x_i^j‖.

    Rows are normalised as they are read, so that mapped files stay on disk. A row of zeros stays
    one.

    Args:
        features: m arrays or tables (n, d_j) of real numbers, finite.
        widths: What d_j must be; None for any.

    Raises:
        UsageError: They are not such arrays, or do not belong together.

    Attributes:
        sources: The features.
        widths: d_j.
        non_negative: Whether all features of model j are at least 0.
        means: Mean of z^j over all rows, (d_j) each, float32.
        own: Rows that are this process's, all of one that is alone.

    Cost: one pass over the features, of which several processes read a part each; then memory for
    the rows that are read.
    """

    def __init__(self, features: Any, widths: Sequence[int] | None = None) -> None:
        if not isinstance(features, list | tuple) or not features:
            raise UsageError(
                "features are a list of arrays (n, d), one for each model, as in [a, b, c]"
            )
        self.sources = [_matrix(x, j) for j, x in enumerate(features)]
        self.widths = tuple(x.shape[1] for x in self.sources)
        counts = [x.shape[0] for x in self.sources]
        if len(set(counts)) > 1:
            raise UsageError(
                f"the models have features of different numbers of images, {counts}; extract all "
                f"from the same images"
            )
        if widths is not None and self.widths != tuple(widths):
            raise UsageError(
                f"the models have {list(self.widths)} dimensions, and it was fitted on "
                f"{list(widths)}; give the same models in the same order"
            )
        self.own = here().share(counts[0])
        least = [float("inf")] * len(self.sources)
        sums = [torch.zeros(d, dtype=torch.float64) for d in self.widths]
        for _, parts in self.blocks():
            for j, part in enumerate(parts):
                least[j] = min(least[j], float(part.min()))
                sums[j] += part.double().sum(0)
        least = [min(values) for values in zip(*all_of(least), strict=True)]
        self.non_negative = tuple(value >= 0 for value in least)
        self.means = tuple((add_up(total) / len(self)).float() for total in sums)

    def __len__(self) -> int:
        return self.sources[0].shape[0]

    def read(self, index: Tensor, where: str = "") -> list[Tensor]:
        """Return rows of every model, normalised.

        Args:
            index: (b).
            where: What to add to the model's name in messages.

        Returns:
            m tensors (b, d_j), float32.

        Raises:
            UsageError: A row is not finite.
        """
        # files are read from front to back
        order, places = index.sort()
        back, rows = torch.empty_like(places), order.numpy()
        back[places] = torch.arange(len(places))
        return [
            torch.from_numpy(unit_rows(x[rows], name=f"model {j}{where}").array)[back]
            for j, x in enumerate(self.sources)
        ]

    def blocks(self, rows: slice | None = None) -> Iterator[tuple[slice, list[Tensor]]]:
        """Yield consecutive rows with their place, as :meth:`read`; its own if not told which."""
        rows = rows or self.own
        for start in range(rows.start, rows.stop, _BLOCK):
            place = slice(start, min(start + _BLOCK, rows.stop))
            where = f" from row {start:,}" if start else ""
            yield place, self.read(torch.arange(place.start, place.stop), where)

    def average(self, start: Tensor) -> None:
        """Write ψ0_i = Σ_j z_i^j / ‖Σ_j z_i^j‖ of its own rows into ``start``; 0 where the sum is.

        Source: Wallace et al. 2021, arXiv:2110.10293, sec. 3.
        """
        for place, parts in self.blocks():
            start[self._inside(place)] = functional.normalize(torch.stack(parts).sum(0))

    def principal_components(self, width: int) -> tuple[Tensor, Tensor]:
        """Return mean and first components of the concatenation, (Σ d_j) and (w, Σ d_j).

        Raises:
            UsageError: It has fewer.
        """
        most = min(len(self), sum(self.widths))
        if not 1 <= width <= most:
            raise UsageError(
                f"width {width}: the features of {len(self)} images in {sum(self.widths)} "
                f"dimensions together have 1 to {most} principal components"
            )
        rows = slice(0, len(self))
        blocks = (torch.cat(parts, 1) for _, parts in self.blocks(rows))
        return first(lambda: principal_components(blocks, width))

    def project(self, start: Tensor, mean: Tensor, components: Tensor) -> None:
        """Write the normalised projection of its own rows' concatenation on components."""
        for place, parts in self.blocks():
            found = functional.normalize((torch.cat(parts, 1) - mean) @ components.T)
            start[self._inside(place)] = found

    def _inside(self, place: slice) -> slice:
        """Return where rows are among its own."""
        return slice(place.start - self.own.start, place.stop - self.own.start)


def _matrix(x: Any, j: int) -> RowSource:
    """Return rows without reading them: tables are mapped into memory."""
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        array = (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    else:
        array = (
            x.numpy() if hasattr(x, "numpy") else x if isinstance(x, RowSource) else np.asarray(x)
        )
    if len(array.shape) != 2 or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise UsageError(
            f"the features of model {j} are {array.dtype} {array.shape}: give real numbers (n, d)"
        )
    found: RowSource = array
    return found
