"""An AlexNet for images of 32 pixels.

The source trains "a down-scaled AlexNet" whose features have 2,048 dimensions, and gives no table
of its layers. These are featkit's choice: the channels of torchvision's AlexNet, convolutions 3x3
with batch normalisation, and strides that leave 2x2 positions of 32x32 pixels.

Source: Mustapha 2021, Unsupervised deep learning: inter-model interpretation and deep clustering
(thesis, American University of Beirut), sec. 4.4.2, 4.6.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from featkit.backbones.nets.alexnet import CHANNELS, hidden_layers, sobel_filter


class AlexNet32(nn.Module):
    """Five convolutions and three linear layers.

    The first convolution has stride 2; a max-pool halves the maps after the first, the second and
    the fifth.

    Args:
        sobel: Whether the image becomes two channels of edges first.
        num_classes: Outputs of the last linear layer, ``top_layer``.

    Example:
        >>> AlexNet32(sobel=True).eval()(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """

    def __init__(self, sobel: bool = False, num_classes: int = 10) -> None:
        super().__init__()
        self.sobel = sobel_filter() if sobel else nn.Identity()
        layers: list[nn.Module] = []
        inputs = 2 if sobel else 3
        for i, outputs in enumerate(CHANNELS[64]):
            layers.append(nn.Conv2d(inputs, outputs, 3, stride=1 if i else 2, padding=1))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(2)] * (i in (0, 1, 4))
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.classifier = hidden_layers(inputs * 2 * 2, 2048)
        self.top_layer = nn.Linear(2048, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (b, 3, 32, 32) to scores (b, num_classes)."""
        features = torch.flatten(self.features(self.sobel(x)), 1)
        scores: Tensor = self.top_layer(self.classifier(features))
        return scores
