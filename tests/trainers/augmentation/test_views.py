"""Views: what they are made of, how often, and that each image has its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from featkit.trainers.augmentation.views import Views


@pytest.fixture
def pixels() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, 3, 32, 32), generator=generator, dtype=torch.uint8)


def test_a_view_without_changes_is_a_crop_or_its_mirror_image_and_grey_at_times(
    pixels: Tensor,
) -> None:
    torch.manual_seed(0)
    views = Views(32, scale=1.0, color=0.0)(pixels.expand(400, -1, -1, -1))
    whole = pixels[0] / 255
    kinds = {"whole": whole, "mirrored": whole.flip(2)}
    square = [v for v in views if (v.std(0).max() > 1e-6)]
    found = {
        name: sum(bool(torch.allclose(view, kind, atol=1e-5)) for view in square)
        for name, kind in kinds.items()
    }
    gray = 400 - len(square)
    assert 50 < gray < 110  # of 400 · 0.2
    # a box of the whole area and of another shape than the image does not fit; few are square
    assert found["whole"] + found["mirrored"] > 0
    assert views.min() >= 0
    assert views.max() <= 1


def test_half_of_them_are_mirrored() -> None:
    ramp = torch.arange(0, 256, 8, dtype=torch.uint8).expand(600, 3, 32, 32)
    torch.manual_seed(0)
    views = Views(32, color=0.0)(ramp)
    falls = (views[..., -1] < views[..., 0]).all((1, 2))
    rises = (views[..., -1] > views[..., 0]).all((1, 2))
    assert bool((falls | rises).all())
    assert 250 < int(falls.sum()) < 350


def test_colours_have_the_moments_of_torchvisions(pixels: Tensor) -> None:
    """The same chain of torchvision's transforms, image by image, gives views distributed alike."""
    chain = v2.Compose(
        [
            v2.RandomResizedCrop(24, scale=(0.08, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(3, (0.1, 2.0))], 0.5),
        ]
    )
    count = 800
    torch.manual_seed(0)
    theirs = torch.stack([chain(pixels[0] / 255) for _ in range(count)])
    ours = Views(24, blur=0.5)(pixels.expand(count, -1, -1, -1))
    from scipy.stats import ks_2samp

    for measure in (
        lambda v: v.mean((1, 2, 3)),  # brightness
        lambda v: v.std((1, 2, 3)),  # contrast
        lambda v: v.std(1).mean((1, 2)),  # saturation
        lambda v: v.diff(dim=3).abs().mean((1, 2, 3)),  # sharpness
        lambda v: (v[:, 0] - v[:, 1]).mean((1, 2)),  # hue
    ):
        assert ks_2samp(measure(ours).numpy(), measure(theirs).numpy()).pvalue > 1e-3


def test_every_image_has_draws_of_its_own(pixels: Tensor) -> None:
    torch.manual_seed(0)
    views = Views(32)(pixels.expand(64, -1, -1, -1)).flatten(1)
    distances = torch.cdist(views, views) + torch.eye(64)
    assert distances.min() > 1e-3


def test_the_global_generator_decides(pixels: Tensor) -> None:
    batch = pixels.expand(8, -1, -1, -1)
    torch.manual_seed(3)
    first = Views(20, blur=0.5)(batch)
    torch.manual_seed(3)
    assert torch.equal(first, Views(20, blur=0.5)(batch))
    torch.manual_seed(4)
    assert not torch.equal(first, Views(20, blur=0.5)(batch))


def test_autocast_does_not_coarsen_views(pixels: Tensor) -> None:
    torch.manual_seed(0)
    plain = Views(32)(pixels)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(plain, Views(32)(pixels))
