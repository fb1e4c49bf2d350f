"""LeNet-5 as it is used today: with ReLU, max-pooling, and a linear layer that ends it.

The original has scaled tanh, averages with a factor and a bias, a second convolution whose channels
see some of the maps only, and radial basis functions at its end.

Source: LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition,
1998, sec. II.B.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from featkit.backbones.nets.alexnet import grey_filter


class LeNet5(nn.Module):
    """Two convolutions and three linear layers, on the mean of the colours.

    Args:
        num_classes: Outputs of the last linear layer, ``top_layer``.

    Example:
        >>> LeNet5().eval()(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.grey = grey_filter()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(16 * 5 * 5, 120),
            nn.ReLU(inplace=True),
            nn.Linear(120, 84),
            nn.ReLU(inplace=True),
        )
        self.top_layer = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (b, 3, 32, 32) to scores (b, num_classes)."""
        features = torch.flatten(self.features(self.grey(x)), 1)
        scores: Tensor = self.top_layer(self.classifier(features))
        return scores
