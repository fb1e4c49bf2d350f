"""Network definitions that torchvision and timm lack, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from featkit.backbones.nets.cifar_resnet import CIFAR_PREPROCESSING, CifarResNet
from featkit.data.preprocessing import Preprocessing
from featkit.registry import Registry

NETS: Registry[tuple[Callable[..., nn.Module], Preprocessing]] = Registry("network")
for _depth in (20, 32, 44, 56, 110):
    NETS.register(f"cifar_resnet{_depth}", (partial(CifarResNet, _depth), CIFAR_PREPROCESSING))
