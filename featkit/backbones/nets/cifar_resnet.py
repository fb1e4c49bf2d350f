"""The ResNets for 32-pixel images.

Source: He et al., Deep residual learning for image recognition, 2015, arXiv:1512.03385, sec. 4.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from featkit.data.preprocessing import Preprocessing

CIFAR_PREPROCESSING = Preprocessing(
    size=(32, 32),
    resize=32,
    interpolation="bicubic",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters (option A).

    Where the shape changes the shortcut takes every second pixel and pads the new channels with
    zeros, half before and half after.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
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
        depth: 20, 32, 44, 56, 110: six times the blocks of a stage, plus two.
        num_classes: Outputs of the linear head.

    Example:
        >>> net = CifarResNet(20).eval()
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> sum(p.numel() for p in net.parameters())
        269722
    """

    def __init__(self, depth: int, num_classes: int = 10) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = self._stage(16, 16, blocks)
        self.layer2 = self._stage(16, 32, blocks)
        self.layer3 = self._stage(32, 64, blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
        first = BasicBlock(inputs, outputs, 1 if inputs == outputs else 2)
        return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (b, 3, 32, 32) to class scores (b, num_classes)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        scores: Tensor = self.linear(torch.flatten(self.avgpool(out), 1))
        return scores
