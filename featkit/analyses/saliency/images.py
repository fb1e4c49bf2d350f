"""The images that leaves are judged by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featkit.data.loading import Chosen, default_workers, load_batches
from featkit.data.preprocessing import Preprocessing
from featkit.data.sources import Source
from featkit.errors import UsageError
from featkit.progress import progress_bar

_TOGETHER = 64


@dataclass(frozen=True)
class DrawnImages:
    """Decoded images, in the order drawn: the first k are one of each of k classes.

    Attributes:
        pixels: As the network sees them, uint8 (n, h, w, 3).
        names: Of the images.
        labels: (n) int64; None where there are none, or several an image.
        classes: The names that labels index, if known.
        sha256: Over names and contents.
        notes: What the reader must know.
    """

    pixels: Tensor
    names: list[str]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...] | None
    sha256: str
    notes: list[str]

    def titles(self, count: int) -> list[str]:
        """Return what the first images are called: by their class, or by their file."""
        if self.labels is None:
            return [name.rpartition("/")[2] for name in self.names[:count]]
        return [self.class_name(label) for label in self.labels[:count]]

    def class_name(self, label: int) -> str:
        """Return the name of a class, or its number."""
        return str(label) if self.classes is None else self.classes[label]


def load_images(
    source: Source,
    recipe: Preprocessing,
    count: int,
    seed: int,
    workers: int | None,
    progress: bool,
) -> DrawnImages:
    """Draw images, and decode them.

    Args:
        source: Of the images.
        recipe: From an image to a network's input.
        count: How many are drawn; all where there are fewer.
        seed: Of the draw.
        workers: Decoding processes; None chooses.
        progress: Whether to draw a progress bar on stderr.

    Raises:
        UsageError: None of them can be read.

    Cost: one decoding of each image; 3·n·h·w bytes.
    """
    labels = source.labels if source.labels is not None and source.labels.ndim == 1 else None
    rows = draw_rows(len(source.ids), labels, count, seed)
    cpu = torch.device("cpu")
    starts = range(0, len(rows), _TOGETHER)
    batches = [range(start, min(start + _TOGETHER, len(rows))) for start in starts]
    pixels, failures = [], dict[int, str]()
    workers = default_workers(cpu) if workers is None else workers
    with progress_bar(len(rows), "decoding", "img", show=progress, delay=1) as bar:
        for batch in load_batches(Chosen(source, rows), [recipe], batches, workers, cpu):
            pixels.append(batch.pixels[0])
            failures |= batch.failures
            bar.update(len(batch.rows))
    kept = [place for place in range(len(rows)) if place not in failures]
    first = next(iter(failures.items()), None)
    failed = "" if first is None else f"the first is {source.ids[rows[first[0]]]} ({first[1]})"
    if not kept:
        said = f"none of the {len(rows)} images drawn can be read; {failed}"
        raise UsageError(f"{source.name}: {said if failed else 'has no images: give some'}")
    notes = [f"{len(failures)} of {len(rows)} images cannot be read and are left out; {failed}"]
    if len(rows) < count:
        notes.append(f"{count} images were asked for, and there are {len(rows)}")
    chosen = rows[kept]
    digest = hashlib.sha256()
    for row in chosen:
        digest.update(source.ids[row].encode() + b"\0" + source.digest(int(row)))
    return DrawnImages(
        torch.cat(pixels)[kept],
        [source.ids[row] for row in chosen],
        None if labels is None else labels[chosen],
        source.classes,
        digest.hexdigest(),
        notes if failures else notes[1:],
    )


def draw_rows(n: int, labels: NDArray[Any] | None, count: int, seed: int) -> NDArray[np.int64]:
    """Draw rows at random, one of each class before a second of any.

    Args:
        n: Rows.
        labels: (n), or None.
        count: How many, at most.
        seed: Equal seeds give equal draws, and fewer are the first of more.

    Example:
        >>> labels = np.array([0, 0, 0, 0, 1, 1])
        >>> labels[draw_rows(6, labels, 4, seed=0)].tolist()
        [0, 1, 0, 1]
    """
    order = np.random.default_rng(seed).permutation(n)
    if labels is not None:
        drawn = labels[order]
        rank = np.empty(n, np.int64)
        for label in np.unique(drawn):
            rank[drawn == label] = np.arange((drawn == label).sum())
        order = order[np.lexsort((drawn, rank))]
    return order[:count]
