"""Colours: published focal colours, those of CSS, and the survey they are named after."""

import numpy as np
import pytest
from PIL import Image

from featkit.data.concepts.color import COLORS, Colors, name_colors, srgb_to_lab
from featkit.data.concepts.color_survey import SURVEY
from featkit.data.concepts.grid import Grid
from featkit.data.concepts.sources import LABELLED
from featkit.data.concepts.view import view
from featkit.data.preprocessing import Preprocessing
from featkit.errors import SourceError

# Heider 1972, Universals in color naming and memory, J. Exp. Psych. 93 (and the neutral
# chips that Berlin and Kay 1969 give), as Munsell notation. To sRGB by colour-science 0.4.7
# (munsell_colour_to_xyY, illuminant C adapted to D65 by Bradford), clipped to 0..255.
FOCAL = {
    "red": ("5R 4/14", (188, 26, 51)),
    "yellow": ("2.5Y 8/16", (254, 191, 0)),
    "green": ("7.5G 5/10", (0, 143, 104)),
    "blue": ("2.5PB 5/12", (0, 128, 203)),
    "pink": ("5R 8/6", (251, 183, 177)),
    "orange": ("2.5YR 6/16", (241, 108, 0)),
    "brown": ("5YR 3/6", (109, 59, 25)),
    "purple": ("5P 3/10", (102, 48, 122)),
    "black": ("N 1.5", (38, 38, 38)),
    "grey": ("N 5", (121, 121, 121)),
    "white": ("N 9.5", (241, 241, 241)),
}
# CSS Color Module Level 4, section 6.1, where a basic term is the keyword.
CSS = {
    "red": (255, 0, 0),
    "green": (0, 128, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "orange": (255, 165, 0),
    "pink": (255, 192, 203),
    "purple": (128, 0, 128),
    "grey": (128, 128, 128),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
}


def names(pixels):
    return [COLORS[i] for i in name_colors(np.array(pixels, dtype=np.uint8).reshape(-1, 3))]


@pytest.mark.parametrize("name", FOCAL)
def test_all_eleven_focal_colours_have_their_names(name):
    assert names(FOCAL[name][1]) == [name]


@pytest.mark.parametrize("name", CSS)
def test_the_colours_of_css(name):
    assert names(CSS[name]) == [name]


def test_the_survey_is_that_of_xkcd():
    """Some lines of https://xkcd.com/color/rgb.txt, and how many there are of each name."""
    listed = {name: text.split() for name, text in SURVEY.items()}
    assert tuple(listed) == COLORS
    known = {"red": "e50000 840000", "blue": "0343df 75bbfd", "brown": "653700", "grey": "929591"}
    known |= {"green": "15b01a 96f97b", "pink": "ff81c0", "purple": "7e1e9c", "yellow": "ffff14"}
    assert all(set(text.split()) <= set(listed[name]) for name, text in known.items())
    assert [len(each) for each in listed.values()] == [2, 111, 45, 171, 26, 25, 53, 48, 36, 2, 39]
    assert all(len(text) == 6 for each in listed.values() for text in each)


def test_the_surveys_colours_get_their_names_when_left_out():
    """Nine neighbours by brute force, without the colour itself; hues only."""
    pairs = [(name, text) for name, each in SURVEY.items() for text in each.split()]
    pixels = np.array([list(bytes.fromhex(text)) for _, text in pairs], np.uint8)
    terms = np.array([name for name, _ in pairs])
    assert np.mean(np.array(names(pixels)) == terms) > 0.98
    lab = srgb_to_lab(pixels)
    apart = ((lab[:, None] - lab) ** 2).sum(-1)
    np.fill_diagonal(apart, np.inf)
    right = 0
    for row, term in zip(apart, terms, strict=True):
        near = row.argsort()[:9]
        votes = {t: (1 / row[near][terms[near] == t]).sum() for t in set(terms[near])}
        right += max(votes, key=votes.get) == term
    assert 0.88 < right / len(terms) < 0.91


def test_greys_change_their_name_at_two_levels_of_lightness():
    """colour-science 0.4.7 has L* first above 28.28 at level 67 and above 79.65 at 198."""
    wanted = ["black"] * 67 + ["grey"] * (198 - 67) + ["white"] * (256 - 198)
    assert names([[v, v, v] for v in range(256)]) == wanted


def test_every_name_is_given_and_near_colours_mostly_share_it():
    pixels = np.random.default_rng(0).integers(0, 254, (5000, 3))
    assert set(names(pixels)) == set(COLORS)
    same = np.array(names(pixels)) == np.array(names(pixels + 2))
    assert same.mean() > 0.95


def test_lab_is_that_of_the_published_examples():
    """Lindbloom's calculator (sRGB, D65, no adaptation), brucelindbloom.com, two decimals."""
    primaries = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]])
    wanted = [[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]]
    wanted += [[100, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(srgb_to_lab(primaries.astype(np.uint8)), wanted, atol=0.03)
    dark = srgb_to_lab(np.array([1, 1, 1], np.uint8))  # below the kink of both curves
    np.testing.assert_allclose(dark, [903.2963 / 255 / 12.92, 0, 0], atol=1e-4)


def test_each_cell_is_named_by_the_pixel_under_it(whole):
    colours = list(FOCAL)
    image = Image.fromarray(np.array([[FOCAL[c][1] for c in colours]], dtype=np.uint8))
    source = Colors()
    labels = source.label("x", image, whole(13, 3))
    assert labels.shape == (1, 3, 13)
    wanted = [0, *(COLORS.index(c) + 1 for c in colours), 0]
    assert labels[0].tolist() == [[0] * 13, wanted, [0] * 13]
    assert [c.name for c in source.concepts] == list(COLORS)
    assert {c.category for c in source.concepts} == {"color"}


def test_names_do_not_depend_on_the_networks_size():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((480, 360), Image.Resampling.NEAREST)
    half = (0.5,) * 3
    grids = [
        Grid(Preprocessing((size, size), size, "bilinear", half, half), (12, 12))
        for size in (32, 224)
    ]
    one, other = (Colors().label("x", image, grid) for grid in grids)
    np.testing.assert_array_equal(one, other)


def test_the_view_is_reduced_and_never_enlarged():
    assert view(Image.new("RGB", (100, 80))).size == (100, 80)
    assert view(Image.new("RGB", (2000, 1000))).size == (512, 256)
    assert view(Image.new("RGB", (1000, 2000))).size == (256, 512)
    assert view(Image.new("RGB", (60000, 30))).size == (4096, 2)
    assert view(Image.new("RGB", (60000, 1))).size == (4096, 1)


def test_the_words_take_nothing_more():
    assert LABELLED["color"]("color").name == "color"
    assert LABELLED["color"]("color").identity() == {"layout": "color", "version": 1}
    for text in ("color:x", "color?x=1"):
        with pytest.raises(SourceError, match="color takes nothing more"):
            LABELLED["color"](text)
