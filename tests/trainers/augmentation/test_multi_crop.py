"""The views of DINO: how many, of what size, and which of them are blurred and inverted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from featkit.trainers.augmentation.multi_crop import MultiCrop
from featkit.trainers.augmentation.views import Views

STILL = (0.0, 0.0, 0.0, 0.0)


@pytest.fixture
def pixels() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (5, 3, 32, 40), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("crops", "shapes"),
    [
        (MultiCrop(32, 16, 6), [(2, 5, 3, 32, 32), (6, 5, 3, 16, 16)]),
        (MultiCrop(24, 24, 1), [(2, 5, 3, 24, 24), (1, 5, 3, 24, 24)]),
        (MultiCrop(32, 16, 0), [(2, 5, 3, 32, 32)]),
        (MultiCrop(3, 1, 2), [(2, 5, 3, 3, 3), (2, 5, 3, 1, 1)]),
    ],
)
def test_views_of_each_size_are_together(
    pixels: Tensor, crops: MultiCrop, shapes: list[tuple[int, ...]]
) -> None:
    torch.manual_seed(0)
    found = crops(pixels)
    assert [tuple(views.shape) for views in found] == shapes
    for views in found:
        assert views.dtype == torch.float32
        assert 0 <= float(views.min()) <= float(views.max()) <= 1
        assert bool(views.isfinite().all())


def test_row_i_of_every_view_is_image_i() -> None:
    levels = torch.tensor([10, 90, 170, 250], dtype=torch.uint8)
    flat = levels[:, None, None, None].expand(4, 3, 32, 32)
    torch.manual_seed(0)
    for views in MultiCrop(32, 16, 3, jitter=STILL, solarize=False)(flat):
        wanted = (levels / 255).expand(len(views), 4)
        torch.testing.assert_close(views.mean((2, 3, 4)), wanted, rtol=0, atol=2e-4)  # some grey


def test_every_view_has_draws_of_its_own(pixels: Tensor) -> None:
    torch.manual_seed(0)
    found = MultiCrop(16, 16, 6)(pixels[:1].expand(8, -1, -1, -1))
    views = torch.cat([each.flatten(0, 1).flatten(1) for each in found])
    assert len(views) == 64
    assert (torch.cdist(views, views) + torch.eye(64)).min() > 1e-3


def test_blur_and_solarisation_are_those_of_each_view() -> None:
    """Blurred stripes end in grey; of flat light images, the inverted are dark."""
    count = 400
    stripes = torch.zeros(count, 3, 32, 32, dtype=torch.uint8)
    stripes[..., 16:] = 255
    crops = MultiCrop(32, 32, 1, (1.0, 1.0), (1.0, 1.0), STILL, solarize=False)
    torch.manual_seed(0)
    (first, second), (local,) = crops(stripes)
    plain = MultiCrop(32, 32, 1, (1.0, 1.0), (1.0, 1.0), STILL, blur=False, solarize=False)
    sharp = torch.cat([views.flatten(0, 1) for views in plain(stripes)])
    steepest = sharp.diff(dim=3).abs().amax((1, 2, 3)).min()
    shares = [
        float((views.diff(dim=3).abs().amax((1, 2, 3)) < steepest - 1e-4).float().mean())
        for views in (first, second, local)
    ]
    seen = 1 - shares[0]  # blurs so slight that they do not show
    assert seen < 0.35
    assert shares[1] == pytest.approx(0.1 * shares[0], abs=0.06)
    assert shares[2] == pytest.approx(0.5 * shares[0], abs=0.1)

    light = torch.full((count, 3, 32, 32), 204, dtype=torch.uint8)
    (first, second), (local,) = MultiCrop(32, 16, 1, jitter=STILL)(light)
    inverted = [float((v < 0.5).all((1, 2, 3)).float().mean()) for v in (first, second, local)]
    assert inverted[0] == inverted[2] == 0
    assert inverted[1] == pytest.approx(0.2, abs=0.08)


def test_the_first_views_are_distributed_like_those_of_torchvision(pixels: Tensor) -> None:
    """All are blurred, by a kernel that is not cut off at a tenth of the view."""
    from scipy.stats import ks_2samp

    chain = v2.Compose(
        [
            v2.RandomResizedCrop(24, (0.4, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
            v2.Lambda(lambda image: image.clamp(0, 1)),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.GaussianBlur(17, (0.1, 2.0)),
        ]
    )
    torch.manual_seed(0)
    theirs = torch.stack([chain(pixels[0] / 255) for _ in range(600)])
    ours = MultiCrop(24, 16, 0)(pixels[:1].expand(600, -1, -1, -1))[0][0]
    for measure in (
        lambda v: v.mean((1, 2, 3)),
        lambda v: v.std((1, 2, 3)),
        lambda v: v.std(1).mean((1, 2)),
        lambda v: v.diff(dim=3).abs().mean((1, 2, 3)),
    ):
        assert ks_2samp(measure(ours).numpy(), measure(theirs).numpy()).pvalue > 1e-3


def test_without_blur_and_solarisation_they_are_plain_views(pixels: Tensor) -> None:
    torch.manual_seed(0)
    (globals_, locals_) = MultiCrop(32, 16, 2, blur=False, solarize=False)(pixels)
    torch.manual_seed(0)
    jitter = (0.4, 0.4, 0.2, 0.1)
    of_most = Views(32, (0.4, 1.0), jitter, interpolation="bicubic")
    of_parts = Views(16, (0.05, 0.4), jitter, interpolation="bicubic")
    assert torch.equal(globals_, torch.stack([of_most(pixels), of_most(pixels)]))
    wanted = of_parts(torch.cat([pixels, pixels]))
    assert torch.equal(locals_.flatten(0, 1), wanted)
