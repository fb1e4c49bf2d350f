"""An epoch in which every cluster is seen as often as any other."""

from __future__ import annotations

import numpy as np

from featkit.ops.neighbors import Integers


def uniform_over_clusters(labels: Integers, rng: np.random.Generator) -> Integers:
    """Draw as many images as there are, as many of each cluster as of any other.

    Of each cluster that holds images ``n // clusters + 1`` are drawn: different ones of a cluster
    that has more, with replacement of one that has not. They are shuffled, and cut to n.

    Args:
        labels: (n) cluster of each image; clusters without images do not count.
        rng: Draws.

    Returns:
        (n) positions in ``labels``.

    Source: Caron et al. 2018, arXiv:1807.05520, sec. 3.3 ("trivial parametrization"); their
    ``UnifLabelSampler``.

    Example:
        >>> labels = np.array([5] * 9 + [7])
        >>> drawn = uniform_over_clusters(labels, np.random.default_rng(0))
        >>> len(drawn), int((labels[drawn] == 7).sum()) in (4, 5, 6)
        (10, True)
    """
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=labels[order[:1]] - 1))
    members = np.split(order, starts[1:])
    count = len(labels) // len(members) + 1
    drawn = [rng.choice(own, count, replace=len(own) <= count) for own in members]
    return rng.permutation(np.concatenate(drawn))[: len(labels)]
