"""The ResNets for 32-pixel images.

Source: He et al., Deep residual learning for image recognition, 2015, arXiv:1512.03385, sec. 4.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from featkit.backbones.nets.norms import NORMS
from featkit.data.preprocessing import Preprocessing

CIFAR_PREPROCESSING = Preprocessing(
    size=(32, 32),
    resize=32,
    interpolation="bicubic",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)


DEPTHS = (8, 14, 20, 32, 44, 56, 110)
WIDTHS = (1, 2, 4)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters (option A).

    Where the shape changes the shortcut takes every second pixel and pads the new channels with
    zeros, half before and half after.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str = "batch") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = NORMS[norm](outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = NORMS[norm](outputs)
        self.stride = stride
        self.padding = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, inputs, h, w) to (b, outputs, h / stride, w / stride)."""
        shortcut = x
        if self.padding:
            shortcut = x[:, :, :: self.stride, :: self.stride]
            shortcut = functional.pad(shortcut, (0, 0, 0, 0, self.padding, self.padding))
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + shortcut)


class CifarResNet(nn.Module):
    """ResNet of depth 6n + 2 for 32-pixel images: three stages of 16, 32 and 64 channels.

    Args:
        depth: 8, 14, 20, …: six times the blocks of a stage, plus two.
        width: Factor on every number of channels.
        norm: ``batch``, as published, or ``layer``.
        num_classes: Outputs of the linear head.

    Example:
        >>> net = CifarResNet(20).eval()
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> sum(p.numel() for p in net.parameters())
        269722
    """

    def __init__(
        self, depth: int, width: int = 1, norm: str = "batch", num_classes: int = 10
    ) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        first, second, third = (channels * width for channels in (16, 32, 64))
        self.conv1 = nn.Conv2d(3, first, 3, 1, 1, bias=False)
        self.bn1 = NORMS[norm](first)
        self.relu = nn.ReLU()
        self.layer1 = self._stage(first, first, blocks, norm)
        self.layer2 = self._stage(first, second, blocks, norm)
        self.layer3 = self._stage(second, third, blocks, norm)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(third, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int, norm: str) -> nn.Sequential:
        first = BasicBlock(inputs, outputs, 1 if inputs == outputs else 2, norm)
        others = (BasicBlock(outputs, outputs, 1, norm) for _ in range(blocks - 1))
        return nn.Sequential(first, *others)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (b, 3, 32, 32) to class scores (b, num_classes)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        scores: Tensor = self.linear(torch.flatten(self.avgpool(out), 1))
        return scores


def cifar_resnet_name(depth: int, width: int = 1, norm: str = "batch") -> str:
    """Return what such a network is called.

    Example:
        >>> cifar_resnet_name(20), cifar_resnet_name(8, 2, "layer")
        ('cifar_resnet20', 'cifar_resnet8w2_ln')
    """
    name = f"cifar_resnet{depth}" + (f"w{width}" if width > 1 else "")
    return name + ("_ln" if norm == "layer" else "")
