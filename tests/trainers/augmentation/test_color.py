"""Changes of colour against torchvision's, one image at a time."""

from __future__ import annotations

import itertools

import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from featkit.trainers.augmentation import color


@pytest.fixture
def images() -> Tensor:
    """Random colours, and those where hue or saturation have no meaning."""
    found = torch.rand(24, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    found[0], found[1], found[2] = 0.0, 1.0, 0.4
    found[3] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    found[4] = torch.tensor([0.2, 0.7, 0.7])[:, None, None]
    found[5] = torch.tensor([0.5, 0.1, 0.5])[:, None, None]
    return found


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_each_change_is_that_of_torchvision(images: Tensor, name: str) -> None:
    factors = torch.linspace(0.0, 2.0, 24) if name != "hue" else torch.linspace(-0.5, 0.5, 24)
    ours = getattr(color, f"adjust_{name}")(images, factors)
    change = getattr(transforms, f"adjust_{name}")
    theirs = [change(image, f) for image, f in zip(images, factors.tolist(), strict=True)]
    torch.testing.assert_close(ours, torch.stack(theirs), rtol=0, atol=3e-6)


def test_grey_is_that_of_torchvision(images: Tensor) -> None:
    wanted = transforms.rgb_to_grayscale(images)
    torch.testing.assert_close(color.grayscale(images), wanted, rtol=0, atol=1e-6)


def test_solarised_images_are_those_of_torchvision_and_pillow(images: Tensor) -> None:
    wanted = transforms.solarize(images, 0.5)
    torch.testing.assert_close(color.solarize(images), wanted, rtol=0, atol=0)
    levels = torch.arange(256, dtype=torch.uint8).expand(1, 3, 16, 256)
    image = ImageOps.solarize(Image.fromarray(levels[0].permute(1, 2, 0).numpy()))
    ours = (color.solarize(levels / 255) * 255).round().to(torch.uint8)
    assert torch.equal(ours[0], transforms.pil_to_tensor(image))


def test_the_order_is_that_of_each_image(images: Tensor) -> None:
    orders = torch.tensor(list(itertools.permutations(range(4))))
    generator = torch.Generator().manual_seed(1)
    factors = torch.rand(24, 4, generator=generator) * 1.2 + 0.4
    factors[:, 3] -= 1.0
    factors[:, 3] *= 0.4
    names = ("brightness", "contrast", "saturation", "hue")
    wanted = []
    for image, own, order in zip(images, factors.tolist(), orders.tolist(), strict=True):
        for number in order:
            image = getattr(transforms, f"adjust_{names[number]}")(image, own[number])  # noqa: PLW2901
        wanted.append(image)
    ours = color.jitter_colors(images.clone(), factors, orders)
    torch.testing.assert_close(ours, torch.stack(wanted), rtol=0, atol=2e-5)
