"""Time of a row of an ensemble over the size of the bank, in memory and mapped."""

from __future__ import annotations

import argparse
import functools
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import featkit
from benchmarks.harness import command_line, interleaved, median_ratio, save
from featkit.analyses.ensemble.learning import Learner
from featkit.analyses.ensemble.space import Space
from featkit.analyses.ensemble.targets import Targets
from featkit.ops.mappers import Mappers

SIZES = (10_000, 100_000, 1_000_000)
WIDTH, MODELS, BATCH, STEPS, STARTED = 128, 4, 256, 100, 4000


def write_features(path: Path, rows: int, seed: int) -> np.ndarray[Any, Any]:
    """Return random rows, mapped."""
    mapped = np.lib.format.open_memmap(path, "w+", np.float32, (rows, WIDTH))
    rng = np.random.default_rng(seed)
    for start in range(0, rows, 10_000):
        mapped[start : start + 10_000] = rng.random((10_000, WIDTH), np.float32)
    mapped.flush()
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


def learner(features: list[np.ndarray[Any, Any]], space: Space) -> Learner:
    """Return one at its start."""
    targets = Targets(features)
    start = space.zeros(len(targets), WIDTH)
    targets.average(start)
    torch.manual_seed(0)
    mappers = Mappers(WIDTH, targets.widths, targets.non_negative)
    settings = featkit.EnsembleRepresentation(batch_size=BATCH).settings()
    made = Learner(targets, start, mappers, settings, space.zeros)
    # as in the middle of training: every row was touched, and has missed steps
    made.bank.steps = 2 * STARTED
    made.bank.last.random_(STARTED, 2 * STARTED)
    made.bank.first.fill_(1e-5)
    made.bank.second.fill_(1e-9)
    return made


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        features = [write_features(Path(folder) / f"{j}.npy", SIZES[-1], j) for j in range(MODELS)]
        learners = {
            f"{rows:,}": learner([x[:rows] for x in features], Space(None)) for rows in SIZES
        }
        learners[f"{SIZES[-1]:,} mapped"] = learner(features, Space(0, folder))
        orders = {
            name: itertools.cycle(torch.split(torch.randperm(len(one.targets)), BATCH)[:-1])
            for name, one in learners.items()
        }

        def run(name: str) -> float:
            started = time.perf_counter()
            for _ in range(STEPS):
                learners[name].step(next(orders[name]), moves=True)
            return (time.perf_counter() - started) / (STEPS * BATCH) * 1e6

        figures = interleaved(
            {name: functools.partial(run, name) for name in learners}, given.repeats
        )
    smallest = figures[f"{SIZES[0]:,}"]
    sized = (
        f"d = {WIDTH}, m = {MODELS}, batch {BATCH}, both φ and ψ learning, {STEPS} steps a round"
    )
    claims = [
        {
            "what": f"time of a row of an ensemble, bank of {name}",
            "measured": f"{np.median(times):.1f} µs, {median_ratio(times, smallest):.2f}× that of "
            f"{SIZES[0]:,}",
            "target": "the same" if name != f"{SIZES[0]:,}" else "—",
            "met": bool(median_ratio(times, smallest) < 1.25) if times is not smallest else None,
            "sized": sized,
        }
        for name, times in figures.items()
    ]
    save("ensemble_scale", command_line(parser, given), claims, microseconds=figures)


if __name__ == "__main__":
    main()
