"""The page of a dissection."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from featkit.analyses.base import Result
from featkit.analyses.dissect.gallery import SIDE, Gallery
from featkit.errors import UsageError
from featkit.report.dissection import OUTLINE, draw_strip, outlined, write_page


def gallery() -> Gallery:
    """Unit 0 has two images, unit 1 one, unit 2 none; regions of 4 × 4 cells."""
    made = Gallery((4, 4), np.array([[3, 5], [5, -1], [-1, -1]]))
    for row in (3, 5):
        made.keep(row, f"a<{row}>.jpg", np.full((64, 64, 3), 40 * row, np.uint8))
    left = np.zeros((4, 4), bool)
    left[:, :2] = True
    made.mark(0, 0, left.ravel())
    made.mark(0, 1, ~left.ravel())
    made.mark(1, 0, np.zeros(16, bool))
    return made


def result() -> Result:
    rows = [
        {"unit": 0, "concept": "<b>", "category": "object", "iou": 0.3, "active": 0.01,
         "detector": True, "confidence": 0.9, "above_category": False},
        {"unit": 1, "concept": "red", "category": "color", "iou": 0.01, "active": 0.01,
         "detector": False, "confidence": 0.5, "above_category": True},
        {"unit": 2, "concept": "", "category": "", "iou": 0.0, "active": 0.0,
         "detector": False, "confidence": 1.0, "above_category": False},
    ]  # fmt: skip
    return Result(
        "dissect",
        {
            "tap": "layer4",
            "min_iou": 0.04,
            "variant": "dissect",
            "concepts": ["color"],
            "chance": 3,
            "draws": 9,
        },
        {
            "detectors": 1,
            "units": 3,
            "unique_concepts": 1,
            "images": 6,
            "chance_iou": 0.2,
            "chance_iou_least": 0.1,
            "chance_iou_largest": 0.31,
        },
        {"units": rows, "categories": [{"category": "object", "units": 1, "ratio": None}]},
        provenance={
            "backbone": {"name": "net"},
            "preprocessing": {"size": [64, 48], "resize": 72},
        },
        notes=["a & b"],
    )


def test_the_region_is_outlined_and_all_else_darker() -> None:
    image = np.full((40, 40, 3), 100, np.uint8)
    region = np.zeros((4, 4), bool)
    region[1:3, 1:3] = True  # pixels 10 to 29
    drawn = outlined(image, region)
    assert (drawn[15:25, 15:25] == 100).all()
    assert (drawn[:10] < 100).all()
    edge = (drawn == OUTLINE).all(2)
    assert edge[10, 10:30].all()
    assert edge[29, 10:30].all()
    assert not edge[12:28, 12:28].any()
    assert edge.sum() == 20**2 - 16**2
    assert not (outlined(image, np.zeros((4, 4), bool)) == OUTLINE).all(2).any()


def test_a_strip_has_the_images_side_by_side() -> None:
    strip = draw_strip(gallery(), 0)
    assert strip is not None
    assert strip.shape == (SIDE, 2 * SIDE + 4, 3)  # small images are made larger
    assert abs(int(strip[80, 25, 0]) - 120) <= 2  # in the region
    assert int(strip[80, 125, 0]) < 90  # outside of it
    assert abs(int(strip[80, SIDE + 4 + 125, 0]) - 200) <= 2
    assert draw_strip(gallery(), 2) is None


def test_large_images_are_made_smaller() -> None:
    made = Gallery((2, 2), np.array([[0]]))
    made.keep(0, "x", np.zeros((400, 200, 3), np.uint8))
    made.mark(0, 0, np.ones(4, bool))
    strip = draw_strip(made, 0)
    assert strip is not None
    assert strip.shape == (SIDE, SIDE // 2, 3)


def test_a_page_shows_every_unit_and_escapes_names(tmp_path) -> None:
    (tmp_path / "units").mkdir()
    (tmp_path / "units" / "unit-00009.jpg").write_bytes(b"old")
    (tmp_path / "units" / "mine.txt").write_text("mine")
    page = write_page(result(), gallery(), tmp_path).read_text("utf-8")
    assert {file.name for file in (tmp_path / "units").iterdir()} == {
        "unit-00000.jpg",
        "unit-00001.jpg",
        "mine.txt",
    }
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "a&lt;3&gt;.jpg, a&lt;5&gt;.jpg" in page
    assert "a &amp; b" in page
    assert page.count("<div class='unit") == 3
    assert page.index("unit 0:") < page.index("no concept") < page.index("unit 1:")
    assert "<div class='unit chance'><img loading=lazy src='units/unit-00000.jpg'" in page
    assert "unit 2: active nowhere" in page
    assert "units of 3 random networks stay below 0.200 (0.100 to 0.310 by network)" in page
    assert "resized to a shorter side of 72 pixels, of which the central 48 × 64 are" in page
    assert "in which it keeps its label; levels stay as they are" in page
    assert "1 of 3 units detect 1 concept with IoU above 0.04, over 6 images" in page


def test_a_folder_that_cannot_be_written_to(tmp_path) -> None:
    (tmp_path / "units").write_text("a file")
    with pytest.raises(UsageError, match="cannot write the page"):
        write_page(result(), gallery(), tmp_path)


FULL = """
import resource, signal, sys
import numpy as np
from featkit.errors import UsageError
from featkit.report.dissection import write_page
from tests.report.test_dissection import gallery, result
made = gallery()
made.keep(7, "noise", np.random.default_rng(0).integers(0, 255, (160, 160, 3), np.uint8))
made.rows[1] = [7, -1]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
try:
    write_page(result(), made, sys.argv[1])
except UsageError as error:
    sys.exit(str(error))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs limits of the system")
def test_a_page_that_cannot_be_finished_leaves_no_half_of_it(tmp_path) -> None:
    """The system refuses to write more than 5,000 bytes: the second picture."""
    (tmp_path / "index.html").write_text("old")
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr.startswith(f"cannot write the page to {tmp_path} (File too large)")
    assert {path.name for path in tmp_path.rglob("*")} == {"units", "unit-00000.jpg"}
    with Image.open(tmp_path / "units" / "unit-00000.jpg") as picture:
        picture.load()
