"""The rows of a logistic regression, read block by block from where they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from featkit.errors import UsageError
from featkit.ops.logistic_losses import Loss

Array: TypeAlias = npt.NDArray[Any]
Keep: TypeAlias = Callable[[slice, Tensor], None]  # takes the place of a block and its weights

BLOCK = 4096  # rows in one matrix product
HELD_FLOATS = 2**28  # of rows, of turned rows, of weights, of class blocks: up to 1 GiB each
ARRAYS = 10  # of that size, and of those that a product makes, at most at once
LARGEST = 1e15  # the squares of larger numbers may leave float32


def held_floats(max_memory: float | None) -> int:
    """Return how many numbers one array may have where all take some GB; None for no bound.

    Raises:
        UsageError: ``max_memory`` is no number above 0.

    Example:
        >>> held_floats(1.0)
        25000000
    """
    if max_memory is None:
        return HELD_FLOATS
    given: Any = max_memory
    is_number = isinstance(given, int | float | np.number) and not isinstance(given, bool)
    if not is_number or not 0 < given < np.inf:
        raise UsageError(f"max_memory is {max_memory!r}: give GB, a number above 0")
    return int(max_memory * 1e9 / (4 * ARRAYS))


class Rows:
    """Rows about their mean, with a 1 behind each.

    Args:
        features: (n, d), any real dtype; float64 is computed in float64, all else in float32.
        targets: Those of the rows that take part, (m) or (k, m), as the loss wants them.
        order: The rows that take part, int64 (m), ascending.
        mean: float64 (d); that of these rows if None.
        weight: How many rows each one stands for.

    Raises:
        UsageError: The rows are not finite, or too large.
    """

    def __init__(
        self,
        features: Array,
        targets: Tensor,
        order: Array,
        mean: Array | None = None,
        weight: float = 1.0,
    ) -> None:
        self.features, self.targets, self.order, self.weight = features, targets, order, weight
        self.dtype = torch.float64 if features.dtype == np.float64 else torch.float32
        self.mean = self._mean() if mean is None else mean
        self._held: Tensor | None = None

    def __len__(self) -> int:
        return len(self.order)

    def sample(self, kept: Array) -> Rows:
        """Return the rows at some places, ascending, standing for all."""
        return Rows(
            self.features,
            self.targets[..., torch.from_numpy(kept)],
            self.order[kept],
            self.mean,
            self.weight * len(self) / len(kept),
        )

    def hold(self) -> None:
        """Keep the rows about their mean in memory from now on."""
        held = torch.empty(len(self), self.features.shape[1] + 1, dtype=self.dtype)
        for part, block in self.blocks():
            held[part] = block
        self._held = held

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Give the place and the rows (b, d + 1) of each block; the next one may overwrite them."""
        if self._held is not None:
            for start in range(0, len(self), BLOCK):
                part = slice(start, min(start + BLOCK, len(self)))
                yield part, self._held[part]
            return
        width = self.features.shape[1]
        space = torch.ones(min(BLOCK, len(self)), width + 1, dtype=self.dtype)
        mean = self.mean.astype(space.numpy().dtype)
        for part, rows in self._read():
            block = space[: len(rows)]
            np.subtract(rows, mean, out=block.numpy()[:, :width], casting="same_kind")
            yield part, block

    def evaluate(
        self,
        loss: Loss,
        coefficients: Tensor,
        penalties: Tensor,
        columns: Tensor,
        keep: Keep | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the objectives and gradients of many problems in one pass over the rows.

        Args:
            loss: Of one row.
            coefficients: float64 (p, c, d + 1), biases last.
            penalties: λ, float64 (p).
            columns: Of the targets, int64 (p).
            keep: Is given the weights (p, c, b) of each block.

        Returns:
            float64 (p) and (p, c, d + 1).
        """
        p, c, width = coefficients.shape
        held = coefficients.reshape(p * c, width).to(self.dtype)
        gradient, losses = torch.zeros_like(held), torch.zeros_like(penalties)
        for part, block in self.blocks():
            logits = (block @ held.T).T.contiguous().view(p, c, -1)
            lost, residuals, weights = loss.evaluate(logits, self.targets[..., part], columns)
            losses += lost
            gradient.addmm_(residuals.view(p * c, -1), block)
            if keep:
                keep(part, weights)
        taken = held.double().view(p, c, width)  # rounded, as in the losses
        decayed = taken * penalties[:, None, None]
        decayed[..., -1] = 0
        objectives = self.weight * losses + (decayed * taken).sum((1, 2)) / 2
        return objectives, decayed.add_(gradient.view(p, c, width), alpha=self.weight)

    def objectives(
        self,
        loss: Loss,
        coefficients: Tensor,
        penalties: Tensor,
        columns: Tensor,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Return only the objectives, float64 (p), computed in ``dtype``; as the rows if None."""
        p, c, width = coefficients.shape
        taken = coefficients.reshape(p * c, width).to(dtype or self.dtype)
        losses = torch.zeros_like(penalties)
        for part, block in self.blocks():
            logits = (taken @ block.to(taken.dtype).T).view(p, c, -1)
            losses += loss.evaluate(logits, self.targets[..., part], columns)[0]
        return self.weight * losses + penalties * coefficients[..., :-1].square().sum((1, 2)) / 2

    def bends(
        self, loss: Loss, coefficients: Tensor, columns: Tensor
    ) -> Iterator[tuple[slice, Tensor]]:
        """Give the place of each block, and the second derivatives by its logits.

        Args:
            loss: Of one row.
            coefficients: float64 (p, c, d + 1), biases last.
            columns: Of the targets, int64 (p).

        Yields:
            Of the rows of a block, (p · c, b).
        """
        p, c, width = coefficients.shape
        taken = coefficients.reshape(p * c, width).to(self.dtype)
        for part, block in self.blocks():
            logits = (block @ taken.T).T.contiguous().view(p, c, -1)
            targets = self.targets[..., part]
            weights = loss.evaluate(logits, targets, columns)[2]
            yield part, loss.bends(weights, targets).flatten(0, 1)

    def _mean(self) -> Array:
        total = np.zeros(self.features.shape[1])
        least, most = total + np.inf, total - np.inf
        bad: list[int] = []
        for part, rows in self._read():
            with np.errstate(invalid="ignore"):  # infinity is refused below
                total += rows.sum(axis=0, dtype=np.float64)
            least, most = np.minimum(least, rows.min(axis=0)), np.maximum(most, rows.max(axis=0))
            if not max(most.max(), -least.min()) <= LARGEST:
                bad += self.order[part][~(np.abs(rows) <= LARGEST).all(axis=1)].tolist()
        if bad:
            raise UsageError(
                f"{len(bad)} of {len(self)} rows of features hold NaN, infinity or numbers above"
                f" {LARGEST:.0e}, the first is row {bad[0]}: leave them out"
            )
        return np.where(least == most, least, total / len(self))  # what is constant becomes 0

    def _read(self) -> Iterator[tuple[slice, Array]]:
        for start in range(0, len(self), BLOCK):
            chosen = self.order[start : start + BLOCK]
            first, stop = chosen[0], chosen[-1] + 1
            whole = np.array_equal(chosen, np.arange(first, stop))
            rows = self.features[first:stop] if whole else self.features[chosen]
            yield slice(start, start + len(chosen)), rows
