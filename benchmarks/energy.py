"""Hyperspherical energy against the matrix product, against SciPy's distances, and its memory."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import pdist  # type: ignore[import-untyped]

import featkit
from benchmarks.harness import command_line, interleaved, median_ratio, peak_memory, save
from featkit.ops.hyperspherical_energy import hyperspherical_energy

RUN = """
import sys
import numpy as np
from featkit.ops.hyperspherical_energy import hyperspherical_energy
rows, width, wanted = map(int, sys.argv[1:])
few = np.random.default_rng(0).standard_normal((3000, width), np.float32)
hyperspherical_energy(few)  # what libraries take when they are first used
x = np.random.default_rng(0).standard_normal((rows, width), np.float32) if wanted else None
if wanted == 2:
    hyperspherical_energy(x)
"""


LAYERS = ("resnet20/conv1", "efficientnet_lite1/bn1")
"""To agree on: average-pooled first layers, whose features nearly coincide."""

IMAGES = 4000


def timed(run: Callable[[], object]) -> Callable[[], float]:
    """Return a function that runs once and gives the seconds."""

    def once() -> float:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    return once


def by_pdist(x: np.ndarray) -> float:
    """Return the mean energy from SciPy's distances."""
    wide = x.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return float((1 / pdist(wide)).mean())


def agreement(store: Path) -> list[dict[str, Any]]:
    """Return a claim for each of some layers: the error of its mean energy, averaged over maps."""
    claims = []
    for name in LAYERS:
        table = featkit.open_store(store)[name]
        features = table.numpy()[:IMAGES].mean((2, 3), dtype=np.float32)
        error = abs(hyperspherical_energy(features) / by_pdist(features) - 1)
        units = features.astype(np.float64)
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        cosines = (units @ units.T)[np.triu_indices(len(units), 1)]
        claims.append(
            {
                "what": "relative error of the mean energy against float64 distances, "
                f"{table.backbone}/{table.tap}",
                "measured": f"{error:.0e}",
                "target": "≤ 1e-6",
                "met": bool(error <= 1e-6),
                "sized": f"average-pooled, {len(features):,} images, median cosine "
                f"{np.median(cosines):.4f}, {(cosines > 0.999).mean():.2%} of pairs above 0.999, "
                f"the nearest at 1 - {1 - cosines.max():.0e}",
            }
        )
    return claims


def main() -> None:
    """Measure, compare, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "store", type=Path, metavar="STORE", help=f"with maps of {', '.join(LAYERS)}, to agree on"
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--pdist-rows", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    # first, since a process is born with the peak of its parent
    peaks = [peak_memory(RUN, str(given.rows), str(given.width), str(w)) for w in (0, 1, 2)]
    x = np.random.default_rng(0).standard_normal((given.rows, given.width), np.float32)
    part = x[: given.pdist_rows]
    left = torch.from_numpy(x[:4096])
    right = torch.from_numpy(x).T.contiguous()
    product = torch.empty(len(left), right.shape[1])
    operations = 2 * len(left) * given.rows * given.width
    seconds = interleaved(
        {
            "matrix product": timed(lambda: torch.mm(left, right, out=product)),
            "energy": timed(lambda: hyperspherical_energy(x)),
        },
        given.repeats,
    )
    against = interleaved(
        {
            "pdist": timed(lambda: by_pdist(part)),
            "energy": timed(lambda: hyperspherical_energy(part)),
        },
        1,
    )
    needed = given.rows**2 * given.width  # half of the product of all rows with all rows
    share = needed / operations / median_ratio(seconds["energy"], seconds["matrix product"])
    rate = operations / float(np.median(seconds["matrix product"])) / 1e9
    faster = median_ratio(against["pdist"], against["energy"])
    memory = (peaks[2] - peaks[0]) / x.nbytes
    threads = f"{torch.get_num_threads()} thread(s)"
    sized = f"n = {given.rows:,}, d = {given.width}, s = 1, {given.repeats} rounds, {threads}"
    save(
        "energy",
        command_line(parser, given),
        [
            {
                "what": "arithmetic rate of the energy over that of a matrix product",
                "measured": f"{share:.0%}",
                "target": "≥ 60 %",
                "met": share >= 0.6,
                "sized": f"{sized}; the product runs at {rate:.0f} GFLOP/s",
            },
            {
                "what": "peak memory of an energy, the input included, over the input",
                "measured": f"{memory:.2f}×",
                "target": "< 1.5×",
                "met": memory < 1.5,
                "sized": sized,
            },
            {
                "what": "speed-up of the energy over scipy's pdist and a sum",
                "measured": f"{faster:.1f}×",
                "target": "≥ 10×",
                "met": faster >= 10,
                "sized": f"n = {given.pdist_rows:,}, d = {given.width}, s = 1, {threads}",
            },
            *agreement(given.store),
        ],
        seconds=seconds,
        against=against,
        peak_bytes=peaks,
    )


if __name__ == "__main__":
    main()
