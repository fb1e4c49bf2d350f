"""Layer normalisation of maps, and the ResNets of other widths and normalisations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from featkit.backbones.architectures import build
from featkit.backbones.nets import NETS, resnet_variant
from featkit.backbones.nets.norms import LayerNorm2d
from featkit.errors import BackboneError


def test_it_is_torchs_layer_norm_of_whole_maps() -> None:
    maps = torch.randn(3, 6, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(LayerNorm2d(6)(maps), nn.LayerNorm((6, 4, 5))(maps))


def test_an_image_does_not_depend_on_its_batch_in_training_either() -> None:
    net = build("cifar_resnet8_ln").module.train()
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(images)[:1], net(images[:1]))
    assert not torch.allclose(
        (batch := build("cifar_resnet8").module.train())(images)[:1], batch(images[:1])
    )


@pytest.mark.parametrize(
    ("name", "channels", "features", "norm"),
    [
        ("cifar_resnet8w2", 32, 128, nn.BatchNorm2d),
        ("cifar_resnet14w4_ln", 64, 256, LayerNorm2d),
        ("resnet18w2_32px_ln", 128, 1024, LayerNorm2d),
        ("resnet50_ln", 64, 2048, LayerNorm2d),
    ],
)
def test_every_layer_is_wider_and_has_its_norm(
    name: str, channels: int, features: int, norm: type[nn.Module]
) -> None:
    net = build(name).module
    assert net.conv1.out_channels == channels
    head = net.linear if hasattr(net, "linear") else net.fc
    assert head.in_features == features
    norms = [m for m in net.modules() if isinstance(m, nn.GroupNorm | nn.BatchNorm2d)]
    assert len(norms) == sum(isinstance(m, nn.Conv2d) for m in net.modules())
    assert {type(m) for m in norms} == {norm}


def test_a_width_multiplies_the_weights_of_inner_convolutions_by_its_square() -> None:
    """As for wide residual networks (Zagoruyko and Komodakis 2016, sec. 2.2)."""
    narrow, wide = (build(f"cifar_resnet20{w}").module.layer2[1].conv1 for w in ("", "w4"))
    assert wide.weight.numel() == 16 * narrow.weight.numel()


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (("cifar_resnet20", None, None, None), "cifar_resnet20"),
        (("cifar_resnet20", 8, 4, "layer"), "cifar_resnet8w4_ln"),
        (("resnet50_32px", None, 2, None), "resnet50w2_32px"),
        (("resnet50", 18, None, None), "torchvision:resnet18"),
        (("torchvision:resnet50", None, 1, "batch"), "torchvision:resnet50"),
        (("resnet50", 200, None, None), "resnet200"),
        (("timm:resnet50", None, None, None), "timm:resnet50"),
    ],
)
def test_variants_are_found_by_name(asked: tuple[object, ...], name: str) -> None:
    assert resnet_variant(*asked) == name
    assert name in NETS or ":" in name


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("cifar_resnet20", 9, None, None), "no ResNet cifar_resnet9: depths are 8, 14, 20"),
        (("resnet50_32px", None, 3, "layer"), "widths 1, 2, 4"),
        (("cifar_resnet20", None, None, "foo"), "norm 'foo': use batch, layer"),
        (("cifar_resnet20", 0, None, None), "no ResNet cifar_resnet0"),
        (("torchvision:vgg11", 18, None, None), "depth, width and norm are those of"),
        (("cifar_resnet20w2", None, None, "layer"), "depth, width and norm are those of"),
    ],
)
def test_what_there_is_not_is_said(asked: tuple[object, ...], said: str) -> None:
    with pytest.raises(BackboneError, match=said):
        resnet_variant(*asked)
