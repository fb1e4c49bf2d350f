"""Maps are brought to a grid as the published programs do it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.interpolate import RectBivariateSpline

from featkit.errors import UsageError
from featkit.ops import upsampling
from featkit.ops.upsampling import Upsampling

SIZES = [
    ((7, 7), (56, 56)),
    ((4, 9), (28, 18)),
    ((28, 28), (56, 56)),
    ((14, 14), (14, 14)),
    ((1, 1), (8, 8)),
    ((1, 5), (3, 40)),
]
every_size = pytest.mark.parametrize(("have", "want"), SIZES)


@pytest.fixture(params=[0, 10_000], ids=["in two products", "in one product"], autouse=True)
def _products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upsampling, "SMALL", request.param)


def maps(have: tuple[int, int]) -> torch.Tensor:
    return torch.randn(3, *have, generator=torch.Generator().manual_seed(0))


@every_size
def test_fading_is_grid_sample_with_zeros_around(
    have: tuple[int, int], want: tuple[int, int]
) -> None:
    x = maps(have)
    axes = [
        (torch.arange(W) + 0.5) / W * 2 - 1 for W in want
    ]  # PyTorch: -1 and 1 are the outer edges
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], -1).expand(3, -1, -1, -1)
    wanted = torch.nn.functional.grid_sample(
        x[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    torch.testing.assert_close(Upsampling(have, want, "fade")(x), wanted[:, 0], rtol=0, atol=5e-6)


@pytest.mark.parametrize(("have", "want"), [*SIZES, ((30, 20), (13, 9)), ((56, 40), (56, 20))])
def test_clamping_is_pillows_bilinear_filter(have: tuple[int, int], want: tuple[int, int]) -> None:
    x = maps(have)
    wanted = np.stack(
        [
            np.asarray(Image.fromarray(one).resize(want[::-1], Image.Resampling.BILINEAR))
            for one in x.numpy()
        ]
    )
    np.testing.assert_allclose(Upsampling(have, want, "clamp")(x), wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("side", "step"), [(7, 16), (13, 8), (2, 4), (28, 4)])
def test_corners_are_a_spline_through_the_centres_of_receptive_fields(side: int, step: int) -> None:
    x = maps((side, side))
    centres, cells = np.arange(side) * step + step // 2, np.arange(side * step)
    wanted = np.stack(
        [RectBivariateSpline(centres, centres, one, kx=1, ky=1)(cells, cells) for one in x.numpy()]
    )
    found = Upsampling((side, side), (side * step, side * step), "corner")(x)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=5e-6)


@pytest.mark.parametrize("border", ["fade", "clamp", "corner"])
def test_maps_are_independent_and_turn_with_the_grid(border: upsampling.Border) -> None:
    x = maps((5, 8))
    whole = Upsampling((5, 8), (20, 16), border)(x)
    torch.testing.assert_close(Upsampling((5, 8), (20, 16), border)(x[1:2]), whole[1:2])
    torch.testing.assert_close(Upsampling((8, 5), (16, 20), border)(x.mT), whole.mT)


def test_half_precision_is_computed_in_float32() -> None:
    x = maps((3, 3)).bfloat16()
    found = Upsampling((3, 3), (6, 6), "clamp")(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, Upsampling((3, 3), (6, 6), "clamp")(x.float()))


@pytest.mark.parametrize(
    ("have", "want", "border", "message"),
    [
        ((0, 2), (4, 4), "fade", r"maps \(0, 2\) and grid \(4, 4\): give heights"),
        ((2, 2), (4, 0), "fade", "give heights and widths of 1 or more"),
        ((2, 2), (4, 4), "blur", "border 'blur' is unknown: give fade or clamp or corner"),
    ],
)
def test_what_cannot_be_used(have, want, border, message) -> None:
    with pytest.raises(UsageError, match=message):
        Upsampling(have, want, border)


BORDERS = ["fade", "clamp", "corner"]


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("sizes", [((7, 7), (56, 56)), ((20, 30), (45, 60)), ((6, 6), (6, 6))])
def test_no_maps_and_some_cells(border, sizes):
    have, want = sizes
    upsample = Upsampling(have, want, border)
    assert upsample(torch.zeros(0, *have)).shape == (0, *want)
    maps = torch.randn(3, *have, generator=torch.Generator().manual_seed(0))
    cells = torch.randperm(want[0] * want[1], generator=torch.Generator().manual_seed(1))[:9]
    torch.testing.assert_close(upsample(maps, cells), upsample(maps).flatten(1)[:, cells])


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("sizes", [((13, 13), (56, 56)), ((9, 9), (65, 65)), ((20, 20), (56, 56))])
def test_between_equal_places_cells_are_equal_and_none_exceeds_the_largest(border, sizes):
    """As in units that an activation function bounds, where a level lies on the bound."""
    have, want = sizes
    drawn = torch.rand(200, *have, generator=torch.Generator().manual_seed(0))
    maps = (12 * drawn).clamp(max=6.0) - torch.tensor([0.0, 3.3])[torch.arange(200) % 2, None, None]
    cells = Upsampling(have, want, border)(maps).flatten(1)
    peaks = maps.flatten(1).amax(1)
    assert (cells.amax(1) <= peaks).all()
    assert (cells == peaks[:, None]).sum() > 1000
