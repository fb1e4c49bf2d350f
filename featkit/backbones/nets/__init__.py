"""Network definitions that torchvision and timm lack, by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from itertools import product

from torch import nn

from featkit.backbones.nets import cifar_resnet
from featkit.backbones.nets.alexnet import CHANNELS, AlexNet, alexnet_name
from featkit.backbones.nets.alexnet32 import AlexNet32
from featkit.backbones.nets.cifar_resnet import CIFAR_PREPROCESSING, CifarResNet, cifar_resnet_name
from featkit.backbones.nets.lenet5 import LeNet5
from featkit.backbones.nets.norms import NORMS
from featkit.backbones.nets.recipes import CIFAR, GREY, IMAGENET, IMAGENET_BICUBIC
from featkit.backbones.nets.ssl_resnet import BLOCKS, WIDTHS, SslResNet, ssl_resnet_name
from featkit.backbones.nets.treenet.shape import TreeShape
from featkit.backbones.nets.treenet.tree import TreeNet
from featkit.backbones.nets.vit import EMBEDDINGS, PATCHES, vit, vit_name
from featkit.data.preprocessing import Preprocessing
from featkit.errors import BackboneError
from featkit.registry import Registry

NETS: Registry[tuple[Callable[..., nn.Module], Preprocessing]] = Registry("network")
for _depth, _width, _norm in product(cifar_resnet.DEPTHS, cifar_resnet.WIDTHS, NORMS):
    NETS.register(
        cifar_resnet_name(_depth, _width, _norm),
        (partial(CifarResNet, _depth, _width, _norm), CIFAR_PREPROCESSING),
    )
for _depth, _width, _small in product(BLOCKS, WIDTHS, (False, True)):
    if (_width, _small) == (1, False) and _depth != 200:
        continue  # torchvision has it
    NETS.register(
        ssl_resnet_name(_depth, _width, _small),
        (partial(SslResNet, _depth, _width, _small), CIFAR if _small else IMAGENET),
    )
for _depth, _width, _small in product(BLOCKS, cifar_resnet.WIDTHS, (False, True)):
    NETS.register(
        ssl_resnet_name(_depth, _width, _small, norm="layer"),
        (
            partial(SslResNet, _depth, _width, _small, norm="layer"),
            CIFAR if _small else IMAGENET,
        ),
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
NETS.register("alexnet32", (AlexNet32, CIFAR))
NETS.register("alexnet32_sobel", (partial(AlexNet32, sobel=True), CIFAR))
NETS.register("lenet5", (LeNet5, GREY))
for _size, _patch in product(EMBEDDINGS, PATCHES):
    NETS.register(vit_name(_size, _patch), (partial(vit, _size, _patch), IMAGENET_BICUBIC))
NETS.register(vit_name("small", 16, 12), (partial(vit, "small", 16, 12), IMAGENET))
NETS.register("treenet", (partial(TreeNet, TreeShape()), CIFAR))


def resnet_variant(
    name: str, depth: int | None = None, width: int | None = None, norm: str | None = None
) -> str:
    """Return the name of a ResNet with another depth, width or normalisation.

    Args:
        name: ``cifar_resnetN``, ``resnetN_32px``, ``resnetN`` or ``torchvision:resnetN``; any other
            network, where nothing is to be changed.
        depth: In place of N.
        width: Factor on every number of channels.
        norm: ``batch`` or ``layer``.

    Raises:
        BackboneError: There is no such network, or it is no ResNet and is to be changed.

    Example:
        >>> resnet_variant("cifar_resnet20", width=2, norm="layer")
        'cifar_resnet20w2_ln'
        >>> resnet_variant("resnet50_32px", depth=18), resnet_variant("resnet50", norm="layer")
        ('resnet18_32px', 'resnet50_ln')
    """
    if depth is None and width is None and norm is None:
        return name
    known = re.fullmatch(r"(?:torchvision:)?(cifar_)?resnet(\d+)(_32px)?", name)
    if known is None:
        raise BackboneError(
            f"arch {name}: depth, width and norm are those of cifar_resnetN, resnetN_32px and "
            f"resnetN; choose one of these, or leave them out"
        )
    is_cifar, is_small = known[1] is not None, known[3] is not None
    depth = int(known[2]) if depth is None else depth
    width, norm = 1 if width is None else width, "batch" if norm is None else norm
    if norm not in NORMS:
        raise BackboneError(f"norm {norm!r}: use {', '.join(NORMS)}")
    if is_cifar:
        found = cifar_resnet_name(depth, width, norm)
    elif (width, norm, is_small) == (1, "batch", False) and depth in BLOCKS and depth != 200:
        return f"torchvision:resnet{depth}"
    else:
        found = ssl_resnet_name(depth, width, is_small, norm=norm)
    if found not in NETS:
        depths = cifar_resnet.DEPTHS if is_cifar else tuple(BLOCKS)
        raise BackboneError(
            f"no ResNet {found}: depths are {', '.join(map(str, depths))}, "
            f"widths {', '.join(map(str, cifar_resnet.WIDTHS))}"
        )
    return found
