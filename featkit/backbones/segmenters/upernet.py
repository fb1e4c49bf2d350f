"""The Unified Perceptual Parsing network: scene, objects, parts and materials at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as everyone calls it
from torchvision.models.resnet import Bottleneck

_SCALES = (1, 2, 3, 6)
_WIDTHS = (256, 512, 1024, 2048)


class DeepStemResNet50(nn.Module):
    """ResNet-50 whose first layer is three convolutions of 3 x 3.

    Its module names are those of CSAILVision/unifiedparsing, ``models/resnet.py``.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 64, 2), (64, 64, 1), (64, 128, 1))
        for i, (before, after, stride) in enumerate(widths, start=1):
            self.add_module(f"conv{i}", nn.Conv2d(before, after, 3, stride, 1, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(after))
        before = 128
        for i, (blocks, width) in enumerate(zip((3, 4, 6, 3), _WIDTHS, strict=True), start=1):
            self.add_module(f"layer{i}", _stage(before, width, blocks, stride=1 if i == 1 else 2))
            before = width

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map images (b, 3, h, w) to the maps of the four stages, at strides 4, 8, 16 and 32."""
        for i in (1, 2, 3):
            x = F.relu(self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x)))
        x = F.max_pool2d(x, 3, 2, 1)
        stages = []
        for i in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{i}")(x)
            stages.append(x)
        return stages


class UPerNet(nn.Module):
    """Pyramid pooling, a feature pyramid, and a head for each kind of label.

    Its module names are those of CSAILVision/unifiedparsing, ``models/models.py``.

    Args:
        scenes: Number of scenes.
        objects: Number of objects, the empty one included, as for the next two.
        parts: Number of parts, those of each object counted separately.
        materials: Number of materials.
        width: Channels of the pyramid.

    Source: Xiao et al. 2018, arXiv:1807.10221, section 4.
    """

    def __init__(
        self, scenes: int, objects: int, parts: int, materials: int, width: int = 512
    ) -> None:
        super().__init__()
        top = _WIDTHS[-1]
        self.ppm_conv = nn.ModuleList(_conv(top, 512, 1) for _ in _SCALES)
        self.ppm_last_conv = _conv(top + 512 * len(_SCALES), width, 3)
        self.fpn_in = nn.ModuleList(_conv(below, width, 1) for below in _WIDTHS[:-1])
        self.fpn_out = nn.ModuleList(nn.Sequential(_conv(width, width, 3)) for _ in _WIDTHS[:-1])
        self.conv_fusion = _conv(len(_WIDTHS) * width, width, 3)
        self.scene_head = nn.Sequential(
            _conv(width, width, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, scenes, 1)
        )
        self.object_head = _head(width, objects)
        self.part_head = _head(width, parts)
        self.material_head = _head(width, materials)

    def forward(self, stages: Sequence[Tensor]) -> dict[str, Tensor]:
        """Map the four stages to scores at the first one's resolution, ``object`` and so on.

        The scores of scenes, which are of whole images, are not computed.
        """
        top = stages[-1]
        pooled = [
            conv(_resize(precise_pool(top, scale), top))
            for scale, conv in zip(_SCALES, self.ppm_conv, strict=True)
        ]
        x = self.ppm_last_conv(torch.cat([top, *pooled], 1))
        pyramid = [x]
        for i in (2, 1, 0):
            lateral = self.fpn_in[i](stages[i])
            x = lateral + _resize(x, lateral)
            pyramid.insert(0, self.fpn_out[i](x))
        fused = self.conv_fusion(torch.cat([_resize(each, pyramid[0]) for each in pyramid], 1))
        return {
            "object": self.object_head(fused),
            "part": self.part_head(fused),
            "material": self.material_head(pyramid[0]),
        }


def precise_pool(maps: Tensor, cells: int) -> Tensor:
    """Return the precise RoI pooling of whole maps.

    A map is the piecewise linear function with its values at 0, 1, …, w - 1 and with 0 from w on;
    each of the n equal bins of [0, w] gets its integral mean. So pixel i counts with
    ``∫ max(0, 1 - |x - i|) dx`` over the bin: the first pixel with one half of its weight. It is
    not adaptive average pooling, which would count all alike.

    Args:
        maps: (b, c, h, w).
        cells: n, along both axes.

    Returns:
        (b, c, n, n).

    Source: Jiang et al. 2018, arXiv:1807.11590, equation 6, with the bin [0, 0, w, h] of
    CSAILVision/unifiedparsing, ``models/models.py``.

    Example:
        >>> precise_pool(torch.ones(1, 1, 2, 2), 1)
        tensor([[[[0.5625]]]])
    """
    rows, columns = (_hat_means(cells, size).to(maps) for size in maps.shape[-2:])
    return rows @ maps @ columns.T


def _hat_means(cells: int, pixels: int) -> Tensor:
    """Return the mean of each pixel's hat function over each bin, (cells, pixels)."""
    borders = torch.arange(cells + 1, dtype=torch.float64)[:, None] * pixels / cells
    t = (borders - torch.arange(pixels)).clamp(-1, 1)
    below = torch.where(t < 0, (1 + t) ** 2 / 2, 1 - (1 - t) ** 2 / 2)
    return below.diff(dim=0) * cells / pixels


def _stage(before: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
    first = Bottleneck(before, width // 4, stride, shortcut)
    return nn.Sequential(first, *(Bottleneck(width, width // 4) for _ in range(blocks - 1)))


def _conv(before: int, after: int, size: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, size, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def _head(width: int, classes: int) -> nn.Sequential:
    return nn.Sequential(_conv(width, width, 3), nn.Conv2d(width, classes, 1))


def _resize(maps: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(maps, like.shape[-2:], mode="bilinear", align_corners=False)
