"""Several random views of each image, large and small, as DINO makes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from featkit.parallel.place import EVERY
from featkit.trainers.augmentation.resampling import Interpolation
from featkit.trainers.augmentation.views import Views

_KERNEL = 17
"""Pixels of a blur: as far as four of its largest standard deviations, 2, to each side."""


@dataclass(frozen=True)
class MultiCrop:
    """Two views of most of each image, and more of small parts of it, of fewer pixels.

    Args:
        size: Pixels of a side of the two global views.
        local_size: Of the local ones.
        local_crops: Local views of an image, 0 or more.
        global_scale: Least and largest share of an image's area in a global view; (0.14, 1) where
            there are no local ones.
        local_scale: In a local view.
        jitter: As :class:`featkit.trainers.augmentation.views.Views` takes it.
        blur: Blur every first view, a tenth of the second and half of the local ones.
        solarize: Invert what is bright of a fifth of the second views.
        interpolation: Of the crops.

    Source: Caron et al. 2021, arXiv:2104.14294, sec. 3.1, with the constants of their
    ``main_dino.py``. There pixels are rounded to 8 bits after each step, and Pillow makes its
    blurs of boxes.

    Example:
        >>> crops = MultiCrop(size=32, local_size=16, local_crops=6)
        >>> [tuple(views.shape) for views in crops(torch.zeros(4, 3, 32, 32, dtype=torch.uint8))]
        [(2, 4, 3, 32, 32), (6, 4, 3, 16, 16)]
    """

    size: int
    local_size: int
    local_crops: int
    global_scale: tuple[float, float] = (0.4, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.4)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    blur: bool = True
    solarize: bool = True
    interpolation: Interpolation = "bicubic"

    def __call__(self, pixels: Tensor, made: slice = EVERY) -> list[Tensor]:
        """Make all views of each image, or of some of them what they would be among all.

        Args:
            pixels: (b, 3, h, w) uint8.
            made: Images whose views are made.

        Returns:
            Of these, global views (2, b, 3, size, size), and local ones (local_crops, b, 3,
            local_size, local_size) where there are any; float32 in [0, 1].
        """
        first = self._views(self.size, self.global_scale, blur=1.0)
        second = self._views(self.size, self.global_scale, blur=0.1, solarize=0.2)
        views = [torch.stack([first(pixels, made), second(pixels, made)])]
        if self.local_crops:
            local = self._views(self.local_size, self.local_scale, blur=0.5)
            repeated = pixels.repeat(self.local_crops, 1, 1, 1)
            rows = torch.arange(len(repeated), device=pixels.device)
            many = local(repeated, rows.view(self.local_crops, -1)[:, made].flatten())
            views.append(many.view(self.local_crops, -1, *many.shape[1:]))
        return views

    def _views(
        self, size: int, scale: tuple[float, float], blur: float, solarize: float = 0.0
    ) -> Views:
        return Views(
            size,
            scale,
            self.jitter,
            blur * self.blur,
            min(_KERNEL, 2 * size - 1),
            solarize * self.solarize,
            self.interpolation,
        )
