"""The identity of weights, and random weights by seed."""

import random

import numpy as np
import pytest
import torch

from featkit.backbones.base import hash_tensors
from featkit.backbones.resolve import load_backbone

NETS = ["cifar_resnet20", "torchvision:squeezenet1_0", "timm:mobilenetv3_small_050"]


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 2, 2),
        "conv.bias": torch.randn(4),
        "count": torch.tensor(3),
        "none": torch.empty(0, 2),
        "half": torch.randn(3).bfloat16(),
        "mask": torch.tensor([True, False]),
    }


def test_order_strides_and_gradients_do_not_count(tensors):
    wanted = hash_tensors(tensors)
    assert len(wanted) == 64
    assert hash_tensors(dict(reversed(tensors.items()))) == wanted
    weight = tensors["conv.weight"]
    last = weight.contiguous(memory_format=torch.channels_last)
    assert last.stride() != weight.stride()
    assert hash_tensors(tensors | {"conv.weight": last}) == wanted
    assert hash_tensors(tensors | {"conv.weight": weight.mT.contiguous().mT}) == wanted
    assert hash_tensors(
        tensors | {"conv.bias": tensors["conv.bias"].repeat_interleave(2)[::2]}
    ) == (wanted)
    assert hash_tensors(tensors | {"conv.weight": torch.nn.Parameter(weight)}) == wanted


def test_every_other_change_counts(tensors):
    weight, bias = tensors["conv.weight"], tensors["conv.bias"]
    ulp = weight.clone()
    ulp[0, 0, 0, 0] = torch.nextafter(ulp[0, 0, 0, 0], torch.tensor(9.0))
    renamed = dict(tensors)
    renamed["conv.bios"] = renamed.pop("conv.bias")
    swapped = tensors | {"conv.bias": bias.flip(0)}
    digests = [
        hash_tensors(each)
        for each in (
            tensors,
            tensors | {"conv.weight": ulp},
            renamed,
            swapped,
            tensors | {"conv.bias": bias.view(torch.int32)},
            tensors | {"conv.bias": bias.double()},
            tensors | {"conv.bias": bias.view(2, 2)},
            tensors | {"more": torch.empty(0)},
            {k: v for k, v in tensors.items() if k != "count"},
            tensors | {"count": torch.tensor(4)},
            tensors | {"mask": torch.tensor([False, True])},
        )
    ]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("name", NETS)
def test_random_weights_are_those_of_their_seed(name):
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global generator is what is tested
    torch.manual_seed(5)
    wanted = random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    zero, again = (load_backbone(f"{name}?weights=none&seed=0").weights for _ in range(2))
    default = load_backbone(f"{name}?weights=none").weights
    one = load_backbone(f"{name}?weights=none&seed=1").weights
    assert zero == again == default != one
    assert (random.random(), np.random.rand(), torch.rand(1)) == wanted  # noqa: NPY002


def test_identity_is_architecture_and_weights_alone():
    backbone = load_backbone("mine=cifar_resnet20?weights=none&size=40")
    other = load_backbone("cifar_resnet20?weights=none&seed=0")
    assert backbone.identity() == other.identity()
    assert backbone.identity() == {"architecture": "cifar_resnet20", "weights": backbone.weights}
    backbone.module.to(memory_format=torch.channels_last)
    assert hash_tensors(backbone.module.state_dict()) == other.weights


def test_weights_are_ready_for_inference():
    assert not any(m.training for m in load_backbone(f"{NETS[2]}?weights=none").module.modules())
