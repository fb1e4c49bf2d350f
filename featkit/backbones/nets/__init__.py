"""Network definitions that torchvision and timm lack, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

from torch import nn

from featkit.backbones.nets.alexnet import CHANNELS, AlexNet, alexnet_name
from featkit.backbones.nets.cifar_resnet import CIFAR_PREPROCESSING, CifarResNet
from featkit.backbones.nets.recipes import CIFAR, IMAGENET, IMAGENET_BICUBIC
from featkit.backbones.nets.ssl_resnet import BLOCKS, WIDTHS, SslResNet, ssl_resnet_name
from featkit.backbones.nets.vit import EMBEDDINGS, PATCHES, vit, vit_name
from featkit.data.preprocessing import Preprocessing
from featkit.registry import Registry

NETS: Registry[tuple[Callable[..., nn.Module], Preprocessing]] = Registry("network")
for _depth in (20, 32, 44, 56, 110):
    NETS.register(f"cifar_resnet{_depth}", (partial(CifarResNet, _depth), CIFAR_PREPROCESSING))
for _depth, _width, _small in product(BLOCKS, WIDTHS, (False, True)):
    if (_width, _small) == (1, False) and _depth != 200:
        continue  # torchvision has it
    NETS.register(
        ssl_resnet_name(_depth, _width, _small),
        (partial(SslResNet, _depth, _width, _small), CIFAR if _small else IMAGENET),
    )
for _depth in (18, 50):
    NETS.register(
        ssl_resnet_name(_depth, small=True, padding=2),
        (partial(SslResNet, _depth, small=True, padding=2), CIFAR),
    )
for _depth in (18, 34, 50, 101, 152):
    NETS.register(
        ssl_resnet_name(_depth, small=True, stem_relu=False),
        (partial(SslResNet, _depth, small=True, stem_relu=False), CIFAR),
    )
for _channels, _bn, _sobel, _conv in product(CHANNELS, (False, True), (False, True), (False, True)):
    NETS.register(
        alexnet_name(_channels, _bn, _sobel, _conv),
        (partial(AlexNet, _channels, _bn, _sobel, _conv), IMAGENET),
    )
for _size, _patch in product(EMBEDDINGS, PATCHES):
    NETS.register(vit_name(_size, _patch), (partial(vit, _size, _patch), IMAGENET_BICUBIC))
NETS.register(vit_name("small", 16, 12), (partial(vit, "small", 16, 12), IMAGENET))
