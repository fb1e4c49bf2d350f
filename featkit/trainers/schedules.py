"""Numbers that change while a network is trained."""

from __future__ import annotations

import math


def half_cosine(share: float, first: float, last: float) -> float:
    """Return what lies between two numbers on half a cosine, flat at both ends.

    Args:
        share: Of the way, 0 to 1.
        first: At 0.
        last: At 1.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts.

    Example:
        >>> [half_cosine(share, 2.0, 0.0) for share in (0, 0.5, 1)]
        [2.0, 1.0, 0.0]
    """
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * share))
