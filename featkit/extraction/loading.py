"""Decoded images in batches, prepared while the networks compute."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from featkit.data.preprocessing import Preprocessing
from featkit.data.sources import Source
from featkit.errors import DecodeError, FeatkitError

_Item = tuple[int, list[NDArray[np.uint8]] | None, str]


@dataclass
class Batch:
    """Some consecutive samples, decoded.

    Attributes:
        rows: Their row numbers.
        pixels: One (b, h, w, 3) uint8 tensor a preprocessing; samples that failed are zero.
        failures: Reason of failure by row.
    """

    rows: range
    pixels: list[Tensor]
    failures: dict[int, str]

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; the data loader calls this for GPUs."""
        return Batch(self.rows, [tensor.pin_memory() for tensor in self.pixels], self.failures)


class _Images(Dataset[_Item]):
    def __init__(self, source: Source, preprocessings: Sequence[Preprocessing]) -> None:
        self.source = source
        self.preprocessings = tuple(preprocessings)

    def __getitem__(self, row: int) -> _Item:
        try:
            image = self.source.read(row)
        except DecodeError as error:
            return row, None, str(error)
        return row, [recipe.pixels(image) for recipe in self.preprocessings], ""

    def collate(self, items: list[_Item]) -> Batch:
        rows = range(items[0][0], items[-1][0] + 1)
        pixels = [
            torch.zeros((len(items), *recipe.size, 3), dtype=torch.uint8)
            for recipe in self.preprocessings
        ]
        failures = {}
        for position, (row, arrays, reason) in enumerate(items):
            if arrays is None:
                failures[row] = reason
                continue
            for tensor, array in zip(pixels, arrays, strict=True):
                tensor[position] = torch.from_numpy(array)
        return Batch(rows, pixels, failures)


def default_workers(device: torch.device) -> int:
    """Return how many decoding processes to use.

    Beside a GPU one a core, beside a CPU that computes one for every four; at most eight.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return min(8, cores if device.type == "cuda" else max(1, cores // 4))


def load_batches(
    source: Source,
    preprocessings: Sequence[Preprocessing],
    batches: Sequence[range],
    workers: int,
    device: torch.device,
) -> Iterator[Batch]:
    """Decode batches in the order given, ahead of their use.

    Args:
        source: The images.
        preprocessings: Applied to every image, decoded once.
        batches: Row numbers of each batch, consecutive.
        workers: Decoding processes; 0 decodes in this one.
        device: Where the pixels will go; memory is pinned for a GPU.

    Raises:
        FeatkitError: A decoding process died.
    """
    images = _Images(source, preprocessings)
    options: dict[str, Any] = {"prefetch_factor": 4} if workers else {}
    loader = DataLoader(
        images,
        batch_sampler=batches,  # type: ignore[arg-type]  # ranges are sequences of rows too
        num_workers=workers,
        collate_fn=images.collate,
        pin_memory=device.type == "cuda",
        **options,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise FeatkitError(
            "a decoding process was killed (out of memory?): rows written so far are safe; run "
            "the same command again, with fewer --workers or --workers 0"
        ) from error
