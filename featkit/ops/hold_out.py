"""The rows on which what is learned from the others is judged."""

from __future__ import annotations

import torch

from featkit.errors import UsageError
from featkit.ops.neighbors import Integers


def hold_out(
    n: int, validation: float, generator: torch.Generator | int
) -> tuple[Integers, Integers]:
    """Draw the rows to hold out, at random, and return them and the others.

    One ``randperm(n)``, of which the first ``round(validation · n)`` are held out.

    Args:
        n: Rows.
        validation: Share of the rows that is held out, in (0, 1).
        generator: Draws the ``randperm``, and may draw more afterwards; or the seed of a new one.

    Returns:
        The rows held out, int64 (h), and the others, int64 (n - h), both in the order drawn.

    Raises:
        UsageError: No row would be held out, or none be left.

    Cost: 8·n bytes.

    Example:
        >>> held_out, others = hold_out(50, 0.2, 0)
        >>> len(held_out), len(others)
        (10, 40)
    """
    count = round(validation * n)
    if not 0 < count < n:
        raise UsageError(
            f"validation is {validation}, which holds out {count} of {n} sample(s): some must be"
            " held out and some be left"
        )
    if not isinstance(generator, torch.Generator):
        generator = torch.Generator().manual_seed(int(generator))
    drawn = torch.randperm(n, generator=generator).numpy()
    return drawn[:count], drawn[count:]
