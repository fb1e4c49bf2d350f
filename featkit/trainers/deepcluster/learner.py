"""A network that learns to say which cluster of its own features an image was in."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from featkit.analyses.base import Figure
from featkit.backbones.base import Network
from featkit.backbones.initialization import initialize
from featkit.ops.neighbors import Integers
from featkit.parallel.group import first, here
from featkit.parallel.place import EVERY
from featkit.trainers.base import Learner, Moment
from featkit.trainers.deepcluster.clustering import Clusterer, check_counts
from featkit.trainers.deepcluster.config import DeepClusterConfig
from featkit.trainers.deepcluster.facts import (
    FACTS,
    UNTOLD,
    clustering_facts,
    curves_of,
    cycle_rows,
    read_facts,
)
from featkit.trainers.deepcluster.sampling import uniform_over_clusters
from featkit.trainers.deepcluster.starts import (
    PROXY,
    begin_anew,
    choose_start,
    plain_views,
    seed_of,
)
from featkit.trainers.images import TrainingImages
from featkit.trainers.optimization import make_optimizer
from featkit.trainers.settings import Training

_NEARLY_ALL = 0.95
"""Share of the images in one cluster above which features are taken for collapsed."""
_NOTHING = 0.99
"""Share of ln k above which a loss says that nothing was learned, if it has stayed so for
:data:`_LONG` epochs."""
_LONG = 3


class _Trained(nn.Module):
    """The network, the cluster of each image, and what was seen when they were made.

    Args:
        network: With its head.
        images: How many there are, with those that are held out.
        seed: That the network was initialised by.
    """

    labels: Tensor
    cycle: Tensor
    facts: Tensor
    start: Tensor

    def __init__(self, network: nn.Module, images: int, seed: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("labels", torch.full((images,), -1))
        self.register_buffer("cycle", torch.tensor(0))
        self.register_buffer("facts", torch.full((len(FACTS),), UNTOLD))
        self.register_buffer("start", torch.tensor(seed))


class DeepClusterLearner(Learner):
    """A network whose head is new, and whose labels are those of k-means, in each cycle.

    The clusters of all images, the cycle that they are of and what was seen of them are part of
    ``module``, so that a training that goes on in the middle of a cycle does not cluster again.

    Args:
        network: With a linear head of as many outputs as there are clusters.
        config: Of the method.
        seed: Of the training.
    """

    figures: ClassVar[tuple[Figure, ...]] = (
        Figure(
            "agreement", "line", "agreement", "Agreement of clusters", "cycle", "agreement",
            hue="with",
        ),
        Figure(
            "sizes", "line", "cycles", "Effective number of clusters", "cycle",
            "effective_clusters",
        ),
        Figure("times", "line", "times", "Time of a cycle", "cycle", "seconds", hue="spent on"),
    )  # fmt: skip

    def __init__(self, network: Network, config: DeepClusterConfig, seed: int) -> None:
        assert network.head is not None  # noqa: S101 - as the method builds it
        self.config, self.network, self.seed = config, network, seed
        self.head = network.module.get_submodule(network.head)
        self.views = plain_views(network, config.crop)

    def check_count(self, images: int) -> None:
        """Refuse fewer images than k-means needs."""
        check_counts(images, self.config)

    def attach(self, images: TrainingImages, training: Training, device: torch.device) -> None:
        """Take the images, and refuse what cannot be clustered."""
        super().attach(images, training, device)
        self.cluster = Clusterer(self.network, images, self.config, training.precision, device)
        self.module = self.trained = _Trained(self.network.module, len(images.pixels), self.seed)

    def optimizers(self, training: Training) -> dict[str, torch.optim.Optimizer]:
        """Return that of the head: of the same kind, but SGD has no momentum."""
        self.head_optimizer = make_optimizer(self.head.parameters(), training, momentum=0.0)
        return {"head_optimizer": self.head_optimizer}

    def start(self) -> None:
        """Choose among untrained networks, where that is asked for."""
        seeds = range(self.seed, self.seed + self.config.select_init)
        if len(seeds) > 1:
            chosen = first(lambda: choose_start(self.cluster, seeds))
            begin_anew(self.cluster, chosen)
            self.trained.start.fill_(chosen)

    def begin_epoch(self, epoch: int) -> None:
        """Cluster the images and start the head anew, if a cycle begins that has to."""
        cycle = epoch // self.config.cycle_epochs + 1
        if self.trained.cycle >= min(cycle, self.config.clusterings):
            return
        started = time.perf_counter()
        features = self.cluster.features()
        seconds = time.perf_counter() - started
        labels, facts = first(lambda: self._clustered(features, cycle))
        facts |= {"feature_seconds": seconds}
        self.trained.labels[self.images.learned] = labels.to(self.trained.labels.device)
        self.trained.facts.copy_(torch.tensor([facts.get(name, UNTOLD) for name in FACTS]))
        self.trained.cycle.fill_(cycle)
        initialize(self.head, seed_of(self.seed, 4, cycle))
        self.head_optimizer.state.clear()

    def _clustered(self, features: Tensor | None, cycle: int) -> tuple[Tensor, dict[str, float]]:
        """Return the cluster of each image that is learned from, and what is seen of them."""
        assert features is not None  # noqa: S101 - the first process has them
        found = self.cluster(seed_of(self.seed, 3, cycle), features)
        rows, labels = self.images.learned, found.clusters.labels.cpu()
        before = self.trained.labels[rows].cpu().numpy() if cycle > 1 else None
        truth = None if self.images.labels is None else self.images.labels[rows]
        facts = clustering_facts(labels.numpy(), before, truth)
        return labels, facts | {"cluster_seconds": found.cluster_seconds}

    def order(self, rng: np.random.Generator) -> Integers:
        """Draw as many images of each cluster as of any other."""
        rows = self.images.learned
        return rows[uniform_over_clusters(self.trained.labels[rows].cpu().numpy(), rng)]

    def views_of(self, pixels: Tensor, made: slice = EVERY) -> list[Tensor]:
        """Draw a crop of each image, mirrored or not."""
        return [self.views(pixels, made)[None]]

    def loss(self, pixels: Tensor, rows: Tensor, moment: Moment) -> Tensor:  # noqa: ARG002 - always the same
        """Return the cross-entropy between what the head says of views and the images' clusters."""
        (views,) = self.own_views(pixels)
        views = self.network.preprocessing.normalize_views(views[0])
        own = rows[here().share(len(rows))].to(self.trained.labels.device)
        labels = self.trained.labels[own]
        return functional.cross_entropy(self.network.module(views), labels)

    def epoch_columns(self) -> dict[str, Any]:
        """Return the cycle that the labels are of, and :data:`FACTS`; times only once."""
        facts = read_facts(self.trained.facts.tolist())
        self.trained.facts[-2:] = 0
        return {"clustered_in": int(self.trained.cycle), **facts}

    def tables(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
        """Return the cycles, and what is drawn of them; the epochs without what is told there."""
        own = {"clustered_in", *FACTS}
        epochs = [{name: v for name, v in row.items() if name not in own} for row in rows]
        cycles = cycle_rows(rows, self.config.cycle_epochs)
        return {"epochs": epochs, "cycles": cycles, **curves_of(cycles)}

    def notes(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Say which start was chosen, and whether the last clustering is one of collapse."""
        found = []
        if self.config.select_init > 1:
            seeds = f"{self.seed} to {self.seed + self.config.select_init - 1}"
            best = f"seed {int(self.trained.start)} of {seeds}"
            found.append(f"{best} starts the training: the highest {PROXY}")
        learned, most = [row for row in rows if row["epoch"]], math.log(self.config.clusters)
        images = len(self.images.learned)
        if learned and learned[-1]["largest"] > _NEARLY_ALL * images:
            last = learned[-1]
            found.append(
                f"collapse: {last['largest']:,} of {images:,} images are in one of "
                f"{self.config.clusters:,} clusters of cycle {last['clustered_in']}; try another "
                f"--seed, a lower --lr or --pca 0"
            )
        elif len(learned) >= _LONG and min(r["loss"] for r in learned) > _NOTHING * most:
            found.append(
                f"nothing learned yet: no epoch's loss is below ln k, {most:.3f}; try more "
                f"--cycle-epochs, fewer --clusters, or, by SGD so far, --optimizer adam --lr 0.001"
            )
        return found
