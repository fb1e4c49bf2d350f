"""k-means with thousands of clusters, of which some may run empty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from featkit.errors import UsageError
from featkit.ops.neighbors import whole_number
from featkit.ops.row_blocks import centred_blocks, check_rows, mean_row

APART = 1 / 1024  # what the halves of a cluster are moved by
DISTANCES = 2**24  # at once, which fill a GPU: 64 MiB


@dataclass(frozen=True, slots=True)
class Clusters:
    """Rows in k clusters.

    Attributes:
        centroids: float32 (k, d), on the device of the rows.
        labels: The nearest centroid of each row, int64 (n) in [0, k), likewise. A cluster may have
            no row.
    """

    centroids: Tensor
    labels: Tensor


@torch.no_grad()
def kmeans(
    x: Tensor,
    k: int,
    *,
    iterations: int = 20,
    share: float = 1.0,
    seed: int = 0,
    start: Tensor | None = None,
    overwrite_x: bool = False,
) -> Clusters:
    """Cluster rows by Lloyd's iterations, from k of them drawn at random.

    Each row joins its nearest centroid, and each centroid moves to the mean of its rows. Then an
    empty cluster takes half of another, drawn with a probability proportional to its size less 1:
    a copy of that centroid, both moved apart by factors of 1 ± 1/1024 in alternate dimensions, as
    faiss does it, which computes all of this on the CPU; torch does on other devices.

    Distances are taken after the mean row is subtracted, which would cost digits if it were large.

    Args:
        x: (n, d), float32, finite, on any device.
        k: Clusters, at most as many as rows that centroids are fitted to.
        iterations: At most so many, 0 or more.
        share: Of the rows that centroids are fitted to, in (0, 1]: round(share·n), drawn at random.
            All rows are assigned.
        seed: Of all draws, which do not depend on the device.
        start: Centroids to start from, (k, d), float32, instead of rows.
        overwrite_x: Whether ``x`` may be changed, which saves a copy of it on the CPU.

    Returns:
        The same for the same seed, machine and number of threads.

    Raises:
        UsageError: An argument cannot be used.

    Cost: 2·n·k·d·(share·iterations + 1) operations; memory 8·n + 16·k·d bytes, the rows that are
    fitted to unless they may be changed, and some 50 MB.

    Source: Lloyd 1982, doi:10.1109/TIT.1982.1056489; Caron et al. 2018, arXiv:1807.05520 (faiss'
    ``Clustering``, 20 iterations, whose conventions these are).

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [0.0, 1.2], [5.0, 0.0], [5.0, 0.2]])
        >>> kmeans(x, 2, start=x[1:3]).labels
        tensor([0, 0, 1, 1])
    """
    fitted = _check(x, k, iterations, share, start)
    shift, draws, rows = mean_row(x), torch.Generator().manual_seed(seed), x
    if fitted < len(x):
        chosen = torch.randperm(len(x), generator=draws)[:fitted].sort().values
        rows = x[chosen.to(x.device)]
    if start is None:
        start = rows[torch.randperm(fitted, generator=draws)[:k].to(x.device)]
    start = start.to(x.device)
    if x.device.type != "cpu":
        return _by_torch(x, rows, shift, start, iterations, seed)
    own = overwrite_x or rows is not x
    return _by_faiss(x, rows, shift, start, iterations, seed, own)


def _by_faiss(
    x: Tensor, rows: Tensor, shift: Tensor, start: Tensor, iterations: int, seed: int, own: bool
) -> Clusters:
    """Fit centroids to some rows minus a shift, and assign all, on the CPU; ``own`` rows change."""
    import faiss

    k, d = start.shape
    clustering = faiss.Clustering(d, k)
    clustering.niter, clustering.seed = iterations, seed % 2**31
    clustering.min_points_per_centroid, clustering.max_points_per_centroid = 1, len(rows)
    centroids = (start - shift).numpy()
    faiss.copy_array_to_vector(centroids.ravel(), clustering.centroids)
    index = faiss.IndexFlatL2(d)
    left = shift  # to be taken off x
    if iterations:
        clustering.train((rows.sub_(shift) if own else rows - shift).numpy(), index)
        centroids = faiss.vector_to_array(clustering.centroids).reshape(k, d)
        left = torch.zeros_like(shift) if own and rows is x else shift
    else:
        index.add(centroids)
    labels = np.empty(len(x), np.int64)
    for part, block in centred_blocks(x, left):
        labels[part] = index.search(block.numpy(), 1)[1][:, 0]
    return Clusters(torch.from_numpy(centroids) + shift, torch.from_numpy(labels))


def _by_torch(
    x: Tensor, rows: Tensor, shift: Tensor, start: Tensor, iterations: int, seed: int
) -> Clusters:
    """Do the same on any device, and end early when no row has changed its cluster."""
    centroids = start.to(torch.float64)  # whose digits a large mean does not take
    random, before = np.random.default_rng(seed), None
    for _ in range(iterations):
        labels = _nearest(rows, centroids, shift)
        if before is not None and torch.equal(labels, before):
            break
        sizes = torch.bincount(labels, minlength=len(start))
        _move(centroids, rows, labels, sizes, shift)
        before = labels if sizes.all() else None
        if before is None:
            centroids = split_empty(centroids.cpu(), sizes.cpu().numpy(), random).to(x.device)
    return Clusters(centroids.float(), _nearest(x, centroids, shift))


def _check(x: Tensor, k: int, iterations: int, share: float, start: Tensor | None) -> int:
    """Return how many rows are fitted to, or refuse what cannot be done."""
    check_rows(x)
    k, n = whole_number(k, "k"), len(x)
    if iterations < 0 or not 0 < share <= 1:
        raise UsageError(
            f"iterations are {iterations} and share {share}: give 0 or more, and a share above 0"
            " and up to 1"
        )
    fitted = round(share * n)
    if fitted < k:
        raise UsageError(
            f"k is {k}, and a share of {share:g} of {n} rows are {fitted} to fit {k} centroids to:"
            " lower k, raise share or give more rows"
        )
    if start is not None:
        check_rows(start, "starting centroids")
        if start.shape != (k, x.shape[1]):
            raise UsageError(
                f"starting centroids are {tuple(start.shape)}: give (k, features),"
                f" {(k, x.shape[1])}"
            )
        mean_row(start, "starting centroids")
    return fitted


def _nearest(x: Tensor, centroids: Tensor, shift: Tensor) -> Tensor:
    """Return the nearest centroid of each row: ``argmin_j ‖c_j‖²/2 - x·c_j``."""
    centred = (centroids - shift).float()
    halves = centred.square().sum(1) / 2
    step = max(1, DISTANCES // max(centred.shape))
    distances = x.new_empty(min(step, len(x)), len(centred))
    labels = torch.empty(len(x), dtype=torch.int64, device=x.device)
    for part, block in centred_blocks(x, shift, step):
        found = torch.addmm(halves, block, centred.T, alpha=-1, out=distances[: len(block)])
        torch.argmin(found, 1, out=labels[part])
    return labels


def _move(centroids: Tensor, x: Tensor, labels: Tensor, sizes: Tensor, shift: Tensor) -> None:
    """Put centroids in the middle of their rows, and leave those without rows where they are."""
    sums = torch.zeros_like(centroids)
    for part, block in centred_blocks(x, shift):
        partial = torch.zeros_like(centroids, dtype=torch.float32)
        # index_add_ adds in any order on GPUs, this in one
        sums += partial.index_put_((labels[part],), block, accumulate=True)
    full = sizes > 0
    centroids[full] = sums[full] / sizes[full, None] + shift


def split_empty(
    centroids: Tensor, sizes: npt.NDArray[np.int64], random: np.random.Generator
) -> Tensor:
    """Give each empty cluster half of one that is drawn.

    Args:
        centroids: (k, d), changed in place.
        sizes: Rows of each cluster, (k), at least k together.
        random: Draws, with probabilities proportional to the sizes less 1.

    Returns:
        ``centroids``.

    Source: Johnson, Douze and Jégou 2017, arXiv:1702.08734; faiss 1.15, ``split_clusters``.
    """
    rows = sizes.astype(np.float64)
    signs = 1 - 2 * (torch.arange(centroids.shape[1]) % 2)
    for empty in np.flatnonzero(sizes == 0):
        weights = (rows - 1).clip(min=0)
        donor = random.choice(len(rows), p=weights / weights.sum())
        centroids[empty] = centroids[donor] * (1 + APART * signs)
        centroids[donor] *= 1 - APART * signs
        rows[empty] = rows[donor] = rows[donor] / 2
    return centroids
