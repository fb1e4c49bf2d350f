"""The contrastive loss of SimCLR."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from featkit.errors import UsageError


def nt_xent(first: Tensor, second: Tensor, temperature: float = 0.5) -> Tensor:
    """Return the normalised, temperature-scaled cross-entropy of two views of n images.

    Mean over all 2n rows i of ``-log(exp(sim(i, j) / τ) / Σ_{k ≠ i} exp(sim(i, k) / τ))`` with j
    the other view of the same image, sim the cosine, and k over the other 2n - 1 rows.

    Args:
        first: (n, d), n ≥ 1; a zero row has cosine 0 with all others.
        second: (n, d), row for row of the same images.
        temperature: τ > 0.

    Returns:
        A scalar in float32, whatever the type of the rows; ``log(2n - 1)`` where all cosines are
        equal.

    Raises:
        UsageError: The shapes differ, or the temperature is not above 0.

    Cost: 8·n²·d operations and 16·n² bytes, in the forward.

    Source: Malviya and Sudhakar, Feature diversity in self-supervised learning, eq. 2.1; Chen et
    al. 2020, arXiv:2002.05709, eq. 1.

    Example:
        >>> rows = torch.eye(2)
        >>> round(float(nt_xent(rows, rows, temperature=1.0)), 4)  # log(1 + 2 / e)
        0.5514
    """
    if first.ndim != 2 or first.shape != second.shape or not len(first):
        raise UsageError(
            f"two views are (n, d) both, n ≥ 1; not {tuple(first.shape)} and {tuple(second.shape)}"
        )
    if not (temperature > 0 and math.isfinite(temperature)):
        raise UsageError(f"temperature is {temperature!r}: give a number above 0")
    n = len(first)
    with torch.autocast(first.device.type, enabled=False):
        rows = functional.normalize(torch.cat([first, second]).float(), dim=1)
        logits = rows @ rows.T / temperature
        logits.fill_diagonal_(-torch.inf)
        return functional.cross_entropy(logits, torch.arange(2 * n, device=rows.device).roll(n))
