"""Peak memory of an extraction must not depend on the number of images."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.harness import command_line, peak_memory, save

RUN = """
import featkit, itertools, pathlib, sys, tempfile
source, count, store = sys.argv[1:]
files = sorted(pathlib.Path(source).rglob("*.jpg"))[: int(count)]
assert len(files) == int(count)
with tempfile.TemporaryDirectory() as scratch:
    table = pathlib.Path(scratch) / "list.csv"
    table.write_text("path\\n" + "".join(f"{f.relative_to(source)}\\n" for f in files))
    spec = f"{table}?root={source}"
    featkit.extract(
        spec, ["cifar_resnet56?weights=none"], store, precision="fp32",
        taps=["layer1", "layer3", "avgpool"], workers=1,
    )
"""


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, metavar="CIFAR10/train")
    parser.add_argument("--few", type=int, default=1_000)
    parser.add_argument("--many", type=int, default=10_000)
    given = parser.parse_args()
    peaks = {}
    for count in (given.few, given.many):
        with tempfile.TemporaryDirectory() as store:
            folder = str(given.images.resolve())
            peaks[count] = peak_memory(RUN, folder, str(count), f"{store}/store")
    growth = peaks[given.many] / peaks[given.few] - 1
    save(
        "memory",
        command_line(parser, given),
        [
            {
                "what": f"growth of peak memory from {given.few:,} to {given.many:,} images",
                "measured": f"{growth:+.1%}",
                "target": "≤ 5 %",
                "met": growth <= 0.05,
                "sized": "ResNet-56 at 32 px, three taps; peak of the main process",
            }
        ],
        peak_bytes={str(count): peak for count, peak in peaks.items()},
    )


if __name__ == "__main__":
    main()
