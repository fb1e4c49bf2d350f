"""Exact k-NN against the bare matrix product, and against scikit-learn's brute force."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from benchmarks.harness import command_line, interleaved, median_ratio, save
from featkit.ops.neighbors import nearest_neighbors, unit_rows


def timed(run: Callable[[], object]) -> Callable[[], float]:
    """Return a function that runs once and gives the seconds."""

    def once() -> float:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    return once


def main() -> None:
    """Measure, compare the neighbours, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bank", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--width", type=int, default=1_024)
    parser.add_argument("--k", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    bank = rng.standard_normal((given.bank, given.width), np.float32)
    queries = rng.standard_normal((given.queries, given.width), np.float32)
    units = unit_rows(bank)
    left, right = torch.from_numpy(unit_rows(queries).array), torch.from_numpy(units.array).T
    product = torch.empty(given.queries, given.bank)
    peer = NearestNeighbors(n_neighbors=given.k, algorithm="brute", metric="cosine").fit(bank)
    seconds = interleaved(
        {
            "matrix product": timed(lambda: torch.mm(left, right, out=product)),
            "featkit": timed(lambda: nearest_neighbors(queries, units, given.k, device="cpu")),
            "featkit with fit": timed(
                lambda: nearest_neighbors(queries, bank, given.k, device="cpu")
            ),
            "scikit-learn": timed(lambda: peer.kneighbors(queries)),
        },
        given.repeats,
    )
    ours, rows = nearest_neighbors(queries, units, given.k, device="cpu")
    distances, theirs = peer.kneighbors(queries)
    same = np.mean(
        [
            len(set(a) & set(b)) / given.k
            for a, b in zip(rows.tolist(), theirs.tolist(), strict=True)
        ]
    )
    apart = float(np.abs(ours - (1 - distances)).max())
    to_product = median_ratio(seconds["featkit"], seconds["matrix product"])
    with_fit = median_ratio(seconds["featkit with fit"], seconds["matrix product"])
    faster = median_ratio(seconds["scikit-learn"], seconds["featkit"])
    sized = (
        f"n = {given.bank:,}, q = {given.queries:,}, d = {given.width:,}, k = {given.k}, "
        f"{given.repeats} rounds, seed 0"
    )
    save(
        "neighbors",
        command_line(parser, given),
        [
            {
                "what": "time of a k-NN search over that of the bare matrix product",
                "measured": f"{to_product:.2f}×",
                "target": "≤ 1.25×",
                "met": to_product <= 1.25,
                "sized": f"{sized}; bank normalised once, as fit does",
            },
            {
                "what": "the same, normalising the bank too",
                "measured": f"{with_fit:.2f}×",
                "target": "—",
                "met": None,
                "sized": sized,
            },
            {
                "what": "speed-up over scikit-learn's brute force, cosine",
                "measured": f"{faster:.2f}×",
                "target": "≥ 3.5×",
                "met": faster >= 3.5,
                "sized": f"{sized}; both fitted beforehand",
            },
            {
                "what": "neighbours that scikit-learn finds too",
                "measured": f"{same:.3%}",
                "target": "the same",
                "met": bool(same > 0.999 and apart < 1e-6),
                "sized": f"{sized}; similarities differ by at most {apart:.0e}, so only ties",
            },
        ],
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
