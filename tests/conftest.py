"""What several rooms' tests start from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NET = "cifar_resnet20?weights=none"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two classes with twenty random PNGs each."""
    rng = np.random.default_rng(0)
    root = tmp_path / "photos"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 256, (36, 40, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02d}.png")
    return root


def run_featkit(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "featkit_cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
        **options,  # type: ignore[call-overload]
    )
