"""Random twins keep nothing that was learned."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from timm.layers import ScaledStdConv2d
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from featkit.backbones.base import Backbone, Network
from featkit.backbones.randomized import randomized
from featkit.data.preprocessing import Preprocessing

RECIPE = Preprocessing((32, 32), None, "bilinear", (0.0,) * 3, (1.0,) * 3)


def trained(module: nn.Module) -> Backbone:
    """Every number of the network is one that no initialisation gives."""
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.fill_(77.0)
    return Backbone("made", "made", Network("made", module.eval(), RECIPE))


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4)),
        lambda: nn.Sequential(ScaledStdConv2d(3, 4, 3), FrozenBatchNorm2d(4)),
        lambda: nn.Sequential(nn.Linear(3, 8), nn.MultiheadAttention(8, 2), nn.LSTM(8, 4)),
        lambda: timm.create_model("convnext_atto"),
        lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, init_values=1e-5),
        lambda: timm.create_model("nf_resnet26"),
        lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=56, window_size=7),
    ],
)
def test_no_number_stays(build: Callable[[], nn.Module]) -> None:
    net = trained(build())
    twin = randomized(net, 3)
    for name, tensor in twin.module.state_dict().items():
        if tensor.is_floating_point():
            assert torch.isfinite(tensor).all(), name
            assert not (tensor == 77).any(), name
    assert all((t == 77).all() for t in net.module.state_dict().values() if t.is_floating_point())


def test_factors_beside_the_weights_are_1_and_let_the_signal_pass() -> None:
    module = nn.Sequential(ScaledStdConv2d(3, 4, 3), FrozenBatchNorm2d(4))
    twin = randomized(trained(module)).module
    assert (twin[0].gain == 1).all()
    state = twin[1].state_dict()
    assert [float(state[n][0]) for n in ("weight", "bias", "running_mean", "running_var")] == [
        1, 0, 0, 1,
    ]  # fmt: skip
    assert twin(torch.randn(1, 3, 8, 8)).std() > 0.1
