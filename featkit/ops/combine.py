"""Baselines that put the features of several models together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from featkit.errors import UsageError
from featkit.ops.neighbors import unit_rows

Combination = Literal["average", "concat"]


def combine(features: Sequence[NDArray[Any]], how: Combination) -> NDArray[np.float32]:
    """Average or concatenate the L2-normalised features of m models.

    ``average`` is mean_j z_j / ‖z_j‖, ``concat`` is [z_1 / ‖z_1‖, …, z_m / ‖z_m‖].

    Args:
        features: m arrays (n, d_j); equal d_j for the average.
        how: Which.

    Returns:
        (n, d) or (n, Σ d_j), float32.

    Raises:
        UsageError: The shapes do not fit, or a row is not finite.

    Cost: one pass over the features.

    Source: Wallace et al., Learning rich nearest neighbor representations from self-supervised
    ensembles, 2021, arXiv:2110.10293, baselines of section 4.

    Example:
        >>> a, b = np.array([[2.0, 0.0]]), np.array([[0.0, 5.0]])
        >>> combine([a, b], "average"), combine([a, b], "concat")
        (array([[0.5, 0.5]], dtype=float32), array([[1., 0., 0., 1.]], dtype=float32))
    """
    units = [unit_rows(x).array for x in features]
    rows = {len(x) for x in units}
    if len(rows) != 1:
        raise UsageError(f"{how}: the models have different numbers of rows, {sorted(rows)}")
    if how == "concat":
        return np.concatenate(units, axis=1)
    widths = [x.shape[1] for x in units]
    if len(set(widths)) > 1:
        raise UsageError(f"average: the models have different widths, {widths}; use concat")
    total = units[0].copy()
    for unit in units[1:]:
        total += unit
    total /= len(units)
    return total
