"""Quantiles near the top of streams of numbers, in one pass and bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from featkit.errors import UsageError

ROOM = 2  # numbers that are held, over those that are needed, before the least are dropped


class TailQuantiles:
    """The level that a small share of each unit's numbers exceeds.

    As many of the largest numbers are held as the level needs. Whatever is below the least of them
    passes by at the cost of a comparison.

    Args:
        units: Streams, c.
        total: Numbers of each stream, 2 or more; fewer may come.
        share: Of them above the level, in (0, 1).

    Raises:
        UsageError: An argument cannot be used.

    Attributes:
        least: Numbers up to this do not change the level of their unit, float32 (c); -inf before
            as many came as are held.

    Cost: a comparison a number; memory 8·c·share·total bytes and a mask of what is added.

    Example:
        >>> tail = TailQuantiles(1, 101, 0.1)
        >>> for part in torch.arange(101.0)[torch.randperm(101)].split(25):
        ...     tail.add(part[None])
        >>> tail.levels().tolist()
        [90.0]
    """

    def __init__(self, units: int, total: int, share: float) -> None:
        if units < 1 or total < 2 or not 0 < share < 1:
            raise UsageError(
                f"{units} units, {total} numbers and share {share}: give 1 unit, 2 numbers and a"
                " share in (0, 1), at least"
            )
        self.total, self.given = total, 0
        self._share = share
        self.count = min(total, math.floor((total - 1) * share) + 2)
        self._held = torch.full((units, ROOM * self.count), -torch.inf)
        self._filled = torch.zeros(units, dtype=torch.int64)
        self.least = torch.full((units,), -torch.inf)

    def add(self, numbers: Tensor) -> None:
        """Take the next numbers of every stream.

        Args:
            numbers: (c, m), finite.

        Raises:
            UsageError: Numbers are not finite, or are more than were announced.
        """
        self.add_parts(numbers.shape[1], [(torch.arange(len(self.least)), numbers)])

    def add_parts(self, m: int, parts: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Take the next numbers of every stream, of some units only.

        Args:
            m: How many numbers a stream.
            parts: Units, int64 (c'), and their numbers, (c', m), each unit once at most. Those of
                the units that are left out do not exceed ``least``.

        Raises:
            UsageError: Numbers are not finite, or are more than were announced.
        """
        if self.given + m > self.total:
            raise UsageError(f"more than the {self.total} numbers a unit that were announced")
        self.given += m
        for units, numbers in parts:
            if not torch.isfinite(numbers.sum()) and not torch.isfinite(numbers).all():
                bad = int(units[~torch.isfinite(numbers).all(1)][0])
                raise UsageError(f"activations of unit {bad} hold NaN or infinity")
            self._take(units, numbers)

    def levels(self) -> Tensor:
        """Return the level of each unit, as ``numpy.quantile`` interpolates; float32 (c).

        Raises:
            UsageError: There are fewer than 2.
        """
        if self.given < 2:
            raise UsageError(f"{self.given} numbers a unit have no quantiles: give 2 or more")
        highest = _largest(self._held, self.count).flip(1).double()
        place = (self.given - 1) * self._share
        above = math.floor(place)
        upper, lower = highest[:, above], highest[:, min(above + 1, self.count - 1)]
        return torch.lerp(upper, lower, place - above).float()

    def _take(self, units: Tensor, numbers: Tensor) -> None:
        width = self._held.shape[1]
        above = np.flatnonzero((numbers > self.least[units, None]).numpy())  # torch's is slower
        starts = np.searchsorted(above, np.arange(len(units) + 1) * numbers.shape[1])
        counts = np.diff(starts)
        filled = self._filled[units].numpy()
        full = filled + counts > width
        if full.any():
            self._merge(units[full], numbers[full])
            above = above[np.repeat(~full, counts)]
            counts[full] = 0
            starts = np.concatenate([[0], np.cumsum(counts)])
        first = units.numpy() * width + filled - starts[:-1]
        places = np.repeat(first, counts) + np.arange(len(above))
        self._held.numpy().reshape(-1)[places] = numbers.numpy().reshape(-1)[above]
        self._filled[units] += torch.from_numpy(counts)

    def _merge(self, units: Tensor, numbers: Tensor) -> None:
        """Hold the largest of those that some units hold, and of others."""
        most = int(self._filled[units].max())
        kept = _largest(torch.cat([self._held[units, :most], numbers], 1), self.count)
        self._held[units] = -torch.inf
        self._held[units, : kept.shape[1]] = kept
        self._filled[units] = kept.shape[1]
        if kept.shape[1] == self.count:
            self.least[units] = kept[:, 0]


def _largest(numbers: Tensor, count: int) -> Tensor:
    """Return the largest of each row, ascending; numpy sorts ten times as fast as torch selects."""
    return torch.from_numpy(np.sort(numbers.numpy(), axis=1)[:, -count:])
