"""What two classifiers answer together, each with a weight."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.ops.neighbors import Integers

Doubles: TypeAlias = npt.NDArray[np.float64]

Rule = Literal["printed", "convex"]

_ROUNDING = 1e-3
"""How far sums of float16 probabilities may lie from 1."""


def pair_weights(performance: npt.ArrayLike, rule: Rule = "printed") -> Doubles:
    """Return what each of two models weighs in their common vote.

    ``w_ij = 0.5 + a_i - a_j`` is the weight of model i beside model j: ``0.5 + |a_i - a_j|`` of the
    better, ``0.5 - |a_i - a_j|`` of the weaker. As printed, a difference above 0.5 gives the better
    more than 1 and the weaker less than 0: what it votes for is then held against a class.
    ``convex`` cuts both at 0 and 1, which is the nearest pair of weights that are not negative and
    sum to 1; the better answers alone there, and all other pairs keep the weights as printed.

    Args:
        performance: a, (m) in [0, 1]: fractions, not per cent.
        rule: Which.

    Returns:
        float64 (m, m); ``w_ij + w_ji = 1``, and 0.5 on the diagonal.

    Raises:
        UsageError: These are no fractions, or there is no such rule.

    Source: Mustapha 2021, Unsupervised deep learning: inter-model interpretation and deep
    clustering, American University of Beirut, sec. 3.5.4, which does not say what happens outside
    of [0, 1]; Duchi et al. 2008, Efficient projections onto the l1-ball for learning in high
    dimensions, ICML (the nearest such weights).

    Example:
        >>> pair_weights([0.75, 0.5, 0.125])[0]
        array([0.5  , 0.75 , 1.125])
        >>> pair_weights([0.75, 0.5, 0.125], "convex")[2]
        array([0.   , 0.125, 0.5  ])
    """
    if rule not in get_args(Rule):
        raise UsageError(f"weights {rule!r}: use {' or '.join(get_args(Rule))}")
    shares = np.asarray(performance)
    if shares.ndim != 1 or shares.dtype.kind not in "fiu":
        raise UsageError(f"performance is {shares.dtype} {shares.shape}: give numbers (m)")
    if not ((shares >= 0) & (shares <= 1)).all():
        raise UsageError("performance is outside of [0, 1]: give fractions, not per cent")
    shares = shares.astype(np.float64)
    weights: Doubles = 0.5 + (shares[:, None] - shares)
    return weights.clip(0, 1) if rule == "convex" else weights


def pair_votes(probabilities: npt.ArrayLike, weights: npt.ArrayLike) -> Integers:
    """Return the class that every two models give each sample, by weighted soft vote.

    ``argmax_c w_ij p_ic + w_ji p_jc``; of equal classes the first.

    Args:
        probabilities: p, (m, n, c) in [0, 1], summing to 1 over the classes.
        weights: w, (m, m), finite, as from :func:`pair_weights`: row i is of model i.

    Returns:
        int64 (m, m, n) in [0, c), symmetric in the models; on the diagonal what each answers alone.

    Raises:
        UsageError: Shapes or values cannot be used.

    Cost: O(m²·n·c), and n·c numbers beside the inputs and the answers.

    Source: Mustapha 2021, sec. 3.5.4; Kuncheva 2004, Combining pattern classifiers, ch. 5 (weighted
    averages).

    Example:
        >>> p = [[[0.9, 0.1], [0.6, 0.4]], [[0.2, 0.8], [0.1, 0.9]]]
        >>> pair_votes(p, pair_weights([0.75, 0.5]))[0]
        array([[0, 0],
               [0, 1]])
    """
    shares, factors = np.asarray(probabilities), np.asarray(weights)
    if shares.ndim != 3 or shares.dtype.kind != "f" or not shares.size:
        given = f"{shares.dtype} {shares.shape}"
        raise UsageError(f"probabilities are {given}: give floats (models, samples, classes)")
    m = len(shares)
    if factors.shape != (m, m) or factors.dtype.kind not in "fiu" or not np.isfinite(factors).all():
        given = f"{factors.dtype} {factors.shape}"
        raise UsageError(f"weights are {given}: give finite numbers ({m}, {m})")
    # written so that NaN is refused too
    if not (shares.min() >= 0 and abs(shares.sum(2) - 1).max() <= _ROUNDING):
        raise UsageError("probabilities are negative or do not sum to 1: give those of a softmax")
    votes = np.empty((m, m, shares.shape[1]), np.int64)
    for i in range(m):
        votes[i, i] = shares[i].argmax(1)
        for j in range(i):
            together = factors[i, j] * shares[i] + factors[j, i] * shares[j]
            votes[i, j] = votes[j, i] = together.argmax(1)
    return votes
