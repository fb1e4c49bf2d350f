"""What one core does a second: decode and cut a photo, hash bytes; the plan at scale needs it."""

from __future__ import annotations

import argparse
import hashlib
import io
import statistics
import time
from collections.abc import Callable

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from benchmarks.harness import command_line, save
from featkit.data.decoding import decode
from featkit.data.preprocessing import Preprocessing

PHOTO = (500, 375)
"""Pixels of a photo as ImageNet has most of them."""


def photo() -> bytes:
    """Return a JPEG of ordinary size, of a photo that scikit-learn brings."""
    file = io.BytesIO()
    Image.fromarray(load_sample_image("china.jpg")).resize(PHOTO).save(file, "JPEG", quality=90)
    return file.getvalue()


def rate(run: Callable[[], object], count: float, repeats: int) -> list[float]:
    """Return how many are done a second of the processor's time, in each repeat."""
    found = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        found.append(count / (time.process_time() - started))
    return found


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=200)
    given = parser.parse_args()
    halves = (0.5,) * 3
    jpeg, cut = photo(), Preprocessing((224, 224), 256, "bilinear", halves, halves)
    noise = np.random.default_rng(0).bytes(2**26)

    def decode_all() -> None:
        for _ in range(given.images):
            cut.pixels(decode(jpeg))

    rates = {
        "images_per_second": rate(decode_all, given.images, given.repeats),
        "hashed_bytes_per_second": rate(
            lambda: hashlib.sha256(noise).hexdigest(), len(noise), given.repeats
        ),
    }
    middle = {name: statistics.median(found) for name, found in rates.items()}
    claims = [
        {
            "what": "photos that one core decodes and cuts to 224 px",
            "measured": f"{middle['images_per_second']:.0f} images/s",
            "target": "—",
            "met": None,
            "sized": f"JPEG of {PHOTO[0]} × {PHOTO[1]}, {len(jpeg) / 1e3:.0f} kB, "
            f"{given.repeats} rounds of {given.images}",
        },
        {
            "what": "bytes that one core hashes (sha256)",
            "measured": f"{middle['hashed_bytes_per_second'] / 1e6:.0f} MB/s",
            "target": "—",
            "met": None,
            "sized": f"{len(noise) / 1e6:.0f} MB in memory, {given.repeats} rounds",
        },
    ]
    save("rates", command_line(parser, given), claims, rates=rates, photo_bytes=len(jpeg))


if __name__ == "__main__":
    main()
