"""From a network and images to what its leaves look at, and what kind of learners they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featkit.analyses.base import Figure, Result, describe_run
from featkit.analyses.saliency.attribution import (
    Attributions,
    ProbedTree,
    attribute,
    check_tree,
    load_captum,
)
from featkit.analyses.saliency.categories import (
    CATEGORIES,
    NEIGHBORS,
    LeafMeasures,
    half_share,
    measure_leaf,
)
from featkit.analyses.saliency.config import SaliencyConfig
from featkit.analyses.saliency.figures import add_picture, add_pictures
from featkit.analyses.saliency.images import DrawnImages, load_images
from featkit.analyses.saliency.leaves import open_leaves
from featkit.analyses.saliency.maps import saliency_maps
from featkit.analyses.saliency.pictures import red_blue
from featkit.backbones.architectures import build
from featkit.backbones.base import Backbone
from featkit.backbones.device import choose_device
from featkit.backbones.nets.treenet.tree import TreeNet
from featkit.backbones.precision import exact_products
from featkit.backbones.resolve import load_backbone
from featkit.data.sources import Source, open_source
from featkit.errors import UsageError
from featkit.ops.linear_probe import LinearProbe
from featkit.progress import progress_bar

LIBRARIES = ("torch", "numpy", "pillow", "faiss-cpu")

_OTHER = 0x5A11
"""So that random weights differ from those of a network that is random with the same seed."""


def saliency(
    run: str | Path | Backbone,
    source: str | Path | Source,
    config: SaliencyConfig | None = None,
    *,
    batch_size: int = 8,
    workers: int | None = None,
    device: str = "auto",
    progress: bool = False,
) -> Result:
    """Map which pixels move each leaf of a TreeNet, and tell what kind of learner each is.

    Maps are :func:`~featkit.analyses.saliency.maps.saliency_maps`; the criteria of kinds are in
    :mod:`featkit.analyses.saliency.categories`. The same architecture with random weights is judged
    by the same images.

    Args:
        run: A training run's folder, any other specification (see :func:`featkit.load_backbone`),
            or a loaded backbone. The features of a network that is no TreeNet are its only leaf.
        source: Images: a folder, a CSV, ``torchvision:…``, or a source object.
        config: Options; the defaults if None.
        batch_size: Images that go through the network together.
        workers: Decoding processes; None chooses.
        device: ``auto``, ``cpu``, ``cuda``, …
        progress: Whether to draw progress bars on stderr.

    Returns:
        Table ``leaves`` (leaf, category, concentration, dark, selectivity, accuracy, low, high,
        gain: the accuracy less the mean of untrained leaves). Table ``untrained``, the same of
        leaves with random weights. Table ``shares`` (network: trained or untrained, category,
        leaves, share). Without classes there is ``leaves`` alone, with concentration and dark.
        Table ``explained`` (image, class, predicted, score, baseline, incompleteness), with
        ``shap``. Arrays: ``pixels`` (s, h, w, 3) and ``maps`` (s, m, h, w) of the images shown,
        ``attributions`` (s, 3, h, w), and pictures of them.

    Raises:
        UsageError: An option cannot be used; no image can be read; ``shap`` has too few images.
        SourceError: The images do not exist.
        BackboneError: The network does not exist, or its run is not finished.
        MissingExtraError: ``shap`` is asked for, and captum is not installed.

    Cost: one forward and one backward pass of each image for each network, 1 + ``chance`` of them.
    ``shap`` takes as many passes as images shown, times twice the baselines.

    Source: Grant, Dias, Kulkarni, Spontaneous decomposition from grouped network pathways, 2022,
    sec. 5.3.1 and 7.
    """
    config = config or SaliencyConfig()
    if batch_size < 1 or (workers is not None and workers < 0):
        raise UsageError(
            f"batch_size {batch_size}, workers {workers}: give a batch of 1 or more, and no fewer"
            " workers than 0"
        )
    where = choose_device(device)
    backbone = run if isinstance(run, Backbone) else load_backbone(str(run))
    images_of = open_source(source)
    if config.shap:
        check_tree(backbone.module, backbone.name)
        load_captum()
    module = backbone.module
    config.check_leaves(module.shape.leaves if isinstance(module, TreeNet) else 1)
    images = load_images(
        images_of, backbone.preprocessing, config.images, config.seed, workers, progress
    )
    options, provenance = describe_run(
        config, {}, (*LIBRARIES, "captum") if config.shap else LIBRARIES
    )
    provenance |= {
        "backbone": {"name": backbone.name, **backbone.identity()},
        "spec": backbone.spec,
        "preprocessing": backbone.preprocessing.as_dict(),
        "images": {"source": images_of.name, "sha256": images.sha256},
    }
    result = Result("saliency", options, provenance=provenance, notes=images.notes)
    _Study(config, backbone, images, batch_size, where, progress).report(result)
    return result


@dataclass(frozen=True)
class _Seen:
    """What a network gives for n images.

    Attributes:
        vectors: Of each leaf, (n, m, d).
        shares: What half of a map's saliency needs, (n, m).
        maps: Of the images shown, (s, m, h, w).
    """

    vectors: NDArray[np.float32]
    shares: NDArray[np.float64]
    maps: NDArray[np.float32]


@dataclass(frozen=True)
class _Study:
    """A network and its random twins, before the same images."""

    config: SaliencyConfig
    backbone: Backbone
    images: DrawnImages
    batch_size: int
    device: torch.device
    progress: bool

    def report(self, result: Result) -> None:
        """Fill a result."""
        images, config = self.images, self.config
        shown = min(config.shown, len(images.names))
        why_not = _why_no_categories(images)
        if config.shap:
            self._check_shap(shown)
        seen = self._look(self.backbone, shown, "trained")
        leaves = seen.vectors.shape[1]
        result.scalars = {"images": len(images.names), "leaves": leaves}
        if why_not:
            result.notes.append(f"{why_not}: maps without categories")
            result.tables["leaves"] = [
                {"leaf": leaf, "concentration": _mean(seen.shares[:, leaf]), "dark": dark}
                for leaf, dark in enumerate(np.isnan(seen.shares).mean(0).tolist())
            ]
        else:
            self._report_categories(result, seen)
        order = sorted(range(shown), key=lambda i: (self._label(i), i))
        add_pictures(result, images, seen.maps, order, config.overlay)
        if config.shap:
            found, rows, probe = self._explain(seen, shown)
            _report_shap(result, images, found, rows, probe, order)

    def _look(self, backbone: Backbone, shown: int, what: str) -> _Seen:
        """Send all images through a network and back."""
        recipe, pixels = backbone.preprocessing, self.images.pixels
        vectors, shares, maps = [], [], []
        with (
            open_leaves(backbone, self.device) as leaves,
            exact_products(),
            progress_bar(len(pixels), what, "img", show=self.progress) as bar,
        ):
            for start in range(0, len(pixels), self.batch_size):
                images = recipe.normalize(pixels[start : start + self.batch_size].to(self.device))
                found, rows = saliency_maps(leaves.read, images, leaves.count)
                if not bool(torch.isfinite(found).all() and torch.isfinite(rows).all()):
                    raise UsageError(
                        f"{backbone.spec}: its features or their gradients are not finite: take "
                        f"another epoch of the run, or another network"
                    )
                vectors.append(rows.cpu().numpy())
                maps.append(found[: max(shown - start, 0)].cpu().numpy())
                shares.append(half_share(found.cpu().numpy()) / leaves.window)
                bar.update(len(images))
        return _Seen(*(np.concatenate(parts) for parts in (vectors, shares, maps)))

    def _report_categories(self, result: Result, seen: _Seen) -> None:
        labels = self.images.labels
        assert labels is not None  # noqa: S101 - or there were no categories
        chance = float(np.unique(labels, return_counts=True)[1].max() / len(labels))
        own = _measures(seen, labels)
        random = [_measures(self._look(twin, 0, "untrained"), labels) for twin in self._twins()]
        expected = float(np.mean([leaf.accuracy for leaves in random for leaf in leaves]))
        result.scalars |= {
            "accuracy": float(np.mean([leaf.accuracy for leaf in own])),
            "untrained_accuracy": expected,
            "chance": chance,
        }
        rows = [_row(leaf, found, chance, expected) for leaf, found in enumerate(own)]
        others = [
            {"network": number, **_row(leaf, found, chance, expected)}
            for number, leaves in enumerate(random)
            for leaf, found in enumerate(leaves)
        ]
        result.tables = {"leaves": rows, "shares": [], "untrained": others}
        for network, judged in (("trained", rows), ("untrained", others)):
            counts = Counter(row["category"] for row in judged)
            result.tables["shares"] += [
                {
                    "network": network,
                    "category": category,
                    "leaves": counts[category],
                    "share": counts[category] / len(judged),
                }
                for category in CATEGORIES
            ]
        result.shown = {"leaves": (), "shares": ()}
        result.figures.append(
            Figure("shares", "bar", "shares", "Leaves by category", "category", "share", "network")
        )

    def _twins(self) -> list[Backbone]:
        """Build the architecture with random weights."""
        seeds = np.random.SeedSequence([_OTHER, self.config.seed]).generate_state(
            self.config.chance
        )
        architecture = self.backbone.network.architecture
        recipe = self.backbone.preprocessing
        return [
            Backbone(
                f"untrained-{number}",
                architecture,
                replace(build(architecture, int(seed)), preprocessing=recipe),
            )
            for number, seed in enumerate(seeds)
        ]

    def _label(self, row: int) -> int:
        return 0 if self.images.labels is None else int(self.images.labels[row])

    def _check_shap(self, shown: int) -> None:
        """Refuse, before the work, images that no probe can be learned from."""
        labels = self.images.labels
        if labels is None:
            raise UsageError(
                "shap explains the score of an image's class, and these images have no one class: "
                "give class subfolders, or a CSV with a label column"
            )
        learned = labels[shown:]
        if len(learned) < self.config.baselines or len(np.unique(learned)) < 2:
            raise UsageError(
                f"shap learns a probe from the images that are not shown, and compares with "
                f"{self.config.baselines} of them: of {len(labels)} images {shown} are shown; "
                f"raise --images, or lower --shown or --baselines"
            )
        missing = np.setdiff1d(labels[:shown], learned)
        if len(missing):
            raise UsageError(
                f"shap: all images of class {self.images.class_name(missing[0])} are shown, so "
                f"that no probe can learn it: raise --images, or lower --shown"
            )

    def _explain(
        self, seen: _Seen, shown: int
    ) -> tuple[Attributions, list[dict[str, Any]], LinearProbe]:
        """Learn a probe from the images that are not shown, and explain the others by it."""
        config, images = self.config, self.images
        tree = check_tree(self.backbone.module, self.backbone.name)
        labels = images.labels
        assert labels is not None  # noqa: S101 - checked
        with torch.no_grad(), exact_products():
            features = tree.join(torch.from_numpy(seen.vectors).to(self.device)).cpu().numpy()
        probe = LinearProbe(random_state=config.seed).fit(features[shown:], labels[shown:])
        network = ProbedTree(tree, probe).eval()
        targets = np.searchsorted(probe.classes_, labels[:shown])
        others = slice(shown, shown + config.baselines)
        with exact_products():
            found = attribute(
                network,
                self._normal(slice(0, shown)),
                self._normal(others),
                torch.from_numpy(targets),
            )
        logits = probe.logits(features[:shown])
        rows = [
            {
                "image": images.names[i],
                "class": images.class_name(labels[i]),
                "predicted": images.class_name(probe.classes_[logits[i].argmax()]),
                "score": float(logits[i, targets[i]]),
                "baseline": float(logits[i, targets[i]] - found.differences[i].mean()),
                "incompleteness": float(
                    found.gaps[i].abs().mean() / found.differences[i].abs().mean()
                ),
            }
            for i in range(shown)
        ]
        return found, rows, probe

    def _normal(self, part: slice) -> Tensor:
        recipe = self.backbone.preprocessing
        return recipe.normalize(self.images.pixels[part].to(self.device))


def _why_no_categories(images: DrawnImages) -> str:
    """Return what the images lack for categories; empty where they lack nothing."""
    if images.labels is None:
        return "the images have no labels, or several each"
    classes = len(np.unique(images.labels))
    if classes < 2:
        return "the images are of one class"
    if len(images.labels) <= max(NEIGHBORS, classes):
        return (
            f"categories need more than {max(NEIGHBORS, classes)} images, and there are "
            f"{len(images.labels)}"
        )
    return ""


def _measures(seen: _Seen, labels: NDArray[np.int64]) -> list[LeafMeasures]:
    return [
        measure_leaf(seen.shares[:, leaf], seen.vectors[:, leaf], labels)
        for leaf in range(seen.vectors.shape[1])
    ]


def _row(leaf: int, found: LeafMeasures, chance: float, untrained: float) -> dict[str, Any]:
    return {
        "leaf": leaf,
        "category": found.category(chance),
        "concentration": found.concentration if found.dark < 1 else None,
        "dark": found.dark,
        "selectivity": found.selectivity,
        "accuracy": found.accuracy,
        "low": found.low,
        "high": found.high,
        "gain": found.accuracy - untrained,
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    lit = values[~np.isnan(values)]
    return float(lit.mean()) if len(lit) else None


def _report_shap(
    result: Result,
    images: DrawnImages,
    found: Attributions,
    rows: Sequence[dict[str, Any]],
    probe: LinearProbe,
    order: Sequence[int],
) -> None:
    values = found.values.cpu().numpy()[order]
    result.tables["explained"] = [rows[i] for i in order]
    result.arrays["attributions"] = values
    result.scalars["probe_accuracy"] = float(probe.validation_scores_.max())
    result.scalars["incompleteness"] = found.incompleteness
    result.notes.append(
        f"attributions by a baseline add up to the difference of scores but for "
        f"{found.incompleteness:.2g} of it, in the mean"
    )
    pixels = images.pixels[order].numpy()
    add_picture(
        result,
        "shap",
        "What raises (red) and lowers (blue) the score of the true class",
        [pixels, red_blue(values.sum(1))],
        ["image", "DeepLIFT-SHAP"],
    )
