"""Stores of synthetic rows: classes that overlap, seen by two models, some images unreadable."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featkit.store.samples import Samples, write_samples
from featkit.store.writer import PartialTable, PartPlan, TableSpec, writing

CLASSES, LATENT, SPREAD = 20, 64, 2.0
PART = 16_384
UNREADABLE = 1000
"""Of as many images, one cannot be read, each by either model alone."""

MODELS = ("one", "two")
SEEDS = {"train": 1, "test": 2, "few": 2}
"""The few are the first images of the test."""


def labels(count: int, name: str) -> NDArray[np.int64]:
    """Return the class of each image."""
    seeds = range(-(-count // PART))
    drawn = [_rng(name, part, 0).integers(0, CLASSES, PART) for part in seeds]
    return np.concatenate(drawn)[:count]


def features(rows: range, name: str, model: int, width: int) -> NDArray[np.float32]:
    """Return the rows of one part as a model sees them: rectified, as behind a last ReLU."""
    part = rows.start // PART
    shape = np.random.default_rng(7)
    centres = shape.standard_normal((CLASSES, LATENT), np.float32)
    looks = [shape.standard_normal((LATENT, width), np.float32) / LATENT**0.5 for _ in MODELS]
    classes = _rng(name, part, 0).integers(0, CLASSES, PART)
    latent = centres[classes] + SPREAD * _rng(name, part, 1).standard_normal(
        (PART, LATENT), np.float32
    )
    noise = _rng(name, part, 2 + model).standard_normal((PART, width), np.float32)
    seen: NDArray[np.float32] = np.maximum(latent @ looks[model] + 0.5 * noise, 0)
    return seen[: len(rows)]


def _rng(name: str, part: int, what: int) -> np.random.Generator:
    return np.random.default_rng([SEEDS[name], part, what])


def samples(count: int, name: str) -> Samples:
    """Return the images: paths, digests and labels."""
    classes = labels(count, name)
    paths = [f"class-{c:02d}/image-{row:09d}.jpg" for row, c in enumerate(classes.tolist())]
    digests = np.empty((count, 32), np.uint8)
    for row in range(count):
        content = f"{SEEDS[name]}/{row}".encode()
        digests[row] = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
    names = tuple(f"class-{c:02d}" for c in range(CLASSES))
    return Samples(paths, digests, classes, names, "synthetic")


def write_store(store: Path, count: int, name: str, width: int) -> None:
    """Write the images, and a table of each model."""
    listed = samples(count, name)
    write_samples(store, listed)
    for number, model in enumerate(MODELS):
        provenance: dict[str, Any] = {
            "backbone": {"architecture": f"synthetic:{model}", "weights": model},
            "tap": "features",
            "pooling": "none",
            "preprocessing": {"size": [1, 1]},
            "samples": listed.manifest,
            "precision": "fp32",
            "dtype": "float32",
        }
        spec = TableSpec(
            model, "features", "none", f"synthetic:{model}", provenance, count, (width,), "float32"
        )
        part = PartialTable(store, spec, PartPlan(1, PART, compiled=False))
        with writing(store):
            part.begin()
            for index in part.missing():
                rows = part.rows_of(index)
                values = features(rows, name, number, width)
                bad = [row for row in rows if row % UNREADABLE == 17 + number]
                valid = np.ones(len(rows), bool)
                valid[np.array(bad, int) - rows.start] = False
                values[~valid] = np.nan
                part.write(index, values, valid, dict.fromkeys(bad, "truncated file"))
            part.finish()


if __name__ == "__main__":
    write_store(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[1]))
