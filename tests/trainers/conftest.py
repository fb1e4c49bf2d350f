"""Images to train on, and trainings in a process of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import featkit
from featkit.analyses.base import Result
from tests.processes import Forked

TINY: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 16,
    "size": 16,
    "optimizer": "adam",
    "lr": 2e-3,
    "warmup": 1.0,
    "knn_every": 1,
    "precision": "fp32",
}
"""A training of seconds: 54 of the images of :func:`stripes` learned from, three steps an epoch."""

SMALL: dict[str, dict[str, Any]] = {
    "deepcluster": {
        "arch": "lenet5",
        "size": 32,
        "clusters": 4,
        "pca": 8,
        "optimizer": "sgd",
        "held_out": 0.1,
    },
    "simclr": {"arch": "cifar_resnet8"},
    "treenet": {
        "leaves": 2,
        "join": "average",
        "channels": (4, 8),
        "prototypes": 32,
        "hidden": 16,
        "bottleneck": 8,
        "local_crops": 2,
    },
}
"""Of each method, what makes its network small."""


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty images of two classes: stripes that lie and stripes that stand, of any colour."""
    root = tmp_path_factory.mktemp("stripes")
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(16) * np.pi / 2)[:, None, None]
    for name in ("lying", "standing"):
        (root / name).mkdir()
        for i in range(30):
            own = wave * rng.uniform(60, 120, 3) + 128 + rng.normal(0, 12, (16, 16, 3))
            own = own if name == "lying" else own.transpose(1, 0, 2)
            pixels = own.clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02d}.png")
    return root


def settings_of(method: str, **options: Any) -> dict[str, Any]:
    """Return the settings of a small training; ``epochs`` are cycles where those are counted."""
    settings = {**TINY, **SMALL[method], "workers": 0, "device": "cpu", **options}
    if method == "deepcluster":
        epochs = settings.pop("epochs")
        settings.setdefault("cycles", epochs)
    return settings


def train(source: Path | str, run: Path | str, method: str = "simclr", **options: Any) -> Result:
    """Train in this process."""
    return featkit.train(method, source, run, **settings_of(method, **options))


def training_process(
    source: Path, run: Path, before: str = "", method: str = "simclr", **options: Any
) -> Forked:
    """Start a training in a process of its own, after some other code."""
    settings = settings_of(method, **options)
    return Forked(
        "import torch, featkit\n"
        "torch.set_num_threads(1)\n"
        f"{before}\n"
        f"featkit.train({method!r}, {str(source)!r}, {str(run)!r}, **{settings!r})\n"
    )
