"""JPEGs of ordinary size: crops of the CamVid street scenes."""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

OFFSETS = (0, 12, 24, 36, 48)


def make_photos(scenes: Path, folder: Path) -> int:
    """Cut five overlapping 432 x 324 crops out of every scene and code them as JPEG.

    Args:
        scenes: Folder of PNGs of 480 x 360 pixels.
        folder: Where the JPEGs go.

    Returns:
        How many there are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(scenes.glob("*.png")):
        with Image.open(path) as image:
            for i, offset in enumerate(OFFSETS):
                box = (offset, offset * 3 // 4, offset + 432, offset * 3 // 4 + 324)
                crop = image.convert("RGB").crop(box)
                crop.save(folder / f"{path.stem}-{i}.jpg", quality=90)
    return len(list(folder.glob("*.jpg")))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", type=Path, metavar="CAMVID/val")
    parser.add_argument("folder", type=Path, metavar="PHOTOS")
    given = parser.parse_args()
    print(make_photos(given.scenes, given.folder), "JPEGs")
