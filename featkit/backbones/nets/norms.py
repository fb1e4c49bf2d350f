"""What normalises the maps of a convolutional network."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


class LayerNorm2d(nn.GroupNorm):
    """Layer normalisation of maps: of each image over all channels and positions.

    A factor and a shift for each channel. It has no running statistics, and an image's features do
    not depend on the others of its batch, in training either.

    Args:
        channels: Of the maps.

    Source: Ba, Kiros, Hinton, Layer normalization, 2016, arXiv:1607.06450; over maps as in Wu and
    He, Group normalization, 2018, arXiv:1803.08494, sec. 3, one group.

    Example:
        >>> import torch
        >>> maps = torch.arange(8.0).reshape(1, 2, 2, 2)
        >>> out = LayerNorm2d(2)(maps).detach()
        >>> out.mean().abs() < 1e-6, round(float(out.var(correction=0)), 4)
        (tensor(True), 1.0)
    """

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm2d, "layer": LayerNorm2d}
"""What makes a normalisation of so many channels, by name."""
