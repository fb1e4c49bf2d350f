"""What the tests of concepts share: one grid, and files written by Pillow."""

import numpy as np
import pytest
from PIL import Image

from featkit.data.concepts.grid import Grid
from featkit.data.preprocessing import Preprocessing


@pytest.fixture
def whole():
    """``whole(width, height)``: every pixel of an image of that size is a cell."""

    def grid(width, height):
        recipe = Preprocessing((height, width), None, "bilinear", (0.5,) * 3, (0.5,) * 3)
        return Grid(recipe, (height, width))

    return grid


@pytest.fixture
def named(whole):
    """``named(source, sample, w, h)``: a set of (name, category) for each pixel, row by row."""

    def read(source, sample, width, height):
        image = Image.new("RGB", (width, height))
        labels = source.label(sample, image, whole(width, height))
        assert labels.dtype == np.int32
        assert labels.shape[1:] == (height, width)
        concepts = [None, *((c.name, c.category) for c in source.concepts)]
        return [
            [{concepts[i] for i in pixel if i} for pixel in row]
            for row in np.moveaxis(labels, 0, -1).tolist()
        ]

    return read
