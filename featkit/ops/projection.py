"""Rows as points of a plane: UMAP and t-SNE."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from featkit.errors import MissingExtraError, UsageError
from featkit.ops.matrices import real_matrix
from featkit.ops.neighbors import Floats, unit_rows

Method = Literal["umap", "tsne"]
Metric = Literal["euclidean", "cosine"]

COMPONENTS = 50
"""Principal components that t-SNE sees of wider rows."""

_FEW = 1000
"""Rows; for fewer, the threads of t-SNE wait for each other longer than they work."""

_LARGEST = 1e15
"""Float32 holds the squares of such numbers, and sums of many."""

_SAME = 1e-6
"""Of the largest number; rows that differ by less are the same up to rounding."""

_STARTS = "Graph is not fully connected|Spectral initialisation failed"
"""What UMAP and scikit-learn say of where the descent starts when classes lie far apart."""


def project(
    x: npt.ArrayLike,
    method: Method = "umap",
    *,
    neighbors: int = 15,
    min_dist: float = 0.1,
    perplexity: float = 30.0,
    metric: Metric = "euclidean",
    seed: int = 0,
) -> Floats:
    """Place rows on a plane so that rows near each other stay near each other.

    Both descend to points y whose weights q are like those p of the rows' neighbours:
    ``Σ_ij p_ij log(p_ij / q_ij) + (1 - p_ij) log((1 - p_ij) / (1 - q_ij))`` with
    ``q_ij = 1 / (1 + a ‖y_i - y_j‖^2b)`` (UMAP), ``Σ_ij p_ij log(p_ij / q_ij)`` with
    ``q_ij ∝ 1 / (1 + ‖y_i - y_j‖²)`` (t-SNE). Neither keeps distances between groups, or their
    densities.

    Args:
        x: (n, d), any real dtype, finite, d ≥ 2.
        method: ``umap``, of umap-learn; or ``tsne``, scikit-learn's Barnes-Hut descent from the
            first two principal components, which sees the first 50 of rows that are wider.
        neighbors: UMAP's n_neighbors, in [2, n).
        min_dist: UMAP's least distance of points, in [0, 1]; it decides a and b.
        perplexity: Of t-SNE, the effective number of neighbours, in [1, (n - 1) / 3].
        metric: ``euclidean`` or ``cosine``, for which rows are divided by their length first.
        seed: Of UMAP's descent and of principal components, in [0, 2^32).

    Returns:
        float32 (n, 2); the same on every run on one machine.

    Raises:
        UsageError: An option or the rows cannot be used, or all rows are the same.
        MissingExtraError: umap-learn is not installed.

    Cost: about n log n. One thread of UMAP, whose first call in a process compiles for half a
    minute.

    Source: McInnes et al. 2018, arXiv:1802.03426 (n_neighbors and min_dist are their defaults);
    van der Maaten and Hinton 2008, JMLR 9 (principal components first: 30 there, 50 here, as
    scikit-learn advises); van der Maaten 2014, JMLR 15 (Barnes-Hut; n > 3 · perplexity).

    Example:
        >>> rows = np.concatenate([np.eye(10), np.eye(10) + 9])
        >>> points = project(rows, "tsne", perplexity=5)
        >>> points.shape
        (20, 2)
        >>> gap = np.linalg.norm(points[:10].mean(0) - points[10:].mean(0))
        >>> bool(gap > points[:10].std(0).max())
        True
    """
    check_options(method, neighbors, min_dist, perplexity, metric, seed)
    rows = projectable_rows(x, method, neighbors=neighbors, perplexity=perplexity, metric=metric)
    if method == "umap":
        umap = load_umap()(
            n_neighbors=neighbors,
            min_dist=min_dist,
            metric=metric,
            random_state=seed,
            n_jobs=1,  # all that a seed allows
            disconnection_distance=np.inf,  # opposite rows would have no place
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _STARTS, UserWarning)
            points: Floats = umap.fit_transform(rows)
        return points
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if rows.shape[1] > COMPONENTS:
        rows = PCA(min(COMPONENTS, len(rows)), random_state=seed).fit_transform(rows)
    tsne = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
    with threadpool_limits(1 if len(rows) < _FEW else None, user_api="openmp"):
        placed: Floats = tsne.fit_transform(rows)
    return placed


def check_options(
    method: str, neighbors: int, min_dist: float, perplexity: float, metric: str, seed: int
) -> None:
    """Refuse options of :func:`project` that mean nothing, with a UsageError."""
    if method not in get_args(Method):
        raise UsageError(f"method {method!r}: use {' or '.join(get_args(Method))}")
    if neighbors < 2:
        raise UsageError(f"neighbors is {neighbors}: give a whole number, at least 2")
    if not 0 <= min_dist <= 1:
        raise UsageError(f"min_dist is {min_dist:g}: give a number from 0 to 1")
    if not 1 <= perplexity < math.inf:
        raise UsageError(f"perplexity is {perplexity:g}: give a number, at least 1")
    if metric not in get_args(Metric):
        raise UsageError(f"metric {metric!r}: use {' or '.join(get_args(Metric))}")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed is {seed}: give a whole number from 0 to 2^32 - 1")


def projectable_rows(
    x: npt.ArrayLike, method: Method, *, neighbors: int, perplexity: float, metric: Metric
) -> Floats:
    """Return rows as :func:`project` sees them, or refuse them before any work.

    Args:
        x: (n, d), any real dtype.
        method: As the other options, that of :func:`project`.
        neighbors: n is more.
        perplexity: n is more than three times as much.
        metric: Rows are of length 1, or 0, for ``cosine``.

    Returns:
        float32 (n, d).

    Raises:
        UsageError: They are too few, too narrow, not finite, or all the same.

    Example:
        >>> rows = np.eye(4)
        >>> projectable_rows(rows, "umap", neighbors=3, perplexity=30, metric="cosine").dtype
        dtype('float32')
    """
    matrix = real_matrix(x)
    n, d = matrix.shape
    if d < 2:
        raise UsageError("rows have one number each: there is nothing to project")
    option, least, lower = "neighbors", max(4, neighbors + 1), n - 1
    if method == "tsne":
        option, least, lower = "perplexity", math.ceil(3 * perplexity) + 1, (n - 1) // 3
    if n < least:
        value = neighbors if method == "umap" else f"{perplexity:g}"
        remedy = f"lower it to {lower}, or give more" if n >= 4 else "give more"
        raise UsageError(f"{n} rows, and {option} {value} takes {least} or more: {remedy}")
    with np.errstate(over="ignore"):  # refused below
        rows: Floats = matrix.astype(np.float32)
    if not np.abs(rows).max() < _LARGEST:  # not a number is not less
        raise UsageError("rows hold NaN, infinity or numbers above 1e15: leave those out")
    if metric == "cosine":
        rows = unit_rows(rows).array
    if np.ptp(rows, axis=0).max() <= _SAME * np.abs(rows).max():
        raise UsageError(f"all {n} rows are the same: there is nothing to project")
    return rows


def load_umap() -> Any:
    """Import umap-learn's ``UMAP``; MissingExtraError where that cannot be done."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
            from umap import UMAP
    except ImportError:
        raise MissingExtraError(
            'umap needs the package umap-learn; install it with pip install "featkit[explain]", '
            "or use --methods tsne"
        ) from None
    return UMAP
