"""Vectors divided by their lengths, for losses of cosines."""

from __future__ import annotations

import torch
from torch import Tensor

SHORT = 1e-12  # vectors up to this length have no direction


def unit_vectors(x: Tensor) -> Tensor:
    """Return vectors (…, d) as float32 of length 1; zero vectors stay so and have no gradient.

    Example:
        >>> unit_vectors(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    x = x.float()
    lengths: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / lengths.masked_fill(lengths <= SHORT, torch.inf)
