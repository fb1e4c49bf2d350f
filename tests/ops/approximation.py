"""Rows with structure, for approximate searches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


def clustered(n: int, d: int = 16, seed: int = 0, clusters: int = 40) -> NDArray[np.float32]:
    """Rows around centres that do not depend on the seed."""
    rng = np.random.default_rng([1, seed])
    centres = np.random.default_rng(99).standard_normal((clusters, d))
    noise = rng.standard_normal((n, d))
    return (centres[rng.integers(0, clusters, n)] + 0.7 * noise).astype(np.float32)


def gathered(found):
    """Similarities and rows of all blocks of a search."""
    found = list(found)
    for (before, _, _), (after, _, _) in pairwise(found):
        assert before.stop == after.start
    return tuple(np.concatenate([block[i] for block in found]) for i in (1, 2))
