"""Random views of images, as self-supervised learning makes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from featkit.parallel.place import EVERY
from featkit.trainers.augmentation.color import grayscale, jitter_colors, solarize
from featkit.trainers.augmentation.resampling import (
    Interpolation,
    blur_matrix,
    crop_matrix,
    draw_crops,
    resample,
)

_RATIO = (3 / 4, 4 / 3)
_JITTERED, _FLIPPED = 0.8, 0.5
_SIGMA = (0.1, 2.0)


@dataclass(frozen=True)
class Views:
    """A random crop, flip, change of colours, blur and solarisation for each image of a batch.

    Every image has draws of its own, those that torchvision's ``RandomResizedCrop``,
    ``RandomHorizontalFlip``, ``ColorJitter`` (in a random order), ``RandomGrayscale``,
    ``GaussianBlur`` and ``RandomSolarize`` make. They come from torch's global generator of the
    device.

    Args:
        size: Pixels of a side of the views.
        scale: Least and largest share of an image's area in a crop.
        jitter: Reach of the change of brightness, contrast and saturation, 0 or more, and of hue,
            in turns up to 0.5.
        blur: Probability of a blur.
        kernel: Pixels that a blur averages along an axis, an odd number below twice the size.
            Default: a tenth of the size.
        solarize: Probability that what is bright is inverted.
        interpolation: Of the crop.
        gray: Probability that colours are taken away.

    Source: Chen et al. 2020, arXiv:2002.05709, appendix A; appendix B.9 for 32 pixels (a strength
    of 0.5, no blur).

    Example:
        >>> pixels = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
        >>> Views(size=24)(pixels).shape
        torch.Size([4, 3, 24, 24])
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    blur: float = 0.0
    kernel: int | None = None
    solarize: float = 0.0
    interpolation: Interpolation = "bilinear"
    gray: float = 0.2

    @torch.no_grad()
    def __call__(self, pixels: Tensor, made: Tensor | slice = EVERY) -> Tensor:
        """Make one view of each image, or of some of them what it would be among all.

        Args:
            pixels: (b, 3, h, w) uint8.
            made: Images whose views are made.

        Returns:
            (b of these, 3, size, size) float32 in [0, 1].
        """
        draw = _Draw(len(pixels), pixels.device, made)
        with torch.autocast(pixels.device.type, enabled=False):
            views = self._crop(pixels, draw)
            self._recolor(views, draw)
            if self.blur:
                self._blur(views, draw)
            if self.solarize:
                rows = draw.rows(self.solarize)
                views.index_copy_(0, rows, solarize(views.index_select(0, rows)))
            return views

    def _crop(self, pixels: Tensor, draw: _Draw) -> Tensor:
        count, device = len(pixels), pixels.device
        height, width = pixels.shape[2:]
        boxes = draw_crops(count, (height, width), self.scale, _RATIO, device)[draw.made]
        top, left, h, w = boxes.unbind(1)
        rows = crop_matrix(top, h, height, self.size, self.interpolation)
        columns = crop_matrix(left, w, width, self.size, self.interpolation)
        is_flipped = draw.happens(_FLIPPED)
        columns = torch.where(is_flipped[:, None, None], columns.flip(1), columns)
        views = resample(pixels[draw.made].to(torch.float32).div_(255), rows, columns)
        return views.clamp_(0, 1) if self.interpolation == "bicubic" else views

    def _recolor(self, views: Tensor, draw: _Draw) -> None:
        if any(self.jitter):
            factors = self._draw_factors(draw)
            order = torch.rand(draw.count, 4, device=views.device)[draw.made].argsort(1)
            rows = draw.rows(_JITTERED)
            jittered = jitter_colors(views.index_select(0, rows), factors[rows], order[rows])
            views.index_copy_(0, rows, jittered)
        if self.gray:
            rows = draw.rows(self.gray)
            gray = grayscale(views.index_select(0, rows))
            views.index_copy_(0, rows, gray.expand(-1, 3, -1, -1))

    def _draw_factors(self, draw: _Draw) -> Tensor:
        """Draw (b, 4): brightness, contrast and saturation at once where their reach is one."""
        *reaches, turn = self.jitter
        factors = torch.empty(draw.count, 4, device=draw.device)
        factors.uniform_(max(0, 1 - reaches[0]), 1 + reaches[0])
        for number, reach in enumerate(reaches):
            if reach != reaches[0]:
                own = torch.empty(draw.count, device=draw.device)
                factors[:, number] = own.uniform_(max(0, 1 - reach), 1 + reach)
        factors[:, 3] = torch.empty(draw.count, device=draw.device).uniform_(-turn, turn)
        return factors[draw.made]

    def _blur(self, views: Tensor, draw: _Draw) -> None:
        kernel = self.kernel or max(3, self.size // 10 // 2 * 2 + 1)
        sigma = torch.empty(draw.count, device=views.device).uniform_(*_SIGMA)[draw.made]
        rows = draw.rows(self.blur)
        matrix = blur_matrix(sigma[rows], self.size, kernel)
        blurred = resample(views.index_select(0, rows), matrix, matrix)
        views.index_copy_(0, rows, blurred)


@dataclass(frozen=True)
class _Draw:
    """What is random of all images of a batch, of which the views of some are made.

    Attributes:
        count: Images of the batch.
        device: Whose generator draws.
        made: Those whose views are made.
    """

    count: int
    device: torch.device
    made: Tensor | slice

    def happens(self, probability: float) -> Tensor:
        """Return whether it happens to each image whose view is made, (b of these) bool."""
        return torch.rand(self.count, device=self.device)[self.made] < probability

    def rows(self, probability: float) -> Tensor:
        """Return the numbers of the views to which it happens."""
        return self.happens(probability).nonzero().squeeze(1)
