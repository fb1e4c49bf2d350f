"""Colours of whole batches changed at random, each image by its own, as torchvision changes one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601, as torchvision rounds them)."""


def grayscale(images: Tensor) -> Tensor:
    """Return the luma of images (b, 3, …) as (b, 1, …)."""
    red, green, blue = images.unbind(1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])[:, None]


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply images (b, 3, h, w) in [0, 1] by a factor each, (b)."""
    return (images * _each(factor)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Move images (b, 3, h, w) in [0, 1] away from their mean grey by a factor each, (b)."""
    return _blend(images, grayscale(images).mean((2, 3), keepdim=True), factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Move images (b, 3, h, w) in [0, 1] away from their grey by a factor each, (b)."""
    return _blend(images, grayscale(images), factor)


def adjust_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of images, at the same value and saturation of the HSV model.

    ``channel = V - C · clamp(min(k, 4 - k), 0, 1)`` with ``k = (n + H) mod 6``, n = 5, 3, 1 for
    red, green and blue, V the largest channel, C the distance to the least, and the hue H in sixths
    of a turn.

    Args:
        images: (b, 3, h, w) in [0, 1].
        turn: (b) in turns, -0.5 to 0.5.
    """
    red, green, blue = images.unbind(1)
    value, chroma = images.amax(1), images.amax(1) - images.amin(1)
    over = chroma.clamp(min=torch.finfo(images.dtype).tiny)
    of_green = (blue - red).div_(over).add_(2)
    of_blue = (red - green).div_(over).add_(4)
    hue = torch.where(value == green, of_green, of_blue)
    hue = torch.where(value == red, (green - blue).div_(over), hue)
    hue += 6 * turn[:, None, None]
    out = torch.empty_like(images)
    for channel, n in enumerate((5, 3, 1)):
        k = hue + n
        k -= k.div(6).floor_().mul_(6)  # modulo 6, in less time than torch.remainder
        torch.minimum(k, 4 - k, out=k)
        torch.sub(value, k.clamp_(0, 1).mul_(chroma), out=out[:, channel])
    return out


def solarize(images: Tensor) -> Tensor:
    """Invert what is bright of images in [0, 1]: pixels of 0.5 or more."""
    return torch.where(images < 0.5, images, 1 - images)


_ADJUST: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    adjust_hue,
)


def jitter_colors(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of each image, in an order of its own.

    Args:
        images: (b, 3, h, w) in [0, 1]; overwritten.
        factors: (b, 4), as the four functions here take them.
        order: (b, 4) int64, a permutation each.

    Returns:
        ``images``.
    """
    for place in range(len(_ADJUST)):
        for number, adjust in enumerate(_ADJUST):
            rows = (order[:, place] == number).nonzero().squeeze(1)
            if len(rows):
                changed = adjust(images.index_select(0, rows), factors[rows, number])
                images.index_copy_(0, rows, changed)
    return images


def _each(factor: Tensor) -> Tensor:
    return factor[:, None, None, None]


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(other.expand_as(images), images, _each(factor)).clamp_(0, 1)
