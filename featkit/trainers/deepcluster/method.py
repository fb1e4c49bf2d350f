"""DeepCluster, as ``featkit train deepcluster`` knows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from featkit.backbones.architectures import build
from featkit.backbones.base import Network
from featkit.backbones.initialization import initialize
from featkit.trainers.deepcluster.config import DeepClusterConfig
from featkit.trainers.deepcluster.learner import DeepClusterLearner
from featkit.trainers.heads import with_head

_ORIGINAL: Mapping[str, Any] = {
    "batch_size": 256,
    "optimizer": "sgd",
    "lr": 0.05,
    "warmup": 0.0,
    "schedule": "constant",
    "weight_decay": 1e-5,
}
"""DeepCluster, main.py and main.sh."""

_THESIS: Mapping[str, Any] = {
    **_ORIGINAL,
    "arch": "alexnet32",
    "clusters": 2_000,
    "cycles": 150,
    "halt": 2 / 3,
    "pca": 32,
    "fit_share": 0.1,
}
"""Sec. 4.5 and 4.6; k of sec. 4.4.1."""


class DeepCluster:
    """Train by the clusters of the network's own features, made anew every cycle (DeepCluster)."""

    name: ClassVar[str] = "DeepCluster"
    Config: ClassVar[type[Any]] = DeepClusterConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": _ORIGINAL,
        "thesis": _THESIS,
        "cpu": {
            **_THESIS,
            "images": 10_000,
            "clusters": 200,
            "cycles": 15,
            "fit_share": 0.5,
            "batch_size": 64,
            "knn_every": 3,
        },
        "tiny": {
            **_THESIS,
            "images": 512,
            "clusters": 20,
            "cycles": 3,
            "fit_share": 0.5,
            "batch_size": 32,
            "knn_every": 1,
        },
    }

    def __init__(self, config: DeepClusterConfig | None = None) -> None:
        self.config = config or DeepClusterConfig()

    def learner(self, size: int | None, seed: int) -> DeepClusterLearner:
        """Build the network, initialised as sec. 4.4.1 says, with a head of k outputs."""
        return DeepClusterLearner(untrained(self.config, size, seed), self.config, seed)


def untrained(config: DeepClusterConfig, size: int | None, seed: int) -> Network:
    """Build the network that a training starts with.

    Args:
        config: Names it, and says how many clusters its head tells apart.
        size: Pixels of its input; None for its own.
        seed: Of the weights.

    Raises:
        UsageError: It ends in no linear layer, or its input is not square.
    """
    network = build(config.architecture, seed)
    network = with_head(network, size, lambda features: nn.Linear(features, config.clusters))
    initialize(network.module, seed)
    return network
