"""What is made of images in the processes that decode them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from featkit import open_source
from featkit.data import loading
from featkit.data.loading import load_batches
from featkit.data.preprocessing import Preprocessing
from featkit.errors import FeatkitError, SourceError

RECIPE = Preprocessing((8, 8), None, "bilinear", (0.5,) * 3, (0.5,) * 3)


class Brightness:
    """The row, the process and the red of the first pixel; refuses one row."""

    def __init__(self, refused: int = -1) -> None:
        self.refused = refused

    def __call__(self, row: int, image: Image.Image) -> tuple[int, int, int]:
        if row == self.refused:
            raise SourceError(f"row {row} has no labels: make some")
        return row, os.getpid(), image.getpixel((0, 0))[0]  # type: ignore[index]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for i in range(5):
        Image.fromarray(np.full((8, 8, 3), 10 * i, np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes(b"\x89PNG broken")
    return tmp_path


def batches(images: Path, workers: int, look: Brightness | None) -> list:
    source, cpu = open_source(images), torch.device("cpu")
    ranges = [range(2), range(2, 4), range(4, 5)]
    return list(load_batches(source, [RECIPE], ranges, workers, cpu, look))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_looked_at_comes_with_its_image(images: Path, workers: int) -> None:
    found = batches(images, workers, Brightness())
    assert [list(batch.failures) for batch in found] == [[], [2], []]
    looked = [each for batch in found for each in batch.looked]
    assert [each and (each[0], each[2]) for each in looked] == [
        (0, 0), (1, 10), None, (3, 30), (4, 40),
    ]  # fmt: skip
    assert all((each[1] == os.getpid()) == (workers == 0) for each in looked if each)
    assert found[1].pixels[0][1].unique().tolist() == [30]


def test_without_a_look_there_is_nothing_looked_at(images: Path) -> None:
    assert [batch.looked for batch in batches(images, 0, None)] == [[], [], []]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_look_keeps_its_words(images: Path, workers: int) -> None:
    with pytest.raises(SourceError, match=r"^row 3 has no labels: make some$"):
        batches(images, workers, Brightness(refused=3))


def process(_row: int, _image: Image.Image) -> int:
    return os.getpid()


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_death_is_told_where_batches_are_used(images: Path) -> None:
    source, cpu = open_source(images), torch.device("cpu")
    ranges = [range(1), *(range(3, 5),) * 100]
    loaded = load_batches(source, [RECIPE], ranges, 1, cpu, process)
    os.kill(next(loaded).looked[0], signal.SIGKILL)
    with pytest.raises(FeatkitError, match=r"a decoding process was killed \(out of memory\?\)"):
        time.sleep(30)  # as a network computes; the death is heard of at once


@dataclass(frozen=True)
class Noting:
    """Notes each image that it has looked at."""

    file: Path

    def __call__(self, _row: int, _image: Image.Image) -> None:
        with self.file.open("a") as file:
            file.write("x")


PREFETCHED = 4  # batches that a process is given before the first one is asked for


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_death_before_the_first_batch_is_told(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's handler is there from the moment that the processes are."""
    deaf, done = loading._deaf, tmp_path / "done"

    @contextmanager
    def and_killed() -> Iterator[None]:
        with deaf():
            yield
        for _ in range(600):  # all that it was given; then it waits, and holds no lock of PyTorch's
            if done.exists() and len(done.read_text()) == PREFETCHED:
                break
            time.sleep(0.1)
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        time.sleep(30)

    monkeypatch.setattr(loading, "_deaf", and_killed)
    source, cpu = open_source(images), torch.device("cpu")
    with pytest.raises(FeatkitError, match=r"a decoding process was killed \(out of memory\?\)"):
        next(load_batches(source, [RECIPE], [range(1)] * 100, 1, cpu, Noting(done)))


def test_a_stop_waits_until_processes_have_begun() -> None:
    """A loader that is half made would complain on stderr."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    reached = []

    def pressed() -> None:
        with loading._deaf():
            signal.raise_signal(signal.SIGINT)
            reached.append(True)

    try:
        with pytest.raises(KeyboardInterrupt):
            pressed()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert reached
