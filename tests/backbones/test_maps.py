"""What has places and what only looks like it."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from featkit.backbones.base import Backbone, Network
from featkit.backbones.maps import MapRunner, map_tap
from featkit.backbones.probe import probe
from featkit.data.preprocessing import Preprocessing
from featkit.errors import BackboneError


def made(module: nn.Module, height: int, width: int) -> Backbone:
    recipe = Preprocessing((height, width), None, "bilinear", (0.0,) * 3, (1.0,) * 3)
    return Backbone("made", "made", Network("made", module.eval(), recipe))


@pytest.fixture(scope="module")
def transformer() -> Backbone:
    net = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, qk_norm=True)
    for block in net.blocks:
        block.attn.fused_attn = False  # so that its inside can be tapped
    return made(net, 64, 64)


@pytest.mark.parametrize(
    "tap", ["blocks.1.attn.q_norm", "blocks.1.attn.k_norm", "blocks.1.attn.attn_drop"]
)
def test_the_inside_of_attention_has_no_places(transformer: Backbone, tap: str) -> None:
    outputs = probe(transformer)
    assert len(outputs[tap].shape or ()) == 3  # heads and tokens, or tokens twice
    with pytest.raises(BackboneError, match="which has no places; tap a module that gives a map"):
        map_tap(transformer, tap, outputs)


@pytest.mark.parametrize("tap", ["blocks.1", "blocks.1.attn", "patch_embed", "norm"])
def test_tokens_have_places(transformer: Backbone, tap: str) -> None:
    outputs = probe(transformer)
    runner = MapRunner(transformer, map_tap(transformer, tap, outputs), outputs)
    with torch.no_grad():
        assert runner(torch.zeros(2, 3, 64, 64)).shape == (2, 192, 4, 4)
    runner.close()


def test_maps_of_an_image_that_is_not_square() -> None:
    net = made(nn.Sequential(nn.Conv2d(3, 5, 3, 16, 1), nn.ReLU()), 90, 120)
    outputs = probe(net)
    runner = MapRunner(net, map_tap(net, "1", outputs), outputs)
    assert (runner.units, runner.size) == (5, (6, 8))
    runner.close()


class Crossed(nn.Module):
    """Gives (b, 3, 6, 6) of an image twice as wide as high."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, :6, :6]


def test_what_is_out_of_proportion_is_no_map() -> None:
    net = made(nn.Sequential(Crossed(), nn.ReLU()), 32, 64)
    with pytest.raises(BackboneError, match="gives 3 × 6 × 6 an image, which has no places"):
        map_tap(net, "0", probe(net))
