"""Images in rows and columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featkit.analyses.base import Figure, Result
from featkit.report.figures import draw_figures

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
COLOURS = np.array([[RED, GREEN, BLUE], [(255, 255, 0), (0, 255, 255), (255, 0, 255)]])


@pytest.mark.parametrize(("h", "w"), [(4, 4), (60, 20)])
def test_every_picture_is_in_its_row_and_column(tmp_path: Path, h: int, w: int) -> None:
    pictures = np.broadcast_to(COLOURS[:, :, None, None], (2, 3, h, w, 3)).astype(np.uint8)
    arrays = {
        "p": pictures,
        "rows": np.array(["image", "a leaf\nof two lines"]),
        "names": np.array(["cat", "a_very_long_name.png", "dog"]),
    }
    figure = Figure("p", "pictures", "p", "Title", "", "", labels="rows", columns="names")
    (file,) = draw_figures(Result("x", {}, arrays=arrays, figures=[figure]), tmp_path)
    page = np.asarray(Image.open(file).convert("RGB")).astype(int)
    centres = []
    for colour in COLOURS.reshape(-1, 3):
        ys, xs = np.nonzero((np.abs(page - colour) < 2).all(2))
        centres.append((ys.mean(), xs.mean()))
        assert np.ptp(ys) / np.ptp(xs) == pytest.approx(h / w, rel=0.1)
    ys, xs = np.array(centres).reshape(2, 3, 2).transpose(2, 0, 1)
    assert (np.diff(ys, axis=0) > 50).all()
    assert (np.diff(xs, axis=1) > 50).all()
