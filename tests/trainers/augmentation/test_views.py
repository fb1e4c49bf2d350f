"""Views: what they are made of, how often, and that each image has its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms

from featkit.trainers.augmentation.views import Views

STILL = (0.0, 0.0, 0.0, 0.0)


@pytest.fixture
def pixels() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, 3, 32, 32), generator=generator, dtype=torch.uint8)


def test_a_view_without_changes_is_a_crop_or_its_mirror_image_and_grey_at_times(
    pixels: Tensor,
) -> None:
    torch.manual_seed(0)
    views = Views(32, (1.0, 1.0), STILL)(pixels.expand(400, -1, -1, -1))
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
    views = Views(32, jitter=STILL)(ramp)
    falls = (views[..., -1] < views[..., 0]).all((1, 2))
    rises = (views[..., -1] > views[..., 0]).all((1, 2))
    assert bool((falls | rises).all())
    assert 250 < int(falls.sum()) < 350


SIMCLR = (
    Views(24, blur=0.5),
    [
        v2.RandomResizedCrop(24, scale=(0.08, 1.0), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
        v2.RandomGrayscale(0.2),
        v2.RandomApply([v2.GaussianBlur(3, (0.1, 2.0))], 0.5),
    ],
)
DINO = (
    Views(
        24, (0.4, 1.0), (0.4, 0.4, 0.2, 0.1), blur=0.5, kernel=17, solarize=0.5,
        interpolation="bicubic",
    ),
    [
        v2.RandomResizedCrop(24, (0.4, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
        v2.Lambda(lambda image: image.clamp(0, 1)),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8),
        v2.RandomGrayscale(0.2),
        v2.RandomApply([v2.GaussianBlur(17, (0.1, 2.0))], 0.5),
        v2.RandomSolarize(0.5, 0.5),
    ],
)  # fmt: skip


@pytest.mark.parametrize(("views", "chain"), [SIMCLR, DINO], ids=["simclr", "dino"])
def test_views_are_distributed_like_those_of_torchvision(
    pixels: Tensor, views: Views, chain: list[nn.Module]
) -> None:
    """The same chain of torchvision's transforms, image by image, has the same moments."""
    from scipy.stats import ks_2samp

    count = 800
    torch.manual_seed(0)
    transform = v2.Compose(chain)
    theirs = torch.stack([transform(pixels[0] / 255) for _ in range(count)])
    ours = views(pixels.expand(count, -1, -1, -1))
    for measure in (
        lambda v: v.mean((1, 2, 3)),  # brightness
        lambda v: v.std((1, 2, 3)),  # contrast
        lambda v: v.std(1).mean((1, 2)),  # saturation
        lambda v: v.diff(dim=3).abs().mean((1, 2, 3)),  # sharpness
        lambda v: (v[:, 0] - v[:, 1]).mean((1, 2)),  # hue
        lambda v: v.amax((1, 2, 3)),  # what is bright is solarised
    ):
        assert ks_2samp(measure(ours).numpy(), measure(theirs).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("number", range(4))
def test_each_reach_is_that_of_its_own_change(number: int) -> None:
    """One change of four, of each image once: brightness, contrast, saturation, hue."""
    image = torch.tensor([0.5, 0.4, 0.3])[:, None, None].repeat(1, 8, 8)
    image[:, 4:] *= 0.9
    pixels = (image * 255).to(torch.uint8)
    jitter = [0.0] * 4
    jitter[number] = 0.3
    torch.manual_seed(0)
    views = Views(8, (1.0, 1.0), tuple(jitter))(pixels.expand(4000, -1, -1, -1))
    views = views[views.std(1).amax((1, 2)) > 1e-3]  # not grey
    names = ("brightness", "contrast", "saturation", "hue")
    change = getattr(transforms, f"adjust_{names[number]}")
    bounds = (-0.3, 0.3) if number == 3 else (0.7, 1.3)
    steps = torch.linspace(*bounds, 61).tolist()
    path = torch.stack([change(pixels / 255, step) for step in steps])[..., 0, 0]
    seen = views[..., 0, 0]
    distances = torch.cdist(seen, path)
    assert distances.amin(1).max() < 0.012  # all lie on the path of that change …
    assert distances.amin(0)[1:-1].max() < 0.012  # … which they cover to its ends


def test_bicubic_views_stay_within_the_range_of_colours() -> None:
    edges = torch.zeros(64, 3, 32, 32, dtype=torch.uint8)
    edges[..., ::4] = 255
    torch.manual_seed(0)
    views = Views(48, jitter=STILL, interpolation="bicubic")(edges)
    assert views.min() == 0
    assert views.max() == 1


def test_a_share_of_views_is_solarised() -> None:
    bright = torch.full((600, 3, 8, 8), 204, dtype=torch.uint8)
    torch.manual_seed(0)
    views = Views(8, jitter=STILL, solarize=0.2)(bright)
    inverted = views.amax((1, 2, 3)) < 0.21
    assert views[inverted].min() > 0.19
    assert views[~inverted].min() > 0.79
    assert 85 < int(inverted.sum()) < 155


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
