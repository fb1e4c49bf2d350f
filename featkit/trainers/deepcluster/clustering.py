"""From features to pseudo-labels."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from featkit.backbones.base import Backbone, Network
from featkit.backbones.probe import head_inputs, probe, row_shape
from featkit.backbones.taps import Tap, TapRunner, token_layout
from featkit.errors import UsageError
from featkit.ops.kmeans import Clusters, kmeans
from featkit.ops.unit_vectors import unit_vectors
from featkit.ops.whitening import Whitening, fit_whitening
from featkit.trainers.base import NotFiniteError
from featkit.trainers.deepcluster.config import DeepClusterConfig
from featkit.trainers.features import FeaturePass
from featkit.trainers.images import TrainingImages, reserve

_TOGETHER = 4096


def clustered_tap(network: Network) -> tuple[Tap, int]:
    """Return the tap whose rows are clustered, and their dimensions.

    It is what the head reads; before the ReLU, where one ends it.

    Raises:
        UsageError: No layer is known to be the network's features.
    """
    backbone = Backbone("trained", "trained", network)
    outputs = probe(backbone)
    taps = head_inputs(backbone, outputs)
    if not taps:
        raise UsageError(
            f"{network.architecture}: cannot tell what its head reads, which is what would be "
            f"clustered: give another --arch"
        )
    tap, leaves = taps[0], [path for path, output in outputs.items() if output.leaf]
    for after in taps:
        if isinstance(network.module.get_submodule(after.path), nn.ReLU):
            before = Tap(leaves[leaves.index(after.path) - 1], after.pooling)
            tap = before if _is_rectified(network, before, after) else tap
    (dimensions,) = row_shape(outputs[tap.path].shape or (), tap, token_layout(network.module))
    return tap, dimensions


def _is_rectified(network: Network, before: Tap, after: Tap) -> bool:
    """Return whether a tap gives what another gives, after a ReLU."""
    height, width = network.preprocessing.size
    noise = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    runner = TapRunner(network.module, [before, after], dict.fromkeys((before.path, after.path), 1))
    try:
        with torch.inference_mode():
            first, second = runner(noise.to(next(network.module.parameters()).device))
    finally:
        runner.close()
    return bool(torch.equal(first.relu(), second))


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
        device: Where the network is.

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
        self.config, self.precision, self.device = config, precision, device
        self.rows, self.scratch = images.learned, images.scratch
        check_counts(len(self.rows), config)
        tap, self.dimensions = clustered_tap(network)
        self.forward = FeaturePass(network, tap, 1, images)
        if config.pca > self.dimensions:
            raise UsageError(
                f"pca is {config.pca}, and features of {network.architecture} have "
                f"{self.dimensions} dimensions: give as many or fewer, or 0 to take all as they are"
            )

    def __call__(self, seed: int) -> Clustering:
        """Cluster all images.

        Args:
            seed: Of k-means and of what it is fitted on.

        Raises:
            NotFiniteError: A feature is no finite number.

        Cost: a forward of n images; memory 4·n·d bytes, in a mapped file where that is more than
        half of what is free.
        """
        started = time.perf_counter()
        features = self.features()
        extracted = time.perf_counter()
        whitening = fit_whitening(features, self.config.pca, seed) if self.config.pca else None
        points = points_of(features, whitening)
        clusters = kmeans(
            points,
            self.config.clusters,
            iterations=self.config.iterations,
            share=self.config.fit_share,
            seed=seed,
        )
        ended = time.perf_counter()
        return Clustering(
            features, whitening, points, clusters, extracted - started, ended - extracted
        )

    def features(self) -> Tensor:
        """Return (n, d) of the images that are learned from, where they are clustered."""
        shape = (len(self.rows), self.dimensions)
        if self.device.type == "cuda" and self._fits(4 * math.prod(shape)):
            out = torch.empty(shape, device=self.device)
        else:
            out = torch.from_numpy(reserve(shape, np.float32, self.scratch, "features"))
        self.forward(self.rows, self.precision, self.device, out)
        if not all(bool(torch.isfinite(block).all()) for block in torch.split(out, _TOGETHER)):
            raise NotFiniteError("a feature that is to be clustered is not finite")
        return out

    def _fits(self, size: int) -> bool:
        free, _ = torch.cuda.mem_get_info(self.device)
        return size <= free / 2


def check_counts(images: int, config: DeepClusterConfig) -> None:
    """Refuse more clusters than images that k-means is fitted on.

    Raises:
        UsageError: There are more.
    """
    fitted = round(config.fit_share * images)
    if fitted < config.clusters:
        share = "" if config.fit_share == 1 else f" ({config.fit_share:g} of {images:,})"
        raise UsageError(
            f"{config.clusters:,} clusters, and {fitted:,} images to fit them on{share}: give "
            f"fewer --clusters, more images or a larger --fit-share"
        )


def points_of(features: Tensor, whitening: Whitening | None) -> Tensor:
    """Return what is clustered: features, whitened and of length 1."""
    if whitening is None:
        return unit_vectors(features)
    return unit_vectors(torch.cat([whitening(block) for block in torch.split(features, _TOGETHER)]))
