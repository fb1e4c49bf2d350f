"""ResNets of any width, with the stem for 224 or for 32 pixels, as self-supervised learning uses.

Where torchvision's ``wide_resnet50_2`` widens the inner convolution of each block, these widen
every layer, the stem included: the features of a ResNet-50 have 2,048 · width dimensions.

Source: Kolesnikov et al., Revisiting self-supervised visual representation learning, 2019,
arXiv:1901.09005; Chen et al., A simple framework for contrastive learning of visual
representations, 2020, arXiv:2002.05709 (appendix B.9 for the stem for 32 pixels).
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from featkit.backbones.nets.norms import NORMS

BLOCKS: dict[int, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
    200: (Bottleneck, (3, 24, 36, 3)),
}
"""Kind of block and number of blocks in each stage, by depth."""

WIDTHS = (1, 2, 3, 4, 5)


class SslResNet(ResNet):  # type: ignore[misc]
    """A ResNet with every layer ``width`` times as wide.

    Args:
        depth: One of ``BLOCKS``.
        width: Factor on every number of channels.
        small: Whether the stem is a 3x3 convolution of stride 1 without pooling, for 32 pixels.
        padding: Of that convolution (solo-learn pads by 2).
        stem_relu: Whether a ReLU follows it (lightly's children of a ResNet in a row lack it).
        norm: ``batch`` or ``layer``.
        num_classes: Outputs of the linear head ``fc``.

    Example:
        >>> import torch
        >>> net = SslResNet(18, width=2, small=True).eval()
        >>> net(torch.zeros(1, 3, 32, 32)).shape, net.fc.in_features
        (torch.Size([1, 1000]), 1024)
    """

    def __init__(
        self,
        depth: int,
        width: int = 1,
        small: bool = False,
        padding: int = 1,
        stem_relu: bool = True,
        norm: str = "batch",
        num_classes: int = 1000,
    ) -> None:
        self._width = width
        block, blocks = BLOCKS[depth]
        super().__init__(block, list(blocks), num_classes=num_classes, norm_layer=NORMS[norm])
        channels = 64 * width
        size, stride, padding = (3, 1, padding) if small else (7, 2, 3)
        self.conv1 = nn.Conv2d(3, channels, size, stride, padding, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1 = NORMS[norm](channels)
        if small:
            self.maxpool: nn.Module = nn.Identity()
        if not stem_relu:
            self.relu: nn.Module = nn.Identity()
        self.fc = nn.Linear(8 * channels * block.expansion, num_classes)

    def _make_layer(self, block: Any, planes: int, *args: Any, **options: Any) -> nn.Sequential:
        if planes == 64:
            self.inplanes *= self._width
        stage: nn.Sequential = super()._make_layer(block, planes * self._width, *args, **options)
        return stage


def ssl_resnet_name(
    depth: int,
    width: int = 1,
    small: bool = False,
    padding: int = 1,
    stem_relu: bool = True,
    norm: str = "batch",
) -> str:
    """Return what such a network is called.

    Example:
        >>> ssl_resnet_name(50, width=2), ssl_resnet_name(18, small=True, norm="layer")
        ('resnet50w2', 'resnet18_32px_ln')
    """
    name = f"resnet{depth}" + (f"w{width}" if width > 1 else "") + ("_32px" if small else "")
    name += ("_pad2" if padding == 2 else "") + ("" if stem_relu else "_linear_stem")
    return name + ("_ln" if norm == "layer" else "")
