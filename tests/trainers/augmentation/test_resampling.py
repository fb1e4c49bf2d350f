"""Crops and blurs against torchvision's, one image at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional as transforms

from featkit.trainers.augmentation.resampling import (
    Interpolation,
    blur_matrix,
    crop_matrix,
    draw_crops,
    resample,
)

CPU = torch.device("cpu")


@pytest.fixture
def images() -> Tensor:
    return torch.rand(8, 3, 40, 48, generator=torch.Generator().manual_seed(0))


BOXES = torch.tensor(
    [[0, 0, 40, 48], [3, 5, 1, 1], [0, 47, 40, 1], [39, 0, 1, 48], [7, 9, 20, 30],
     [20, 20, 3, 7], [1, 1, 38, 46], [39, 47, 1, 1]]
)  # fmt: skip


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [1, 16, 33, 64, 130])
def test_crops_are_those_of_torchvision(
    images: Tensor, size: int, interpolation: Interpolation, dtype: torch.dtype, tolerance: float
) -> None:
    """To the rounding of places along an axis, which torch's crops in float32 have as well."""
    images = images.to(dtype)
    top, left, height, width = BOXES.to(dtype).unbind(1)
    rows = crop_matrix(top, height, 40, size, interpolation)
    columns = crop_matrix(left, width, 48, size, interpolation)
    mode = InterpolationMode(interpolation)
    theirs = [
        transforms.resized_crop(image, *box, [size, size], mode, antialias=True)
        for image, box in zip(images, BOXES.tolist(), strict=True)
    ]
    torch.testing.assert_close(
        resample(images, rows, columns), torch.stack(theirs), rtol=0, atol=tolerance
    )


@pytest.mark.parametrize("kernel", [3, 5, 23])
def test_blurs_are_those_of_torchvision(images: Tensor, kernel: int) -> None:
    square = images[..., :40]
    sigma = torch.tensor([0.1, 0.3, 0.5, 0.8, 1.0, 1.4, 1.9, 2.0])
    matrix = blur_matrix(sigma, 40, kernel)
    theirs = [
        transforms.gaussian_blur(image, [kernel] * 2, [width] * 2)
        for image, width in zip(square, sigma.tolist(), strict=True)
    ]
    torch.testing.assert_close(
        resample(square, matrix, matrix), torch.stack(theirs), rtol=0, atol=2e-6
    )


def test_one_channel_is_resampled_as_three(images: Tensor) -> None:
    rows, columns = (
        crop_matrix(torch.zeros(8), torch.full((8,), 20.0), side, 10) for side in (40, 48)
    )
    together = resample(images, rows, columns)
    torch.testing.assert_close(resample(images[:, 1:2], rows, columns), together[:, 1:2])


@pytest.mark.parametrize("sides", [(32, 32), (20, 90)])
def test_boxes_are_drawn_like_those_of_torchvision(sides: tuple[int, int]) -> None:
    """Position, size and shape have the distribution that torchvision's boxes have."""
    from scipy.stats import ks_2samp

    torch.manual_seed(0)
    ours = draw_crops(2000, sides, (0.08, 1.0), (3 / 4, 4 / 3), CPU)
    transform = RandomResizedCrop(8, scale=(0.08, 1.0))
    image = torch.zeros(1, *sides)
    drawn = [transform.make_params([image]) for _ in range(2000)]
    theirs = torch.tensor([[box[n] for n in ("top", "left", "height", "width")] for box in drawn])
    top, left, height, width = ours.unbind(1)
    assert ((top >= 0) & (left >= 0) & (height >= 1) & (width >= 1)).all()
    assert ((top + height <= sides[0]) & (left + width <= sides[1])).all()
    assert torch.equal(ours, ours.round())
    for column in range(4):
        assert ks_2samp(ours[:, column].numpy(), theirs[:, column].numpy()).pvalue > 1e-3
    shares = [boxes[:, 2] * boxes[:, 3] for boxes in (ours, theirs)]
    assert ks_2samp(*(share.numpy() for share in shares)).pvalue > 1e-3


def test_where_no_box_fits_the_largest_centred_one_is_taken() -> None:
    boxes = draw_crops(5, (10, 100), (1.0, 1.0), (3 / 4, 4 / 3), CPU)
    assert boxes.tolist() == [[0.0, 43.0, 10.0, 13.0]] * 5  # 10 · 4/3 wide, rounded
