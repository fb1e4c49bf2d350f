"""How good the features are, by the neighbours of images that were not learned from."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from featkit.backbones.base import Backbone, Network
from featkit.backbones.probe import default_tap, probe
from featkit.errors import BackboneError, UsageError
from featkit.ops.knn_classifier import KNNClassifier
from featkit.parallel.group import first
from featkit.trainers.features import FeaturePass
from featkit.trainers.images import TrainingImages

_NEIGHBORS = 20
_MOST = 10_000
"""Images that are voted by; drawn at random where there are more."""


class HeldOutNeighbors:
    """Accuracy of the 20 nearest neighbours, majority vote, on the images held out.

    Args:
        network: What is trained; its features are what its head reads.
        images: Of the training, some of them held out.
        seed: Of the images that are voted by.

    Raises:
        UsageError: The network does not run at its size, or no layer is known to be its features.
    """

    def __init__(self, network: Network, images: TrainingImages, seed: int) -> None:
        backbone = Backbone("trained", "trained", network)
        outputs = probe(backbone)
        try:
            tap = default_tap(backbone, outputs)
        except BackboneError as error:
            raise UsageError(
                f"{network.architecture}: cannot tell what its head reads, so that neighbours "
                f"cannot judge it: --held-out 0 trains without"
            ) from error
        self.features = FeaturePass(network, tap, outputs[tap.path].calls, images)
        self.images = images
        assert images.labels is not None  # noqa: S101 - without any none is held out
        self.labels = images.labels
        drawn = np.random.default_rng(seed).permutation(images.learned)[:_MOST]
        self.bank = np.sort(drawn)

    def __call__(self, precision: str, device: torch.device) -> float:
        """Return the accuracy now, in [0, 1]; not a number where a feature is none.

        Cost: a forward of the images held out and of up to 10,000 others.
        """
        both = np.concatenate([self.bank, self.images.judged])
        features = self.features.shared(both, precision, device)
        return first(lambda: self._judge(features, device))

    def _judge(self, features: Tensor | None, device: torch.device) -> float:
        assert features is not None  # noqa: S101 - the first process has them
        bank, queries = features[: len(self.bank)], features[len(self.bank) :]
        if not bool(torch.isfinite(bank).all() and torch.isfinite(queries).all()):
            return math.nan
        where = str(device) if device.type == "cuda" else "cpu"
        classifier = KNNClassifier(min(_NEIGHBORS, len(bank)), device=where)
        classifier.fit(bank, self.labels[self.bank])
        return float(classifier.score(queries, self.labels[self.images.judged]))
