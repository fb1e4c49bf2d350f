"""What untrained networks are worth, and which of them to start with.

Source: thesis, sec. 4.4 (initial alignment); the scores without labels are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from featkit.backbones.architectures import seeded
from featkit.backbones.base import Network
from featkit.ops.agreement import Agreement, cluster_agreement
from featkit.ops.neighbors import Integers
from featkit.ops.similarity import neighbor_overlap
from featkit.ops.spectrum import effective_rank, singular_values
from featkit.trainers.augmentation.views import Views
from featkit.trainers.deepcluster.clustering import Clusterer, Clustering, points_of
from featkit.trainers.deepcluster.networks import untrained

PROXY = "view_agreement"
"""The score by which ``select_init`` chooses, the highest first."""

_SAMPLE = 2_000
"""Images that views, neighbours and ranks are computed of, at most."""
_NEAR = 10
_VIEW = 0.5
"""Least share of an image's area in the views that clusters are to agree on."""


@dataclass(frozen=True)
class Start:
    """An untrained network, as its clusters are.

    Attributes:
        seed: That it was initialised by.
        alignment: Of its clusters with the labels; None without labels.
        seed_agreement: NMI of clusters of the same features by k-means of two seeds.
        view_agreement: NMI of the clusters of images and of their views, by the same centroids.
        neighbor_stability: Share of the ten nearest neighbours that images and views share.
        effective_rank: RankMe of the features.
    """

    seed: int
    alignment: Agreement | None
    seed_agreement: float
    view_agreement: float
    neighbor_stability: float
    effective_rank: float


PROXIES = ("seed_agreement", "view_agreement", "neighbor_stability", "effective_rank")


def seed_of(*numbers: int) -> int:
    """Make one seed of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def plain_views(network: Network, crop: float) -> Views:
    """Return what draws crops, mirrored or not, in the image's own colours.

    Args:
        network: Says how large they are.
        crop: Least share of an image's area.
    """
    return Views(network.preprocessing.size[0], (crop, 1.0), (0.0,) * 4, gray=0.0)


def each_start(clusterer: Clusterer, seeds: Iterable[int]) -> Iterator[tuple[Start, Clustering]]:
    """Initialise the network by each seed in turn, cluster its features, and score them.

    Args:
        clusterer: Its network is left as the last seed made it.
        seeds: A training with this seed begins with the same network, and clusters all the same
            images in its first cycle alike.

    Cost: of each, a forward of the images, whitening and k-means twice; the rest is of 2,000 images
    at most.
    """
    images = clusterer.images
    truth = None if images.labels is None else images.labels[clusterer.rows]
    for seed in seeds:
        begin_anew(clusterer, seed)
        found = clusterer(seed_of(seed, 3, 1))
        labels = found.clusters.labels.cpu().numpy()
        alignment = None if truth is None else cluster_agreement(labels, truth)
        yield Start(seed, alignment, **_scores(clusterer, found, seed)), found
        del found  # before the next are made


def begin_anew(clusterer: Clusterer, seed: int) -> None:
    """Give a clusterer's network the weights of an untrained one."""
    network = clusterer.network
    fresh = untrained(clusterer.config, network.preprocessing.size[0], seed)
    network.module.load_state_dict(fresh.module.state_dict())


def choose_start(clusterer: Clusterer, seeds: Iterable[int]) -> int:
    """Initialise the network by the seed whose start has the highest :data:`PROXY`; return it."""
    starts = [start for start, _ in each_start(clusterer, seeds)]
    best = max(starts, key=lambda start: getattr(start, PROXY)).seed
    begin_anew(clusterer, best)
    return best


def _scores(clusterer: Clusterer, found: Clustering, seed: int) -> dict[str, float]:
    """Return what can be said of a start without labels."""
    labels, again = found.clusters.labels, clusterer.fit(found.points, seed_of(seed, 3, 2))
    count = min(_SAMPLE, len(labels))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(labels))[:count])
    views = _views_of(clusterer, chosen, seed).to(found.features.device)
    points = points_of(views, found.whitening).to(found.points.device)
    part = torch.from_numpy(chosen)
    near = _nearest(points, found.clusters.centroids)
    pair = [found.points[part].cpu().numpy(), points.cpu().numpy()]
    values = singular_values(found.features[part].cpu().numpy())
    return {
        "seed_agreement": cluster_agreement(*_arrays(labels, again.labels)).nmi,
        "view_agreement": cluster_agreement(*_arrays(labels[part], near)).nmi,
        "neighbor_stability": float(neighbor_overlap(pair, min(_NEAR, count - 1))[0, 1]),
        "effective_rank": effective_rank(values),
    }


def _views_of(clusterer: Clusterer, chosen: Integers, seed: int) -> Tensor:
    """Return the features of one view of each of some images."""
    views = plain_views(clusterer.network, _VIEW)
    with seeded(seed):
        rows = clusterer.rows[chosen]
        return clusterer.extract(rows, clusterer.precision, clusterer.device, views=views)


def _nearest(points: Tensor, centroids: Tensor) -> Tensor:
    return torch.cdist(points, centroids.to(points)).argmin(1)


def _arrays(*labels: Tensor) -> tuple[Integers, ...]:
    return tuple(own.cpu().numpy() for own in labels)
