"""From images, a network and concepts to what each unit detects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from featkit.analyses.base import Result, describe_run
from featkit.analyses.dissect.config import DissectConfig
from featkit.analyses.dissect.gallery import Gallery
from featkit.analyses.dissect.subject import Subject
from featkit.analyses.dissect.tables import Dissected, report
from featkit.analyses.dissect.variants import VARIANTS
from featkit.backbones.base import Backbone
from featkit.backbones.device import choose_device
from featkit.backbones.randomized import randomized
from featkit.backbones.resolve import load_backbone
from featkit.backbones.segmenters.resolve import open_concepts, runs_network
from featkit.data.concepts.base import ConceptSource
from featkit.data.concepts.grid import Grid
from featkit.data.loading import Look, default_workers, load_batches
from featkit.data.sources import Source, open_source
from featkit.errors import UsageError
from featkit.ops.concept_tally import ConceptTally

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "pillow")


@dataclass(frozen=True)
class Dissection:
    """What was found, and the images to show it with.

    Attributes:
        result: The units, the concepts, and how sure they are.
        gallery: Top images of the units.
    """

    result: Result
    gallery: Gallery


def dissect(
    source: str | Path | Source,
    backbone: str | Backbone,
    tap: str,
    concepts: str | Sequence[str],
    config: DissectConfig | None = None,
    *,
    precision: str = "fp32",
    batch_size: int = 16,
    workers: int | None = None,
    device: str = "auto",
    progress: bool = False,
) -> Dissection:
    """Find the concept whose places each unit's active places fit best.

    A unit is active where its activation, brought to a grid of cells, exceeds a level that a small
    share of all its activations exceeds. ``IoU(unit, concept)``: places of both over places of
    either, summed over all images.

    Args:
        source: Images: a folder, a CSV, ``torchvision:…``, or a source object.
        backbone: A specification (see :func:`featkit.load_backbone`) or a loaded backbone.
        tap: A module that gives maps or patch tokens, by name or path.
        concepts: What the pixels show: see
            :func:`featkit.backbones.segmenters.resolve.open_concepts`.
        config: Options; the defaults if None.
        precision: ``fp32``, ``bf16`` or ``fp16``: of the forward.
        batch_size: Images that go through the network together.
        workers: Decoding processes; None chooses by device.
        device: ``auto``, ``cpu``, ``cuda``, …
        progress: Whether to draw progress bars on stderr.

    Returns:
        A :class:`Dissection`; ``dissection.result.tables["units"]`` has a row for each unit.

    Raises:
        UsageError: An option or the tap cannot be used, or no image can be read.
        SourceError: Images or concepts do not exist, or an image has no labels.
        BackboneError: The network does not exist, or the tap gives no maps.

    Cost: every image goes through the network twice, with random weights beside it
    (``chance=False`` leaves that out); outside of it some 4·c·p·(k' + h·w) operations an image of p
    cells with k' concepts, for c units with maps of h × w. Memory does not depend on the number of
    images: levels take up to 80 kB a unit, IoUs 8·c·k bytes and 4·c·k a draw.

    Source: see :mod:`featkit.analyses.dissect.variants`.
    """
    config = config or DissectConfig()
    where = choose_device(device)
    images = open_source(source)
    loaded = load_backbone(backbone) if isinstance(backbone, str) else backbone
    specs = [concepts] if isinstance(concepts, str) else list(concepts)
    labelled = open_concepts(specs, config.parts, str(where))
    if not len(images.ids):
        raise UsageError(f"{images.name} has no images: give some")
    labelled.check(images.ids)
    if batch_size < 1 or (workers is not None and workers < 0):
        raise UsageError(
            f"batch_size {batch_size}, workers {workers}: give a batch of 1 or more, and no fewer"
            " workers than 0"
        )
    identities: dict[str, Any] = {
        "images": {"source": images.name, "sha256": _digest(images)},
        "concepts": labelled.identity(),
    }
    with ExitStack() as hooks:
        run = _Run(images, loaded, tap, labelled, config, precision, where, hooks)
        run.batch_size = batch_size
        labels_here = runs_network(labelled)  # a network must not run in a process of its own
        run.workers = default_workers(where) if workers is None else workers
        run.find_levels(progress)
        if labels_here:
            run.workers = 0
        found = run.find_concepts(progress)
    recipe, cells = loaded.preprocessing, run.grid.cells
    options, provenance = describe_run(config, {}, LIBRARIES)
    options = {"concepts": specs, "tap": tap, **options, "quantile": run.share}
    options |= {"size": list(recipe.size)}
    provenance |= {
        "backbone": {"name": loaded.name, **run.identity},
        "spec": loaded.spec,
        "module": run.subjects[0].path,
        "preprocessing": recipe.as_dict(),
        "precision": precision,
        "cells": list(cells),
        **identities,
        "variant": asdict(VARIANTS[config.variant]),
    }
    result = report(found, options, provenance)
    result.notes += run.notes()
    return Dissection(result, run.gallery)


@dataclass(frozen=True)
class _Labeller:
    """Labels an image by its row; can be pickled, without the networks."""

    concepts: ConceptSource
    ids: Sequence[str]
    grid: Grid

    def __call__(self, row: int, image: Image.Image) -> NDArray[Any]:
        return self.concepts.label(self.ids[row], image, self.grid)


class _Run:
    """Both passes over the images, for the network and its random twin together."""

    workers: int
    batch_size: int

    def __init__(
        self,
        source: Source,
        backbone: Backbone,
        tap: str,
        concepts: ConceptSource,
        config: DissectConfig,
        precision: str,
        device: torch.device,
        hooks: ExitStack,
    ) -> None:
        self.source, self.concepts, self.config = source, concepts, config
        self.variant = VARIANTS[config.variant]
        self.share = config.quantile or self.variant.share
        self.identity = backbone.identity()
        self.recipe, self.device = backbone.preprocessing, device
        height, width = self.recipe.size
        side = self.variant.pixels
        cells = max(1, round(height / side)), max(1, round(width / side))
        self.grid = Grid(self.recipe, cells)
        networks = [backbone]
        if config.chance:
            networks.append(randomized(backbone, config.seed))
        self.subjects = []
        for number, network in enumerate(networks):
            network.module.to(device).to(memory_format=torch.channels_last)
            subject = Subject(
                network,
                tap,
                self.variant,
                self.share,
                cells,
                len(source.ids),
                config.top if number == 0 else 0,
                precision if number == 0 else "fp32",  # what random layers give may be tiny
                device,
                config.seed,
            )
            hooks.callback(subject.close)
            self.subjects.append(subject)
        self.failures: dict[int, str] = {}
        self.gallery: Gallery

    def find_levels(self, progress: bool) -> None:
        """Go through all images for the levels of units, and their top images."""
        for row, maps, _, _ in self._images("levels", progress):
            for subject, own in zip(self.subjects, maps, strict=True):
                subject.look(row, own)
        if len(self.failures) == len(self.source.ids):
            row, reason = next(iter(self.failures.items()))
            raise UsageError(
                f"none of the {len(self.source.ids)} images of {self.source.name} can be read;"
                f" the first is {self.source.ids[row]} ({reason})"
            )
        self.gallery = Gallery(self.grid.cells, self.subjects[0].rows.numpy())

    def find_concepts(self, progress: bool) -> list[Dissected]:
        """Go through all images again for the concepts of units."""
        categories = [concept.category for concept in self.concepts.concepts]
        config, first = self.config, self.subjects[0]
        tallies = [
            ConceptTally(
                subject.units,
                categories,
                self.variant.union,
                config.draws if subject is first else 0,
                config.seed,
            )
            for subject in self.subjects
        ]
        active = [torch.zeros(subject.units, dtype=torch.int64) for subject in self.subjects]
        shown = first.shown()
        label = _Labeller(self.concepts, tuple(self.source.ids), self.grid)
        for row, maps, labels, pixels in self._images("concepts", progress, label):
            flat = torch.from_numpy(labels).flatten(1)
            for number, subject in enumerate(self.subjects):
                masks = subject.masks(maps[number])
                tallies[number].add(masks, flat)
                active[number] += masks.sum(1)
                if number == 0 and row in shown:
                    self.gallery.keep(row, self.source.ids[row], pixels.numpy())
                    for unit, rank in shown[row]:
                        self.gallery.mark(unit, rank, masks[unit].numpy())
        images = len(self.source.ids) - len(self.failures)
        return [
            Dissected(self.concepts.concepts, images, subject.levels, count, tally)
            for subject, count, tally in zip(self.subjects, active, tallies, strict=True)
        ]

    def notes(self) -> list[str]:
        """Return what the reader must know of the images and the levels."""
        said = []
        if self.failures:
            row, reason = next(iter(self.failures.items()))
            said.append(
                f"{len(self.failures)} of {len(self.source.ids)} images cannot be read and are left"
                f" out; the first is {self.source.ids[row]} ({reason})"
            )
        first = self.subjects[0]
        if first.sampled < first.total:
            error = ((1 - self.share) / (self.share * first.sampled)) ** 0.5
            said.append(
                f"levels are from {first.sampled:,} of {first.total:,} activations a unit: the"
                f" share above them is {self.share:.3g} ± {error * self.share:.1g}"
            )
        return said

    def _images(
        self, what: str, progress: bool, look: Look | None = None
    ) -> Iterator[tuple[int, list[Tensor], Any, Tensor]]:
        """Give of each image its row, the maps of each network, what a look made, and pixels."""
        count, size = len(self.source.ids), self.batch_size
        batches = [range(start, min(start + size, count)) for start in range(0, count, size)]
        recipe, workers = self.recipe, self.workers
        loaded = load_batches(self.source, [recipe], batches, workers, self.device, look)
        with tqdm(total=count, desc=what, unit="img", disable=not progress) as bar:
            for batch in loaded:
                self.failures |= batch.failures
                images = recipe.normalize(batch.pixels[0].to(self.device, non_blocking=True))
                maps = [subject.maps(images) for subject in self.subjects]
                for place, row in enumerate(batch.rows):
                    if row not in batch.failures:
                        looked = batch.looked[place] if look else None
                        yield row, [own[place] for own in maps], looked, batch.pixels[0][place]
                bar.update(len(batch.rows))


def _digest(source: Source) -> str:
    """Return the sha256 of the names and contents of all images."""
    digest = hashlib.sha256()
    for row, name in enumerate(source.ids):
        digest.update(name.encode() + b"\0" + source.digest(row))
    return digest.hexdigest()
