"""Decoded images in batches, prepared while the networks compute."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from featkit.data.preprocessing import Preprocessing
from featkit.errors import DecodeError, FeatkitError
from featkit.parallel.group import here

_Item = tuple[int, list[NDArray[np.uint8]] | None, Any, str]


class Readable(Protocol):
    """Images by number."""

    def read(self, row: int) -> Image.Image:
        """Return image ``row`` as RGB, or raise `DecodeError`."""


@dataclass(frozen=True)
class Chosen:
    """Some images of others, numbered anew.

    Attributes:
        images: The others.
        rows: Their numbers, (n).
    """

    images: Readable
    rows: NDArray[np.int64]

    def read(self, row: int) -> Image.Image:
        """Return the image that is number ``row`` now."""
        return self.images.read(int(self.rows[row]))


Look = Callable[[int, Image.Image], Any]
"""What else is made of an image, beside the process that runs the networks: row, mode RGB."""


@dataclass
class Batch:
    """Some consecutive samples, decoded.

    Attributes:
        rows: Their row numbers.
        pixels: One (b, h, w, 3) uint8 tensor a preprocessing; samples that failed are zero.
        failures: Reason of failure by row.
        looked: What a ``look`` made of each sample, None of one that failed; empty without a look.
    """

    rows: range
    pixels: list[Tensor]
    failures: dict[int, str]
    looked: list[Any] = field(default_factory=list)

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; the data loader calls this for GPUs."""
        pinned = [tensor.pin_memory() for tensor in self.pixels]
        return Batch(self.rows, pinned, self.failures, self.looked)


class _Images(Dataset[_Item]):
    def __init__(
        self, source: Readable, preprocessings: Sequence[Preprocessing], look: Look | None
    ) -> None:
        self.source = source
        self.preprocessings = tuple(preprocessings)
        self.look = look

    def __getitem__(self, row: int) -> _Item:
        try:
            image = self.source.read(row)
        except DecodeError as error:
            return row, None, None, str(error)
        try:
            looked = None if self.look is None else self.look(row, image)
        except FeatkitError as error:  # raised in a process of its own it would lose its words
            looked = error
        return row, [recipe.pixels(image) for recipe in self.preprocessings], looked, ""

    def collate(self, items: list[_Item]) -> Batch:
        rows = range(items[0][0], items[-1][0] + 1)
        pixels = [
            torch.zeros((len(items), *recipe.size, 3), dtype=torch.uint8)
            for recipe in self.preprocessings
        ]
        failures = {}
        for position, (row, arrays, _, reason) in enumerate(items):
            if arrays is None:
                failures[row] = reason
                continue
            for tensor, array in zip(pixels, arrays, strict=True):
                tensor[position] = torch.from_numpy(array)
        return Batch(rows, pixels, failures, [item[2] for item in items] if self.look else [])


def _hush(_worker: int) -> None:
    """Let a decoding process end with the main one, and say nothing, where the main one is stopped.

    Ctrl-C reaches both. Where it stops the main process while that takes over an image, a thread
    of the decoding process finds its connection closed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, ConnectionError | EOFError):
            before(kind, error, trace)

    sys.excepthook = hook


def default_workers(device: torch.device) -> int:
    """Return how many decoding processes to use.

    Beside a GPU one a core, beside a CPU that computes one for every four; at most eight. Several
    processes on a machine share its cores.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    cores = max(1, cores // here().local_count)
    return min(8, cores if device.type == "cuda" else max(1, cores // 4))


def load_batches(
    source: Readable,
    preprocessings: Sequence[Preprocessing],
    batches: Sequence[range],
    workers: int,
    device: torch.device,
    look: Look | None = None,
) -> Iterator[Batch]:
    """Decode batches in the order given, ahead of their use.

    Args:
        source: The images.
        preprocessings: Applied to every image, decoded once.
        batches: Row numbers of each batch, consecutive.
        workers: Decoding processes; 0 decodes in this one.
        device: Where the pixels will go; memory is pinned for a GPU.
        look: What else to make of each image; a `FeatkitError` of it ends the loading.

    Raises:
        FeatkitError: A decoding process died.
    """
    images = _Images(source, preprocessings, look)
    options: dict[str, Any] = {"prefetch_factor": 4} if workers else {}
    loader = DataLoader(
        images,
        batch_sampler=batches,  # type: ignore[arg-type]  # ranges are sequences of rows too
        num_workers=workers,
        collate_fn=images.collate,
        pin_memory=device.type == "cuda",
        worker_init_fn=_hush if workers else None,
        **options,
    )
    with _said_as_death():
        with _deaf():
            loaded = iter(loader)
        _explain_deaths()
        for batch in loaded:
            for looked in batch.looked:
                if isinstance(looked, FeatkitError):
                    raise looked
            yield batch


@contextmanager
def _deaf() -> Iterator[None]:
    """Let a stop wait until processes have begun, which never hear of it.

    A loader that is stopped half made complains when it is taken away, and a process that has its
    parent's handlers still would die with words of its own.
    """
    heard: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda n, _: heard.append(n)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for missed in heard[:1]:
        signal.raise_signal(missed)


def _explain_deaths() -> None:
    """From now on say what it means that a decoding process has died.

    PyTorch raises an error wherever the main process is at that moment, which may be in what
    uses the batches: its handler of SIGCHLD is wrapped once.
    """
    handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    if callable(handler) and not isinstance(handler, _OnDeath):
        with suppress(ValueError):  # not the main thread, where PyTorch has no handler either
            signal.signal(signal.SIGCHLD, _OnDeath(handler))


@dataclass(frozen=True)
class _OnDeath:
    """A handler of SIGCHLD that says what a death means."""

    handler: Callable[[int, FrameType | None], Any]

    def __call__(self, number: int, frame: FrameType | None) -> None:
        with _said_as_death():
            self.handler(number, frame)


@contextmanager
def _said_as_death() -> Iterator[None]:
    """Say what PyTorch's error means.

    Raises:
        FeatkitError: A decoding process died.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise FeatkitError(
            "a decoding process was killed (out of memory?): rows written so far are safe; run "
            "the same command again, with fewer --workers or --workers 0"
        ) from error
