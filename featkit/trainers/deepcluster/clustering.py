"""From features to pseudo-labels."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from featkit.backbones.base import Network
from featkit.errors import UsageError
from featkit.ops.kmeans import Clusters, kmeans
from featkit.ops.row_blocks import LARGEST
from featkit.ops.unit_vectors import unit_vectors
from featkit.ops.whitening import Whitening, fit_whitening
from featkit.parallel.group import is_first
from featkit.trainers.base import NotFiniteError
from featkit.trainers.deepcluster.config import DeepClusterConfig
from featkit.trainers.deepcluster.networks import clustered_rows
from featkit.trainers.features import FeaturePass
from featkit.trainers.images import TrainingImages, reserve

_CHECKED = 4096
"""Features that are looked at together."""


@dataclass(frozen=True)
class Clustering:
    """Pseudo-labels of images, and how they came about.

    Attributes:
        features: (n, d) as the network gives them.
        whitening: Of the features; None where they are clustered as they are.
        points: (n, p) of length 1, which were clustered.
        clusters: Of the points.
        feature_seconds: Of the network's pass.
        cluster_seconds: Of whitening and k-means.
    """

    features: Tensor
    whitening: Whitening | None
    points: Tensor
    clusters: Clusters
    feature_seconds: float
    cluster_seconds: float


class Clusterer:
    """Clusters the images that are learned from by a network's features.

    Args:
        network: As it is whenever this is called.
        images: Decoded.
        config: How many clusters of how many dimensions, and what k-means does.
        precision: ``fp32`` or ``bf16``, of the network's pass.
        device: Where the network is. Features lie there too if they fit into half of the free
            memory, and in the computer's else; k-means runs there.

    Raises:
        UsageError: There are fewer images to fit on than clusters, the features have fewer
            dimensions than are asked for, or no layer is known to be the features.
    """

    def __init__(
        self,
        network: Network,
        images: TrainingImages,
        config: DeepClusterConfig,
        precision: str,
        device: torch.device,
    ) -> None:
        self.network, self.images, self.config = network, images, config
        self.precision, self.device = precision, device
        self.rows = images.learned
        check_counts(len(self.rows), config)
        source = clustered_rows(network, config.pca)
        self.extract = FeaturePass(network, source.tap, source.calls, images)
        self.shape = (len(self.rows), source.dimensions)
        self.engine = device if device.type == "cuda" else torch.device("cpu")
        fits = 4 * math.prod(self.shape) <= _free_memory(device) / 2
        self.place = self.engine if fits else torch.device("cpu")

    def __call__(self, seed: int, features: Tensor | None = None) -> Clustering:
        """Cluster all images.

        Args:
            seed: Of k-means and of what it is fitted on.
            features: From :meth:`features`; None makes them here, whatever other processes do.

        Raises:
            NotFiniteError: A feature is no finite number, or too large to be squared.

        Cost: a forward of n images, whitening and k-means; memory 4·n·d bytes, in a mapped file
        where that is more than half of what is free, and 4·n·p for the points.
        """
        started = time.perf_counter()
        if features is None:
            features = self._room()
            self.extract(self.rows, self.precision, self.device, features)
        if not all(bool((b.abs() < LARGEST).all()) for b in torch.split(features, _CHECKED)):
            raise NotFiniteError("a feature that is to be clustered is not finite, or above 1e15")
        extracted = time.perf_counter()
        whitening = fit_whitening(features, self.config.pca, seed) if self.config.pca else None
        points = points_of(features, whitening).to(self.engine)
        clusters = self.fit(points, seed)
        ended = time.perf_counter()
        return Clustering(
            features, whitening, points, clusters, extracted - started, ended - extracted
        )

    def fit(self, points: Tensor, seed: int) -> Clusters:
        """Cluster points as the configuration says."""
        config = self.config
        return kmeans(
            points,
            config.clusters,
            iterations=config.iterations,
            share=config.fit_share,
            seed=seed,
        )

    def features(self) -> Tensor | None:
        """Return (n, d) in the first process, None in others; each makes its share."""
        out = self._room() if is_first() else None
        return self.extract.shared(self.rows, self.precision, self.device, out)

    def _room(self) -> Tensor:
        if self.place.type == "cuda":
            return torch.empty(self.shape, device=self.place)
        return torch.from_numpy(reserve(self.shape, np.float32, self.images.scratch, "features"))


def _free_memory(device: torch.device) -> float:
    """Return the bytes of a GPU that are free, or held by torch and unused; else no limit."""
    if device.type != "cuda":
        return math.inf
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def check_counts(images: int, config: DeepClusterConfig) -> None:
    """Refuse more clusters than images that k-means is fitted on.

    Raises:
        UsageError: There are more.
    """
    fitted = round(config.fit_share * images)
    if fitted < config.clusters:
        is_part = config.fit_share < 1
        share = f" ({config.fit_share:g} of {images:,})" if is_part else ""
        raise UsageError(
            f"{config.clusters:,} clusters, and {fitted:,} images to fit them on{share}: give "
            f"fewer clusters{', a larger --fit-share' * is_part} or more images (--preset cpu and "
            f"tiny have few)"
        )


def points_of(features: Tensor, whitening: Whitening | None) -> Tensor:
    """Return what is clustered: features, whitened and of length 1."""
    return unit_vectors(features if whitening is None else whitening(features))
