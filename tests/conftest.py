"""What several rooms' tests start from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.processes import run_forked

NET = "cifar_resnet20?weights=none"
MAIN = "import sys; from featkit_cli.main import main; main(sys.argv[1:])"


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


def run_featkit(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return run_forked(MAIN, *arguments, cwd=cwd)
