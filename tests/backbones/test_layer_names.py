"""VISSL's names of layers, against the forward pass written out."""

import pytest
import torch
from torch.nn import functional as F

from featkit.backbones.architectures import build
from featkit.backbones.base import Backbone
from featkit.backbones.probe import probe, resolve_taps
from featkit.backbones.taps import TapRunner
from featkit.errors import BackboneError

STAGES = ("layer1", "layer2", "layer3", "layer4")


def stages_of(net, x, last):
    """Every stage's output, and what follows the last."""
    seen = {}
    for i, stage in enumerate(STAGES[: last - 1]):
        x = getattr(net, stage)(x)
        seen[f"res{i + 2}"] = x
    pooled = x.mean((2, 3))
    return seen | {f"res{last}avg": pooled, "flatten": pooled}


def imagenet_layers(net, x):
    conv1 = F.relu(net.bn1(net.conv1(x)))
    res1 = F.max_pool2d(conv1, 3, 2, 1)
    return {"conv1": conv1, "res1": res1} | stages_of(net, res1, 5)


def small_image_layers(net, x):
    """The max-pool of a stem for small images is the identity."""
    conv1 = F.relu(net.bn1(net.conv1(x)))
    return {"conv1": conv1, "res1": conv1} | stages_of(net, conv1, 5)


def cifar_layers(net, x):
    conv1 = F.relu(net.bn1(net.conv1(x)))
    return {"conv1": conv1} | stages_of(net, conv1, 4)


def chain_layers(net, x):
    """Convolutions in a row: what every ReLU gives, and the last map."""
    for name in ("grey", "sobel"):
        x = getattr(net, name, torch.nn.Identity())(x)
    seen = {}
    for layer in net.features:
        x = layer(x).clone()
        if isinstance(layer, torch.nn.ReLU):
            seen[f"conv{len(seen) + 1}"] = x
    return seen | {"flatten": x.flatten(1)}


CASES = {
    "torchvision:resnet18": imagenet_layers,
    "torchvision:resnet50": imagenet_layers,
    "torchvision:wide_resnet50_2": imagenet_layers,
    "timm:resnet18": imagenet_layers,
    "timm:resnet26d": imagenet_layers,
    "timm:seresnet50": imagenet_layers,
    "resnet50w2": imagenet_layers,
    "resnet18_32px": small_image_layers,
    "cifar_resnet20": cifar_layers,
    "torchvision:alexnet": chain_layers,
    "torchvision:vgg11_bn": chain_layers,
    "alexnet96_bn_sobel": chain_layers,
    "alexnet32_sobel": chain_layers,
    "lenet5": chain_layers,
}


def backbone_of(architecture):
    """A backbone whose batch norms are not the identity, so that their place shows."""
    network = build(architecture, seed=3)
    generator = torch.Generator().manual_seed(4)
    for module in network.module.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.bias.data = torch.randn(module.bias.shape, generator=generator) / 4
            module.running_mean = torch.randn(module.bias.shape, generator=generator) / 4
    return Backbone(architecture, architecture, network)


def read_taps(backbone, outputs, taps, images):
    runner = TapRunner(backbone.module, taps, {p: o.calls for p, o in outputs.items()})
    try:
        with torch.inference_mode():
            return runner(images)
    finally:
        runner.close()


@pytest.mark.parametrize("architecture", CASES)
def test_names_are_those_of_vissl(noise, architecture):
    backbone = backbone_of(architecture)
    size = 64 if "res" in architecture else backbone.network.preprocessing.size[0]
    outputs, images = probe(backbone), noise(size)
    with torch.inference_mode():
        wanted = CASES[architecture](backbone.module, images)
    taps = resolve_taps(backbone, list(wanted), outputs)
    assert [tap.name for tap in taps] == list(wanted)
    for tap, found in zip(taps, read_taps(backbone, outputs, taps, images), strict=True):
        maps = wanted[tap.name]
        rows = maps.mean((2, 3)) if maps.ndim == 4 else maps
        assert torch.allclose(found, rows, rtol=1e-4, atol=1e-5), tap.name


@pytest.mark.parametrize("architecture", ["torchvision:resnet18", "timm:resnet18"])
def test_maps_of_the_stem_are_not_changed_by_what_comes_later(noise, architecture):
    """The ReLU works in place, and so may the block behind it."""
    backbone = backbone_of(architecture)
    outputs, images = probe(backbone), noise(64)
    with torch.inference_mode():
        wanted = imagenet_layers(backbone.module, images)
    taps = resolve_taps(backbone, ["conv1:none", "res1:flatten", "res5:max"], outputs)
    conv1, res1, res5 = read_taps(backbone, outputs, taps, images)
    assert torch.allclose(conv1, wanted["conv1"], rtol=1e-4, atol=1e-5)
    assert torch.allclose(res1, wanted["res1"].flatten(1), rtol=1e-4, atol=1e-5)
    assert torch.allclose(res5, wanted["res5"].amax((2, 3)), rtol=1e-4, atol=1e-5)


def test_a_module_behind_a_common_name_is_reached_by_its_own(noise):
    backbone = backbone_of("torchvision:resnet18")
    outputs, images = probe(backbone), noise(64)
    taps = resolve_taps(backbone, ["module.conv1:none", "conv1:none", "layer4", "res5"], outputs)
    assert [tap.name for tap in taps] == ["module.conv1", "conv1", "layer4", "res5"]
    own, relu, *_ = read_taps(backbone, outputs, taps, images)
    with torch.inference_mode():
        assert torch.allclose(own, backbone.module.conv1(images), rtol=1e-4, atol=1e-5)
    assert own.min() < 0 <= relu.min()


@pytest.mark.parametrize(
    ("architecture", "missing"),
    [
        ("cifar_resnet20", ("res1", "res5", "res5avg")),
        ("torchvision:resnet18", ("res0", "res6", "res4avg")),
        ("lenet5", ("conv0", "conv3")),
        ("alexnet32", ("conv6", "res2")),
        ("torchvision:squeezenet1_1", ("conv1", "flatten")),  # its features are no row
        ("torchvision:densenet121", ("conv1", "flatten")),
    ],
)
def test_layers_that_a_network_lacks_have_no_name(architecture, missing):
    backbone = backbone_of(architecture)
    outputs = probe(backbone)
    for name in missing:
        with pytest.raises(BackboneError, match=f"has no tap '{name}'"):
            resolve_taps(backbone, [name], outputs)
