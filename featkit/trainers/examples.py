"""A few images and the views that a training makes of them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featkit.trainers.base import Learner
from featkit.trainers.images import TrainingImages

_ROWS = 4


def example_views(
    learner: Learner, images: TrainingImages, seed: int
) -> tuple[NDArray[np.uint8], list[str]]:
    """Draw views of the first images that are learned from.

    Args:
        learner: Makes them.
        images: Of the training.
        seed: Of the draw; torch's generator is left with it.

    Returns:
        (rows, columns, h, w, 3), an image a row, itself and then its views, smaller ones with a
        white border; and what the columns are called.
    """
    pixels = images.pixels[torch.from_numpy(images.learned[:_ROWS])]
    torch.manual_seed(seed)
    groups = [(group * 255).round().to(torch.uint8) for group in learner.views_of(pixels)]
    views = [view for group in groups for view in group]
    side = max(pixels.shape[-1], *(view.shape[-1] for view in views))
    rows = torch.stack([_framed(picture, side) for picture in (pixels, *views)], 1)
    names = ["image", *(f"view {n}, {v.shape[-1]} px" for n, v in enumerate(views, 1))]
    return rows.permute(0, 1, 3, 4, 2).contiguous().numpy(), names


def _framed(pictures: Tensor, side: int) -> Tensor:
    """Put pictures (b, 3, s, s) into the middle of white ones of a side."""
    start = (side - pictures.shape[-1]) // 2
    inside = slice(start, start + pictures.shape[-1])
    page = pictures.new_full((len(pictures), 3, side, side), 255)
    page[:, :, inside, inside] = pictures
    return page
