"""The CIFAR ResNets against He et al. 2015 (arXiv:1512.03385), section 4.2."""

import pytest
import torch
from torch.nn import functional

from featkit.backbones.nets import NETS
from featkit.backbones.nets.cifar_resnet import BasicBlock, CifarResNet


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_parameters_are_those_of_table_6(depth, millions):
    net = CifarResNet(depth)
    digits = 1 if depth == 110 else 2
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, digits) == millions
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) + 1 == depth
    assert (net.linear.in_features, net.linear.out_features) == (64, 10)


def test_the_registry_builds_each():
    ours = [name for name in NETS if name.startswith("cifar_resnet")]
    published = {f"cifar_resnet{d}" for d in (20, 32, 44, 56, 110)}
    assert published < set(ours)
    assert len(ours) == 7 * 3 * 2  # depths, widths, normalisations
    make, preprocessing = NETS["cifar_resnet32"]
    assert len(make(num_classes=7).layer2) == 5
    assert preprocessing.size == (32, 32)


def test_maps_of_each_stage():
    """Section 4.2: map sizes 32, 16, 8 with 16, 32, 64 filters."""
    net = CifarResNet(20).eval()
    x = functional.relu(net.bn1(net.conv1(torch.rand(1, 3, 32, 32))))
    for stage, shape in ((net.layer1, (16, 32)), (net.layer2, (32, 16)), (net.layer3, (64, 8))):
        x = stage(x)
        assert x.shape == (1, shape[0], shape[1], shape[1])


def test_the_shortcut_subsamples_and_pads_with_zeros():
    """Option A by hand: with dead convolutions only the shortcut is left."""
    block = BasicBlock(4, 8, 2).eval()
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.rand(2, 4, 6, 6)
    with torch.inference_mode():
        out = block(x)
    wanted = torch.zeros(2, 8, 3, 3)
    for channel in range(4):
        for row in range(3):
            for column in range(3):
                wanted[:, channel + 2, row, column] = x[:, channel, 2 * row, 2 * column]
    assert torch.equal(out, wanted)


def test_a_block_of_equal_shape_adds_its_input():
    block = BasicBlock(4, 4, 1).eval()
    x = torch.randn(2, 4, 5, 5)
    with torch.inference_mode():
        out = block(x)
        inner = functional.relu(block.bn1(block.conv1(x)))
        wanted = functional.relu(block.bn2(block.conv2(inner)) + x)
    assert torch.equal(out, wanted)


def test_names_are_those_of_published_checkpoints():
    """Names as in https://github.com/akamaster/pytorch_resnet_cifar10, resnet.py."""
    names = CifarResNet(20).state_dict()
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    wanted = {"conv1.weight", "linear.weight", "linear.bias", *(f"bn1.{n}" for n in norm)}
    for stage in (1, 2, 3):
        for block in range(3):
            for i in (1, 2):
                wanted.add(f"layer{stage}.{block}.conv{i}.weight")
                wanted |= {f"layer{stage}.{block}.bn{i}.{n}" for n in norm}
    assert set(names) == wanted
