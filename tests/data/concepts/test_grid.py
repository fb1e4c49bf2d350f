"""Where masks are sampled: against Pillow and torchvision, and masks that hold their own places."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from featkit.data.concepts.grid import Grid
from featkit.data.preprocessing import Preprocessing
from featkit.errors import UsageError

HALF = (0.5,) * 3
# (width, height): landscape, portrait, square, both smaller than the crop, one side, thin
SIZES = [(480, 360), (333, 501), (64, 64), (31, 47), (101, 301), (640, 29), (1, 1)]
RESIZES = [None, 40, 73, (31, 77), (97, 67)]


def recipe(size, resize):
    return Preprocessing(size, resize, "bilinear", HALF, HALF)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resize", RESIZES)
def test_one_cell_a_pixel_is_pillows_nearest_resize_and_torchvisions_crop(size, resize):
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 256, size[::-1], dtype=np.uint8)
    steps = [] if resize is None else [transforms.Resize(resize, InterpolationMode.NEAREST)]
    peer = transforms.Compose([*steps, transforms.CenterCrop((35, 60))])
    crop = recipe((35, 60), resize)
    got = Grid(crop, (35, 60)).sample(labels, size)
    assert got.dtype == np.uint8
    wanted = np.asarray(peer(Image.fromarray(labels)))
    resized, start = crop.placement(size)
    fair = np.ix_(*(~on_a_border(n, start[a], resized[a], size[a]) for a, n in ((1, 35), (0, 60))))
    np.testing.assert_array_equal(got[fair], wanted[fair])
    assert wanted[fair].size > 200


def on_a_border(pixels, start, resized, size):
    """Where a centre lies between two pixels, which Pillow's rounding errors decide."""
    centres = [Fraction(2 * (start + i) + 1, 2) * size / resized for i in range(pixels)]
    return np.array([centre.denominator == 1 for centre in centres])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize(("cells", "scale"), [((56, 56), 1), ((7, 13), 0.5), ((200, 3), 2)])
def test_a_mask_of_its_own_places_tells_where_each_cell_looked(size, resize, cells, scale):
    """The place of every cell, computed in real numbers, lies on the pixel it got."""
    rows, columns = (max(1, round(side * scale)) for side in size[::-1])
    places = np.stack(np.mgrid[1 : rows + 1, 1 : columns + 1])
    crop = recipe((35, 60), resize)
    got = Grid(crop, cells).sample(places, size)
    assert got.shape == (2, *cells)
    whole = np.asarray(crop.pixels(Image.new("RGB", size, (255, 255, 255))))[..., 0] > 0
    ys = (np.arange(cells[0]) + 0.5) * 35 / cells[0]
    xs = (np.arange(cells[1]) + 0.5) * 60 / cells[1]
    covered = whole[np.ix_(ys.astype(int), xs.astype(int))]  # black pixels are padding
    np.testing.assert_array_equal(got[0] > 0, covered)
    np.testing.assert_array_equal(got[1] > 0, covered)
    if resize is None:  # then crop coordinates are image coordinates, moved
        for axis, at, want, have in ((0, ys, 35, size[1]), (1, xs, 60, size[0])):
            start = round((have - want) / 2) if have >= want else -((want - have) // 2)
            share = (at + start) / have * (rows, columns)[axis]
            looked = got[axis].max(1 - axis)
            inside = looked > 0
            assert np.all(np.abs(share - (looked - 0.5))[inside] <= 0.5 + 1e-9)


def test_a_centre_on_a_border_belongs_to_the_right_and_lower_pixel():
    labels = np.arange(1, 5, dtype=np.int32).reshape(2, 2)
    assert Grid(recipe((2, 2), None), (1, 1)).sample(labels, (2, 2)).tolist() == [[4]]


def test_the_outside_is_what_is_asked_for():
    got = Grid(recipe((4, 4), None), (4, 4)).sample(np.zeros((2, 2), np.int32), (2, 2), outside=-1)
    wanted = np.full((4, 4), -1)
    wanted[1:3, 1:3] = 0
    np.testing.assert_array_equal(got, wanted)


def test_finer_cells_repeat_coarser_ones():
    """Metamorphic: three times the cells put the middle one where the coarse cell's centre is."""
    labels = np.random.default_rng(0).integers(0, 99, (90, 120))
    crop = recipe((48, 48), 64)
    fine = Grid(crop, (36, 36)).sample(labels, (120, 90))
    coarse = Grid(crop, (12, 12)).sample(labels, (120, 90))
    np.testing.assert_array_equal(fine[1::3, 1::3], coarse)


@pytest.mark.parametrize("cells", [(0, 3), (3, -1)])
def test_no_cells_are_refused(cells):
    with pytest.raises(UsageError, match="rows and columns"):
        Grid(recipe((4, 4), None), cells)
