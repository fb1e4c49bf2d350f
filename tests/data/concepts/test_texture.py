"""Textures: gratings and blurred edges, whose measures have closed forms."""

import numpy as np
import pytest
from PIL import Image
from scipy.special import erf

from featkit.data.concepts.sources import LABELLED
from featkit.data.concepts.texture import FOCUS, ORIENTATIONS, Textures, edge_measures

NAMES = (None, *ORIENTATIONS, *FOCUS)
Y, X = np.mgrid[:128, :128].astype(float)


def across(degrees):
    """Distance of each pixel from a line through the middle, that rises by so many degrees."""
    t = np.deg2rad(degrees)
    return (X - 63.5) * np.sin(t) + (Y - 63.5) * np.cos(t)  # rows count downwards


def grating(degrees, wavelength, contrast=60):
    return 128 + contrast * np.sin(2 * np.pi * across(degrees) / wavelength)


def step(degrees, width, contrast=60):
    return 128 + contrast * erf(across(degrees) / (np.sqrt(2) * width))


def labels(grey, whole):
    image = Image.fromarray(np.rint(grey).clip(0, 255).astype(np.uint8)).convert("RGB")
    orientation, focus = Textures().label("x", image, whole(*image.size))
    middle = (slice(32, 96), slice(32, 96))
    return (
        {NAMES[i] for i in np.unique(orientation[middle])},
        {NAMES[i] for i in np.unique(focus[middle])},
    )


@pytest.mark.parametrize(
    ("degrees", "name"),
    [
        (0, "horizontal"),
        (20, "horizontal"),
        (25, "rising"),
        (45, "rising"),
        (70, "vertical"),
        (90, "vertical"),
        (110, "vertical"),
        (135, "falling"),
        (160, "horizontal"),
        (155, "falling"),
    ],
)
def test_gratings_have_the_orientation_of_their_lines(degrees, name, whole):
    assert labels(grating(degrees, 9), whole)[0] == {name}


@pytest.mark.parametrize("degrees", range(0, 180, 15))
@pytest.mark.parametrize("wavelength", [6, 10])
def test_the_angle_of_a_grating(degrees, wavelength):
    energy, angle, coherence, _ = (
        each[40:88, 40:88] for each in edge_measures(grating(degrees, wavelength))
    )
    apart = np.abs((np.rad2deg(angle) - degrees + 90) % 180 - 90)
    assert apart.max() < 1
    assert coherence.min() > 0.99
    # mean square of the derivative, damped by the Gaussian of 1 pixel
    k = 2 * np.pi / wavelength
    np.testing.assert_allclose(energy.mean(), 60**2 / 2 * k**2 * np.exp(-(k**2)), rtol=0.03)


@pytest.mark.parametrize("degrees", [0, 30, 90, 135])
@pytest.mark.parametrize("width", [0.8, 1.5, 2.5])
def test_the_width_of_a_blurred_edge_is_measured(degrees, width):
    """Where the window sees the whole edge, ∫ g² / ∫ l² is 2 (s² + 1) exactly."""
    got = edge_measures(step(degrees, width))[3]
    on_edge = np.abs(across(degrees)) < 0.8
    centre = on_edge & (np.hypot(X - 63.5, Y - 63.5) < 30)
    # the window weighs the middle of the edge more, where l is small, so wide edges look wider
    assert width - 0.05 < np.median(got[centre]) < 1.3 * width


def test_a_wide_window_gives_the_closed_form(monkeypatch):
    monkeypatch.setattr("featkit.data.concepts.texture._WINDOW", 15.0)
    for width in (0.8, 1.5, 2.5):
        got = edge_measures(step(90, width))[3][64, 64]
        assert got == pytest.approx(width, rel=0.03)


@pytest.mark.parametrize(
    ("grey", "focus"),
    [
        (step(90, 0.3), {"sharp"}),
        (step(20, 4), {"blurred"}),
        (grating(60, 5), {"sharp"}),
        (grating(60, 24), {"blurred"}),
    ],
    ids=["sharp edge", "soft edge", "fine grating", "coarse grating"],
)
def test_sharp_and_blurred(grey, focus, whole):
    assert labels(grey, whole)[1] - {None} == focus


def test_blurring_an_image_blurs_its_labels(whole):
    """Metamorphic: noise is sharp, and blurred by 4 pixels it is blurred, with equal contrast."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(0).normal(size=(128, 128))
    soft = gaussian_filter(noise, 4)
    soft = 128 + 40 * soft / soft.std()
    assert labels(128 + 40 * noise, whole)[1] == {"sharp"}
    assert "blurred" in labels(soft, whole)[1]
    assert "sharp" not in labels(soft, whole)[1]


def test_flat_and_faint_images_are_unlabelled(whole):
    assert labels(np.full((128, 128), 77.0), whole) == ({None}, {None})
    assert labels(grating(45, 9, contrast=3), whole) == ({None}, {None})
    for each in edge_measures(np.full((8, 8), 77.0)):
        assert np.isfinite(each).all()


def test_noise_has_no_orientation(whole):
    noise = np.random.default_rng(0).normal(128, 40, (128, 128))
    image = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).convert("RGB")
    orientation, _ = Textures().label("x", image, whole(128, 128))
    assert (orientation > 0).mean() < 0.1


def test_brightness_does_not_matter_and_contrast_only_for_the_energy():
    grey = grating(30, 8) + step(120, 2)
    before, after = edge_measures(grey), edge_measures(2 * grey + 31)
    np.testing.assert_allclose(after[0], 4 * before[0], rtol=1e-6)
    for one, other in zip(before[1:], after[1:], strict=True):
        np.testing.assert_allclose(one, other, atol=0.01)


def test_concepts_and_identity():
    source = LABELLED["texture"]("texture")
    assert [c.name for c in source.concepts] == list(NAMES[1:])
    assert {c.category for c in source.concepts} == {"texture"}
    assert source.identity() == {"layout": "texture", "version": 1}
    source.check(["anything"])
