"""DeepCluster, as ``featkit train deepcluster`` knows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from featkit.trainers.deepcluster.config import DeepClusterConfig
from featkit.trainers.deepcluster.learner import DeepClusterLearner
from featkit.trainers.deepcluster.networks import clustered_rows, untrained

_ORIGINAL: Mapping[str, Any] = {
    "batch_size": 256,
    "optimizer": "sgd",
    "lr": 0.05,
    "warmup": 0.0,
    "schedule": "constant",
    "weight_decay": 1e-5,
    "held_out": 0.0,
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
            "held_out": 0.1,
            "knn_every": 3,
        },
        "tiny": {
            **_THESIS,
            "images": 512,
            "clusters": 20,
            "cycles": 3,
            "fit_share": 0.5,
            "batch_size": 32,
            "held_out": 0.1,
            "knn_every": 1,
        },
    }

    def __init__(self, config: DeepClusterConfig | None = None) -> None:
        self.config = config or DeepClusterConfig()

    def learner(self, size: int | None, seed: int) -> DeepClusterLearner:
        """Build the network, and refuse one whose features cannot be clustered."""
        network = untrained(self.config, size, seed)
        clustered_rows(network, self.config.pca)
        return DeepClusterLearner(network, self.config, seed)
