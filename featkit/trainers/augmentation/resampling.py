"""Crops, flips and blurs of whole batches, each image by its own, as matrix products.

All three are linear and separable: an image (h, w) becomes ``rows · image · columnsᵀ``, with two
small matrices for each image. A batch is two batched products, whatever is asked of its images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Interpolation = Literal["bilinear", "bicubic"]

_TRIES = 10
"""Boxes that are drawn for an image, of which the first that fits is taken (torchvision)."""


def draw_crops(
    count: int,
    sides: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    device: torch.device,
) -> Tensor:
    """Draw boxes as torchvision's ``RandomResizedCrop`` does.

    Args:
        count: Images.
        sides: (height, width) of the images.
        scale: Least and largest share of the area.
        ratio: Least and largest width / height; its logarithm is uniform.
        device: Where they are drawn.

    Returns:
        (count, 4) float32 whole numbers: top, left, height, width. Where none of ten boxes fits,
        the largest centred one whose shape is allowed.
    """
    height, width = sides
    area = torch.empty(count, _TRIES, device=device).uniform_(*scale) * (height * width)
    low, high = torch.tensor(ratio).log().tolist()
    aspect = torch.empty(count, _TRIES, device=device).uniform_(low, high).exp_()
    w, h = (area * aspect).sqrt_().round_(), (area / aspect).sqrt_().round_()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    w, h, found = (each.gather(1, first).squeeze(1) for each in (w, h, fits))
    shape = min(max(width / height, ratio[0]), ratio[1])
    whole = (round(min(height, width / shape)), round(min(width, height * shape)))
    h = torch.where(found, h, float(whole[0]))
    w = torch.where(found, w, float(whole[1]))
    places = torch.rand(2, count, device=device)
    top = torch.where(found, (places[0] * (height - h + 1)).floor_(), (height - h).div_(2).floor_())
    left = torch.where(found, (places[1] * (width - w + 1)).floor_(), (width - w).div_(2).floor_())
    return torch.stack([top, left, h, w], 1)


def _triangle(distance: Tensor) -> Tensor:
    return distance.neg_().add_(1).clamp_(min=0)


def _cubic(distance: Tensor) -> Tensor:
    """Return Keys' cubic of the slope -1/2, which is 0 from a distance of 2 on."""
    x = distance.clamp_(max=2)
    near = x.mul(1.5).sub_(2.5).mul_(x).mul_(x).add_(1)
    far = x.mul(-0.5).add_(2.5).mul_(x).sub_(4).mul_(x).add_(2)
    return torch.where(x < 1, near, far)


_KERNELS: dict[Interpolation, Callable[[Tensor], Tensor]] = {
    "bilinear": _triangle,
    "bicubic": _cubic,
}
"""Weights of pixels by their distance, which is overwritten."""


def crop_matrix(
    start: Tensor, length: Tensor, side: int, size: int, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """Return the matrices that resize a part of an axis, with antialiasing.

    Args:
        start: (b) where the part begins.
        length: (b) of the part.
        side: Length of the axis.
        size: Length that it is resized to.
        interpolation: ``bicubic`` overshoots at edges.

    Returns:
        (b, size, side) of the type of ``start``; rows sum to 1. As Pillow and torch
        (``interpolate(antialias=True)``): a triangle, or a cubic of twice its reach, about the
        centre of each new pixel, as wide as the wider of both pixels, cut off at the part's ends.

    Example:
        >>> crop_matrix(torch.tensor([1.0]), torch.tensor([2.0]), 4, 2)
        tensor([[[0., 1., 0., 0.],
                 [0., 0., 1., 0.]]])
    """
    step = (length / size)[:, None, None]
    new = torch.arange(size, device=start.device)[:, None] + 0.5
    centers = start[:, None, None] + step * new
    places = torch.arange(side, device=start.device)
    matrix = _KERNELS[interpolation]((places + 0.5 - centers).abs_() / step.clamp(min=1))
    inside = (places >= start[:, None]) & (places < (start + length)[:, None])
    matrix *= inside[:, None, :]
    return matrix.div_(matrix.sum(2, keepdim=True))


def blur_matrix(sigma: Tensor, size: int, kernel: int) -> Tensor:
    """Return the matrices that blur an axis by a Gaussian, its ends mirrored.

    Args:
        sigma: (b) standard deviations in pixels.
        size: Length of the axis.
        kernel: Pixels that are averaged, an odd number below twice the size.

    Returns:
        (b, size, size) float32; rows sum to 1.
    """
    reach = kernel // 2
    offsets = torch.arange(-reach, reach + 1, device=sigma.device)
    weights = (-0.5 * (offsets / sigma[:, None]) ** 2).exp()
    weights /= weights.sum(1, keepdim=True)
    places = torch.arange(size, device=sigma.device)[:, None] + offsets
    places = (size - 1) - (places.abs() - (size - 1)).abs()  # mirrored about the first, the last
    matrix = torch.zeros(len(sigma), size, size, device=sigma.device)
    shape = (len(sigma), size, kernel)
    return matrix.scatter_add_(2, places.expand(shape), weights[:, None, :].expand(shape))


def resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply a matrix to each axis of each image.

    Args:
        images: (b, c, h, w) float32.
        rows: (b, h', h).
        columns: (b, w', w).

    Returns:
        (b, c, h', w'), contiguous.

    Cost:
        2·b·c·(h·w·w' + h·h'·w') operations in two batched products.

    Example:
        >>> flip = torch.eye(2).flip(1)[None]
        >>> resample(torch.arange(4.0).reshape(1, 1, 2, 2), torch.eye(2)[None], flip).tolist()
        [[[[1.0, 0.0], [3.0, 2.0]]]]
    """
    b, c, h, w = images.shape
    new_h, new_w = rows.shape[1], columns.shape[1]
    narrow = torch.bmm(images.reshape(b, c * h, w), columns.transpose(1, 2)).view(b, c, h, new_w)
    if c == 1:
        return torch.bmm(rows, narrow.view(b, h, new_w)).view(b, c, new_h, new_w)
    return torch.matmul(rows[:, None], narrow)
