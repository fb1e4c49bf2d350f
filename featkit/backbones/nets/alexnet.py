"""AlexNets with batch normalisation, and with a Sobel filter in place of colours.

Source: Krizhevsky et al., ImageNet classification with deep convolutional neural networks, 2012;
Caron et al., Deep clustering for unsupervised learning of visual features, 2018, arXiv:1807.05520
(``models/alexnet.py`` of github.com/facebookresearch/deepcluster).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CHANNELS = {96: (96, 256, 384, 384, 256), 64: (64, 192, 384, 256, 256)}
"""Channels of the five convolutions, by those of the first: DeepCluster's, RotNet's."""


class AlexNet(nn.Module):
    """Five convolutions and, unless ``conv_only``, three linear layers.

    Args:
        channels: Of the first convolution, a key of ``CHANNELS``.
        batch_norm: Whether a batch normalisation follows each convolution.
        sobel: Whether the image becomes two channels of edges first.
        conv_only: Whether the linear layers are left out.
        num_classes: Outputs of the last of them, ``top_layer``.

    Example:
        >>> AlexNet(batch_norm=True, sobel=True).eval()(torch.zeros(1, 3, 224, 224)).shape
        torch.Size([1, 1000])
    """

    def __init__(
        self,
        channels: int = 96,
        batch_norm: bool = False,
        sobel: bool = False,
        conv_only: bool = False,
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        self.sobel = sobel_filter() if sobel else nn.Identity()
        layers: list[nn.Module] = []
        inputs = 2 if sobel else 3
        for i, outputs in enumerate(CHANNELS[channels]):
            size, stride, padding = ((11, 4, 2), (5, 1, 2), (3, 1, 1))[min(i, 2)]
            layers.append(nn.Conv2d(inputs, outputs, size, stride, padding))
            layers += [nn.BatchNorm2d(outputs)] * batch_norm
            layers.append(nn.ReLU(inplace=True))
            layers += [nn.MaxPool2d(3, 2)] * (i in (0, 1, 4))
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.classifier: nn.Module = nn.Identity()
        self.top_layer: nn.Module = nn.Identity()
        if not conv_only:
            self.classifier = hidden_layers(256 * 6 * 6, 4096)
            self.top_layer = nn.Linear(4096, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (b, 3, 224, 224) to scores (b, num_classes), or to (b, 9216) features."""
        features = torch.flatten(self.features(self.sobel(x)), 1)
        scores: Tensor = self.top_layer(self.classifier(features))
        return scores


def hidden_layers(inputs: int, width: int) -> nn.Sequential:
    """Return the two linear layers between the maps and the last layer, with dropout before each.

    Example:
        >>> hidden_layers(8, 4).eval()(torch.zeros(2, 8)).shape
        torch.Size([2, 4])
    """
    return nn.Sequential(
        nn.Dropout(0.5),
        nn.Linear(inputs, width),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(width, width),
        nn.ReLU(inplace=True),
    )


def grey_filter() -> nn.Conv2d:
    """Return a fixed convolution that gives the mean of the colours.

    Example:
        >>> grey_filter()(torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1)).item()
        3.0
    """
    return _fixed(torch.full((1, 3, 1, 1), 1 / 3))


def sobel_filter() -> nn.Sequential:
    """Return two fixed convolutions: the mean of the colours, and its derivatives in x and y.

    Example:
        >>> sobel_filter()(torch.ones(1, 3, 4, 4))[0, :, 1, 1].tolist()
        [0.0, 0.0]
    """
    across = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    return nn.Sequential(grey_filter(), _fixed(torch.stack([across, across.T])[:, None], padding=1))


def _fixed(weight: Tensor, padding: int = 0) -> nn.Conv2d:
    outputs, inputs, size, _ = weight.shape
    layer = nn.Conv2d(inputs, outputs, size, padding=padding)
    layer.weight.data.copy_(weight)
    assert layer.bias is not None  # noqa: S101 - for the type checker
    layer.bias.data.zero_()
    return layer.requires_grad_(False)


def alexnet_name(channels: int, batch_norm: bool, sobel: bool, conv_only: bool) -> str:
    """Return what such a network is called.

    Example:
        >>> alexnet_name(96, batch_norm=True, sobel=True, conv_only=False)
        'alexnet96_bn_sobel'
    """
    flags = {"_bn": batch_norm, "_sobel": sobel, "_conv": conv_only}
    return f"alexnet{channels}" + "".join(name for name, on in flags.items() if on)
