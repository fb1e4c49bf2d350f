"""Quantiles near the top of streams of numbers, in one pass and bounded memory."""

from __future__ import annotations

import math

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
        self._least = torch.full((units, 1), -torch.inf)

    def add(self, numbers: Tensor) -> None:
        """Take the next numbers of every stream.

        Args:
            numbers: (c, m), finite.

        Raises:
            UsageError: Numbers are not finite, or are more than were announced.
        """
        if self.given + numbers.shape[1] > self.total:
            raise UsageError(f"more than the {self.total} numbers a unit that were announced")
        if not torch.isfinite(numbers.sum()):
            bad = int((~torch.isfinite(numbers).all(1)).nonzero()[0])
            raise UsageError(f"activations of unit {bad} hold NaN or infinity")
        self.given += numbers.shape[1]
        if self._filled.max() == 0:
            self._merge(numbers)
            return
        units, places = (numbers > self._least).nonzero(as_tuple=True)
        counts = torch.bincount(units, minlength=len(numbers))
        if int((self._filled + counts).max()) > self._held.shape[1]:
            self._keep(self._held[:, : int(self._filled.max())])
            if int((self._filled + counts).max()) > self._held.shape[1]:
                self._merge(numbers)
                return
        starts = counts.cumsum(0) - counts
        columns = torch.arange(len(units)) - (starts - self._filled)[units]
        self._held[units, columns] = numbers[units, places]
        self._filled += counts

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

    def _merge(self, numbers: Tensor) -> None:
        """Hold the largest of those that are held and others."""
        self._keep(torch.cat([self._held[:, : int(self._filled.max())], numbers], 1))

    def _keep(self, numbers: Tensor) -> None:
        """Hold the largest of these."""
        kept = _largest(numbers, min(self.count, numbers.shape[1]))
        self._held.fill_(-torch.inf)
        self._held[:, : kept.shape[1]] = kept
        self._filled.fill_(kept.shape[1])
        if kept.shape[1] == self.count:
            self._least = kept[:, :1].clone()


def _largest(numbers: Tensor, count: int) -> Tensor:
    """Return the largest of each row, ascending; numpy sorts ten times as fast as torch selects."""
    return torch.from_numpy(np.sort(numbers.numpy(), axis=1)[:, numbers.shape[1] - count :])
