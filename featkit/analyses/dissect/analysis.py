"""From images, a network and concepts to what each unit detects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from featkit.analyses.base import Result, describe_run
from featkit.analyses.dissect.config import DissectConfig
from featkit.analyses.dissect.gallery import Gallery
from featkit.analyses.dissect.scratch import Scratch
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
from featkit.data.loading import default_workers, load_batches
from featkit.data.sources import Source, open_source
from featkit.errors import UsageError
from featkit.ops.concept_tally import ConceptTally
from featkit.progress import progress_bar

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

    Cost: every image goes once through the network and through ``chance`` networks with random
    weights, and a second time where its maps, 4·c·h·w bytes a network, and its pixels find no room
    among temporary files (see :class:`~featkit.analyses.dissect.scratch.Scratch`). Outside of that
    at most 4·c·p·(k' + h·w) operations an image of p cells with k' concepts, for c units with maps
    of h × w, as only units take part whose map exceeds what matters. Memory does not depend on the
    number of images: levels take up to 80 kB a unit and network, IoUs 8·c·k bytes and 5·c·k a draw.

    Source: see :mod:`featkit.analyses.dissect.variants`.
    """
    config = config or DissectConfig()
    if batch_size < 1 or (workers is not None and workers < 0):
        raise UsageError(
            f"batch_size {batch_size}, workers {workers}: give a batch of 1 or more, and no fewer"
            " workers than 0"
        )
    where = choose_device(device)
    images = open_source(source)
    loaded = load_backbone(backbone) if isinstance(backbone, str) else backbone
    specs = [concepts] if isinstance(concepts, str) else list(concepts)
    labelled = open_concepts(specs, config.parts, str(where))
    if not len(images.ids):
        raise UsageError(f"{images.name} has no images: give some")
    labelled.check(images.ids)
    workers = default_workers(where) if workers is None else workers
    if runs_network(labelled):  # which must not run in a process of its own
        workers = 0
    with _Run(images, loaded, tap, labelled, config, precision, where, batch_size, workers) as run:
        run.find_levels(progress)
        found = run.find_concepts(progress)
    options, provenance = describe_run(config, {}, LIBRARIES)
    options = {"concepts": specs, "tap": tap, **options, "quantile": run.share}
    options |= {"size": list(loaded.preprocessing.size)}
    provenance |= {
        "backbone": {"name": loaded.name, **run.identity},
        "spec": loaded.spec,
        "module": run.subjects[0].path,
        "preprocessing": loaded.preprocessing.as_dict(),
        "precision": precision,
        "cells": list(run.grid.cells),
        "images": {"source": images.name, "sha256": _digest(images)},
        "concepts": labelled.identity(),
        "variant": asdict(VARIANTS[config.variant]),
    }
    result = report(found, options, provenance)
    result.notes += run.notes()
    return Dissection(result, run.gallery)


@dataclass(frozen=True)
class Labeller:
    """Labels an image by its row; can be pickled, without the networks."""

    concepts: ConceptSource
    ids: Sequence[str]
    grid: Grid

    def __call__(self, row: int, image: Image.Image) -> NDArray[Any]:
        """Return the labels of an image, (layers, *cells)."""
        return self.concepts.label(self.ids[row], image, self.grid)


@dataclass(frozen=True)
class _Seen:
    """What is known of an image.

    Attributes:
        row: Its number.
        labels: (layers, cells).
        pixels: As the network saw it, uint8 (h, w, 3).
        maps: Of each network, (units, h, w).
    """

    row: int
    labels: Tensor
    pixels: Tensor
    maps: list[Tensor]


class _Run(ExitStack):
    """Both passes over the images, for the network and its random twins together."""

    gallery: Gallery

    def __init__(
        self,
        source: Source,
        backbone: Backbone,
        tap: str,
        concepts: ConceptSource,
        config: DissectConfig,
        precision: str,
        device: torch.device,
        batch_size: int,
        workers: int,
    ) -> None:
        super().__init__()
        self.batch_size, self.workers = batch_size, workers
        self.source, self.concepts, self.config = source, concepts, config
        self.variant = VARIANTS[config.variant]
        self.share = config.quantile or self.variant.share
        self.identity = backbone.identity()
        self.recipe, self.device = backbone.preprocessing, device
        height, width = self.recipe.size
        side = self.variant.pixels
        self.grid = Grid(self.recipe, (max(1, round(height / side)), max(1, round(width / side))))
        twins = [randomized(backbone, config.seed, i) for i in range(config.chance)]
        self.subjects = []
        for number, network in enumerate([backbone, *twins]):
            network.module.to(device).to(memory_format=torch.channels_last)
            subject = Subject(
                network,
                tap,
                self.variant,
                self.share,
                self.grid.cells,
                len(source.ids),
                config.top if number == 0 else 0,
                precision if number == 0 else "fp32",  # what random layers give may be tiny
                device,
                config.seed,
            )
            self.callback(subject.close)
            self.subjects.append(subject)
        self.failures: dict[int, str] = {}
        self.scratch = self.enter_context(Scratch())

    def find_levels(self, progress: bool) -> None:
        """Go through all images for the levels of units, and their top images."""
        with progress_bar(len(self.source.ids), "levels", "img", show=progress) as bar:
            for seen in self._images(0, bar):
                for subject, maps in zip(self.subjects, seen.maps, strict=True):
                    subject.look(seen.row, maps)
                arrays = (seen.labels, seen.pixels, *seen.maps)
                self.scratch.keep(seen.row, [array.numpy() for array in arrays])
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
        first, seed = self.subjects[0], self.config.seed
        tallies = []
        for subject in self.subjects:
            draws = self.config.draws if subject is first else 0
            tallies.append(ConceptTally(subject.units, categories, self.variant.union, draws, seed))
        shown = first.shown()
        with progress_bar(len(self.source.ids), "concepts", "img", show=progress) as bar:
            for seen in self._once_more(bar):
                labels = seen.labels.flatten(1)
                for subject, maps, tally in zip(self.subjects, seen.maps, tallies, strict=True):
                    units, masks = subject.masks(maps)
                    tally.add(masks, labels, units)
                    if subject is first and seen.row in shown:
                        self._show(seen, shown[seen.row], units, masks)
        images = len(self.source.ids) - len(self.failures)
        return [
            Dissected(self.concepts.concepts, images, subject.levels, tally)
            for subject, tally in zip(self.subjects, tallies, strict=True)
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
        looked = self.subjects[0].looked
        total = self.subjects[0].each * (len(self.source.ids) - len(self.failures))
        if looked < total:
            error = ((1 - self.share) / (self.share * looked)) ** 0.5
            said.append(
                f"levels are from {looked:,} of {total:,} activations a unit: the share above them"
                f" is {self.share:.3g} ± {error * self.share:.1g}"
            )
        return said

    def _show(
        self, seen: _Seen, places: Sequence[tuple[int, int]], units: Tensor, masks: Tensor
    ) -> None:
        """Put an image into the gallery, as that of some units and ranks."""
        self.gallery.keep(seen.row, self.source.ids[seen.row], seen.pixels.numpy())
        regions = dict(zip(units.tolist(), masks.numpy(), strict=True))
        nowhere = np.zeros(masks.shape[1], dtype=bool)
        for unit, rank in places:
            self.gallery.mark(unit, rank, regions.get(unit, nowhere))

    def _once_more(self, bar: Any) -> Iterator[_Seen]:
        """Give what was seen of each image: as it was kept, and of the rest from the networks."""
        for row in range(len(self.source.ids)):
            if row in self.scratch:
                labels, pixels, *maps = map(torch.from_numpy, self.scratch.read(row))
                yield _Seen(row, labels, pixels, maps)
            elif row not in self.failures:
                start = row // self.batch_size * self.batch_size  # in the batches of before
                yield from (seen for seen in self._images(start, bar) if seen.row >= row)
                return
            bar.update()

    def _images(self, first: int, bar: Any) -> Iterator[_Seen]:
        """Send the images from a row on through the networks, and label them."""
        count, size = len(self.source.ids), self.batch_size
        batches = [range(start, min(start + size, count)) for start in range(first, count, size)]
        label = Labeller(self.concepts, tuple(self.source.ids), self.grid)
        recipe = self.recipe
        for batch in load_batches(self.source, [recipe], batches, self.workers, self.device, label):
            self.failures |= batch.failures
            (pixels,) = batch.pixels
            images = recipe.normalize(pixels.to(self.device, non_blocking=True))
            maps = [subject.maps(images) for subject in self.subjects]
            for place, row in enumerate(batch.rows):
                if row not in self.failures:
                    labels = torch.from_numpy(batch.looked[place])
                    yield _Seen(row, labels, pixels[place], [own[place] for own in maps])
            bar.update(len(batch.rows))


def _digest(source: Source) -> str:
    """Return the sha256 of the names and contents of all images."""
    digest = hashlib.sha256()
    for row, name in enumerate(source.ids):
        digest.update(name.encode() + b"\0" + source.digest(row))
    return digest.hexdigest()
