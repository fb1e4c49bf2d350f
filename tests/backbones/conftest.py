"""What the tests of backbones share."""

import pytest
import torch

from featkit.backbones.probe import probe
from featkit.backbones.resolve import load_backbone
from featkit.backbones.taps import Tap, TapRunner


@pytest.fixture(scope="session")
def load():
    """Backbones by spec, each built and probed once."""
    known = {}

    def get(spec):
        if spec not in known:
            backbone = load_backbone(spec)
            known[spec] = backbone, probe(backbone)
        return known[spec]

    return get


@pytest.fixture(scope="session")
def read(load):
    """``read(spec, images, *taps)``: one tensor of rows a tap."""

    def rows(spec, images, *taps):
        backbone, outputs = load(spec)
        asked = [tap if isinstance(tap, Tap) else Tap(*tap.split(":")) for tap in taps]
        runner = TapRunner(backbone.module, asked, {p: o.calls for p, o in outputs.items()})
        try:
            with torch.inference_mode():
                return runner(images)
        finally:
            runner.close()

    return rows


@pytest.fixture(scope="session")
def noise():
    def images(size, n=2, seed=0):
        return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))

    return images
