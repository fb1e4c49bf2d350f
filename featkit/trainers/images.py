"""The images of a training: decoded once, kept as 8-bit pixels."""

from __future__ import annotations

import math
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featkit.backbones.device import choose_device
from featkit.backbones.training_runs import SHARED_PIXELS
from featkit.data.loading import Chosen, default_workers, load_batches
from featkit.data.preprocessing import Preprocessing
from featkit.data.sources import Source
from featkit.errors import SourceError, UsageError
from featkit.ops.free_memory import free_memory
from featkit.ops.hold_out import hold_out
from featkit.ops.neighbors import Integers
from featkit.parallel.group import all_of, here
from featkit.parallel.place import ALONE
from featkit.progress import progress_bar
from featkit.store.files import explain_write_errors, reserve_space
from featkit.trainers.settings import Training

Number = TypeVar("Number", np.uint8, np.float32)

_PIXELS, _UNCHANGED = "decoded images", "the run is as it was"
_TOGETHER = 256
_IN_MEMORY = 0.5
"""Share of the free memory up to which pixels are held there and not in a mapped file."""


@dataclass(frozen=True)
class TrainingImages:
    """Decoded images, those that are learned from and those that are not.

    Attributes:
        held: Pixels of all of them, (n, side, side, 3) uint8, in memory or a mapped file.
        learned: Rows that are learned from, sorted.
        judged: Rows held out, sorted; none where there are no labels.
        labels: (n) int64, None where there are none, or several an image.
        unreadable: Reason by name of the images that are left out.
        scratch: Folder of mapped files, for what does not fit into memory.
    """

    held: NDArray[np.uint8]
    learned: Integers
    judged: Integers
    labels: NDArray[np.int64] | None
    unreadable: dict[str, str]
    scratch: Path

    @property
    def pixels(self) -> Tensor:
        """As networks take them, (n, 3, side, side)."""
        return torch.from_numpy(self.held).permute(0, 3, 1, 2)


def load_images(
    source: Source,
    training: Training,
    recipe: Preprocessing,
    scratch: Path,
    workers: int | None = None,
    progress: bool = False,
) -> TrainingImages:
    """Draw images, decode them, and set some aside.

    Args:
        source: Of the images.
        training: How many are taken, and which share of them is set aside where there are labels.
        recipe: The network's; images keep the size that its crop is cut from, so that random crops
            see what lies around it too.
        scratch: Folder of the mapped file, without a name, that is used where pixels are more than
            half of the free memory.
        workers: Decoding processes.
        progress: Whether to draw a progress bar on stderr.

    Raises:
        SourceError: Fewer than two images can be read.

    Cost: 3·side² bytes an image; one decoding of each.
    """
    rows = np.arange(len(source.ids))
    if training.images is not None and training.images < len(rows):
        rows = np.sort(np.random.default_rng(training.seed).permutation(rows)[: training.images])
    side = max(recipe.resize, min(recipe.size)) if isinstance(recipe.resize, int) else None
    side = side or min(recipe.size)
    whole = Preprocessing((side, side), side, recipe.interpolation, recipe.mean, recipe.std)
    device = choose_device("cpu")
    chosen = Chosen(source, rows)
    starts = range(0, len(rows), _TOGETHER)
    batches = [range(start, min(start + _TOGETHER, len(rows))) for start in starts]
    pixels = _reserve_together((len(rows), side, side, 3), scratch)
    failures: dict[int, str] = {}
    workers = default_workers(device) if workers is None else workers
    own = batches[here().local_rank :: here().local_count]
    with progress_bar(len(rows), "decoding", "img", show=progress, delay=1) as bar:
        for batch in load_batches(chosen, [whole], own, workers, device):
            pixels[batch.rows.start : batch.rows.stop] = batch.pixels[0].numpy()
            failures |= batch.failures
            bar.update(len(batch.rows) * here().local_count)
    failures = {row: why for found in all_of(failures) for row, why in found.items()}
    readable = np.setdiff1d(np.arange(len(rows)), list(failures))
    if len(readable) < 2:
        raise SourceError(f"{source.name}: {len(readable)} readable image(s): two are needed")
    labels = source.labels
    labels = labels[rows] if labels is not None and labels.ndim == 1 else None
    judged: Integers = np.empty(0, np.int64)
    learned = readable
    if labels is not None and round(training.held_out * len(readable)) == len(readable):
        raise UsageError(f"held_out {training.held_out:g} of {len(readable)} images leaves none")
    if labels is not None and round(training.held_out * len(readable)) > 0:
        judged, learned = (
            np.sort(readable[part])
            for part in hold_out(len(readable), training.held_out, training.seed)
        )
    return TrainingImages(
        pixels,
        learned,
        judged,
        labels,
        {source.ids[rows[row]]: reason for row, reason in failures.items()},
        scratch,
    )


def _reserve_together(shape: tuple[int, ...], scratch: Path) -> NDArray[np.uint8]:
    """Return an array that all processes of this machine share, and each fills a part of."""
    if here() == ALONE:
        return reserve(shape, np.uint8, scratch, _PIXELS)
    machines = all_of(_machine())
    maker = machines.index(_machine())
    path = scratch / SHARED_PIXELS.format(maker)
    if here().rank == maker:
        try:
            with explain_write_errors(_PIXELS, scratch, _UNCHANGED), path.open("wb") as file:
                reserve_space(file.fileno(), math.prod(shape))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    all_of(None)
    found = np.memmap(path, np.uint8, "r+", shape=shape)
    all_of(None)
    if here().rank == maker:
        path.unlink()
    return found


def _machine() -> str:
    """Return what no other machine says of itself."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return platform.node() + (boot.read_text() if boot.exists() else "")


def reserve(
    shape: tuple[int, ...], kind: type[Number], scratch: Path, what: str
) -> NDArray[Number]:
    """Return an array in memory, or in a file without a name whose space is reserved.

    Args:
        shape: Of the array.
        kind: Of its numbers.
        scratch: Folder of the file.
        what: It is, where the file does not fit on the disk.

    Raises:
        StoreError: It does not.
    """
    size = math.prod(shape) * np.dtype(kind).itemsize
    if size <= _IN_MEMORY * free_memory():
        return np.empty(shape, kind)
    with (
        explain_write_errors(what, scratch, _UNCHANGED),
        tempfile.TemporaryFile(dir=scratch) as file,
    ):
        reserve_space(file.fileno(), size)
        return np.memmap(file, kind, "w+", shape=shape)
