"""Random views of images, as contrastive learning makes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from featkit.trainers.augmentation.color import grayscale, jitter_colors
from featkit.trainers.augmentation.resampling import (
    blur_matrix,
    crop_matrix,
    draw_crops,
    resample,
)

_RATIO = (3 / 4, 4 / 3)
_JITTERED, _GRAY, _FLIPPED = 0.8, 0.2, 0.5
_SIGMA = (0.1, 2.0)


@dataclass(frozen=True)
class Views:
    """A random crop, flip, change of colours and blur for each image of a batch.

    Every image has draws of its own, those that torchvision's ``RandomResizedCrop``,
    ``RandomHorizontalFlip``, ``ColorJitter`` (in a random order), ``RandomGrayscale`` and
    ``GaussianBlur`` make. They come from torch's global generator of the device.

    Args:
        size: Pixels of a side of the views.
        scale: Least share of an image's area in a crop; the largest is all of it.
        color: Strength s of the change of colours: brightness, contrast and saturation by up to
            0.8·s, the hue by up to 0.2·s of a turn.
        blur: Probability of a blur, over a tenth of the view's side.

    Source: Chen et al. 2020, arXiv:2002.05709, appendix A; appendix B.9 for 32 pixels (s = 0.5, no
    blur).

    Example:
        >>> pixels = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
        >>> Views(size=24)(pixels).shape
        torch.Size([4, 3, 24, 24])
    """

    size: int
    scale: float = 0.08
    color: float = 0.5
    blur: float = 0.0

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Make one view of each image.

        Args:
            pixels: (b, 3, h, w) uint8.

        Returns:
            (b, 3, size, size) float32 in [0, 1].
        """
        with torch.autocast(pixels.device.type, enabled=False):
            return self._make(pixels)

    def _make(self, pixels: Tensor) -> Tensor:
        count, device = len(pixels), pixels.device
        height, width = pixels.shape[2:]
        boxes = draw_crops(count, (height, width), (self.scale, 1.0), _RATIO, device)
        top, left, h, w = boxes.unbind(1)
        columns = crop_matrix(left, w, width, self.size)
        is_flipped = torch.rand(count, device=device) < _FLIPPED
        columns = torch.where(is_flipped[:, None, None], columns.flip(1), columns)
        images = pixels.to(torch.float32).div_(255)
        views = resample(images, crop_matrix(top, h, height, self.size), columns)
        self._recolor(views)
        if self.blur:
            self._blur(views)
        return views

    def _recolor(self, views: Tensor) -> None:
        count, device = len(views), views.device
        if self.color:
            reach = 0.8 * self.color
            factors = torch.empty(count, 4, device=device).uniform_(max(0, 1 - reach), 1 + reach)
            turn = min(0.2 * self.color, 0.5)
            factors[:, 3] = torch.empty(count, device=device).uniform_(-turn, turn)
            order = torch.rand(count, 4, device=device).argsort(1)
            rows = (torch.rand(count, device=device) < _JITTERED).nonzero().squeeze(1)
            jittered = jitter_colors(views.index_select(0, rows), factors[rows], order[rows])
            views.index_copy_(0, rows, jittered)
        rows = (torch.rand(count, device=device) < _GRAY).nonzero().squeeze(1)
        gray = grayscale(views.index_select(0, rows))
        views.index_copy_(0, rows, gray.expand(-1, 3, -1, -1))

    def _blur(self, views: Tensor) -> None:
        count, device = len(views), views.device
        kernel = max(3, self.size // 10 // 2 * 2 + 1)
        sigma = torch.empty(count, device=device).uniform_(*_SIGMA)
        rows = (torch.rand(count, device=device) < self.blur).nonzero().squeeze(1)
        matrix = blur_matrix(sigma[rows], self.size, kernel)
        blurred = resample(views.index_select(0, rows), matrix, matrix)
        views.index_copy_(0, rows, blurred)
