"""The bootstrap over a stream."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from featkit.errors import UsageError

BUFFERED = 2**23  # numbers that wait for one product with the weights, where these are few
WAITING = 0.25  # vectors that wait, over the draws, where they are long


class PoissonBootstrap:
    """Sums of a stream's vectors, each taken as often as a draw says.

    In every draw each vector counts Poisson(1) times, which is what drawing n of n with replacement
    tends to, and needs neither n nor a second pass.

    Args:
        size: Of the vectors, m.
        draws: How many, 1 or more.
        seed: 0 or more. Equal seeds give equal weights to vectors that come in the same order.

    Attributes:
        sums: Of the vectors so far, with their weights, float32 (draws, m).

    Raises:
        UsageError: An argument cannot be used.

    Cost: 2·draws·m operations a vector; memory 4·draws·m bytes, and a quarter of it or 32 MB.

    Source: Oza and Russell 2001, Online bagging and boosting; Chamandy et al. 2012, Estimating
    uncertainty for massive data streams.

    Example:
        >>> bootstrap = PoissonBootstrap(1, 1000, 0)
        >>> for value in range(10):
        ...     bootstrap.add(torch.tensor([float(value)]))
        >>> round(bootstrap.sums.mean().item()), round(bootstrap.sums.std().item())  # 45, √285
        (46, 17)
    """

    def __init__(self, size: int, draws: int, seed: int) -> None:
        if size < 1 or draws < 1 or seed < 0:
            raise UsageError(
                f"vectors of {size} numbers, {draws} draws and seed {seed}: give a number, a draw"
                " and a seed of 0, at least"
            )
        self._random = np.random.default_rng(seed)
        self._sums = torch.zeros(draws, size)
        self._waiting = torch.empty(
            max(1, min(256, max(BUFFERED // size, int(WAITING * draws)))), size
        )
        self._count = 0

    def add(self, vector: Tensor) -> None:
        """Take the next vector, (m)."""
        self._waiting[self._count] = vector
        self._count += 1
        if self._count == len(self._waiting):
            self._flush()

    @property
    def sums(self) -> Tensor:
        """The sums so far."""
        self._flush()
        return self._sums

    def _flush(self) -> None:
        # a vector's weights are drawn together, so that they do not depend on the buffer's length
        weights = self._random.poisson(1.0, (self._count, len(self._sums)))
        self._sums.addmm_(torch.from_numpy(weights).float().T, self._waiting[: self._count])
        self._count = 0
