"""Few-shot episodes over mapped features, against a loop over the episodes as one writes it first.

With two stores, also the accuracies of their tables.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import featkit
from benchmarks.harness import command_line, interleaved, median_ratio, save
from featkit.analyses.fewshot import FewShot, FewShotConfig
from featkit.ops.few_shot import Episodes, prototype_accuracy, sample_episodes

WAYS, SHOTS, QUERIES, EPISODES = 5, 5, 15, 600
TARGET = 1.0  # seconds


def loop_sample(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw one episode."""
    classes = rng.choice(np.unique(labels), WAYS, replace=False)
    rows = [
        rng.choice(np.flatnonzero(labels == c), SHOTS + QUERIES, replace=False) for c in classes
    ]
    drawn = np.stack(rows)
    return drawn[:, :SHOTS], drawn[:, SHOTS:]


def loop_accuracy(x: np.ndarray, support: np.ndarray, queries: np.ndarray) -> float:
    """Judge one episode."""
    prototypes = x[support].mean(axis=1)
    asked = x[queries].reshape(WAYS * QUERIES, -1)
    distances = ((asked[:, None] - prototypes[None]) ** 2).sum(axis=2)
    return float((distances.argmin(axis=1) == np.repeat(np.arange(WAYS), QUERIES)).mean())


def loop(x: np.ndarray, labels: np.ndarray) -> list[float]:
    """Draw and judge one episode after the other."""
    rng = np.random.default_rng(0)
    return [loop_accuracy(x, *loop_sample(labels, rng)) for _ in range(EPISODES)]


def ours(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Draw and judge all episodes."""
    return prototype_accuracy(x, x, sample_episodes(labels))


def timed(run: Callable[..., object], path: Path, labels: np.ndarray, cold: bool) -> float:
    """Open the features, run once and return the seconds, after the system forgot them if cold."""
    if cold:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    started = time.perf_counter()
    run(np.lib.format.open_memmap(path, "r"), labels)
    return time.perf_counter() - started


def measure(given: argparse.Namespace, folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Time random features in a file; return claims and all times."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(given.rows) % given.classes)
    path = folder / "features.npy"
    written = np.lib.format.open_memmap(path, "w+", np.float32, (given.rows, given.width))
    centres = rng.standard_normal((given.classes, given.width), np.float32)
    written[:] = 4 * rng.standard_normal(written.shape, np.float32) + centres[labels]
    written.flush()
    os.sync()
    del written  # the system does not forget what is mapped
    seconds = interleaved(
        {
            "featkit, warm": lambda: timed(ours, path, labels, cold=False),
            "loop, warm": lambda: timed(loop, path, labels, cold=False),
            "featkit, cold": lambda: timed(ours, path, labels, cold=True),
            "loop, cold": lambda: timed(loop, path, labels, cold=True),
            "sampling alone": lambda: timed(
                lambda _, known: sample_episodes(known), path, labels, cold=False
            ),
        },
        given.repeats,
    )
    x = np.lib.format.open_memmap(path, "r")
    episodes: Episodes = sample_episodes(labels)
    found = prototype_accuracy(x, x, episodes)
    looped = [
        loop_accuracy(x, s, q) for s, q in zip(episodes.support, episodes.queries, strict=True)
    ]
    same = float((found == looped).mean())
    sized = (
        f"{EPISODES} episodes, {WAYS}-way {SHOTS}-shot, {QUERIES} queries; n = {given.rows:,}, "
        f"d = {given.width:,}, {given.classes} classes, float32 in a mapped file, seed 0"
    )
    claims = []
    for state in ("warm", "cold"):
        middle = statistics.median(seconds[f"featkit, {state}"])
        faster = median_ratio(seconds[f"loop, {state}"], seconds[f"featkit, {state}"])
        claims += [
            {
                "what": f"time to draw and judge few-shot episodes, {state}",
                "measured": f"{middle:.2f} s",
                "target": f"< {TARGET:g} s" if state == "warm" else "—",
                "met": middle < TARGET if state == "warm" else None,
                "sized": sized,
            },
            {
                "what": f"speed-up over a loop over the episodes, {state}",
                "measured": f"{faster:.1f}×",
                "target": "—",
                "met": None,
                "sized": sized,
            },
        ]
    claims += [
        {
            "what": "episodes of the same accuracy as in the loop",
            "measured": f"{same:.1%}",
            "target": "100 %",
            "met": same == 1,
            "sized": f"{sized}; mean accuracy {found.mean():.3f}",
        },
    ]
    return claims, {"seconds": seconds}


def judge(train: Path, test: Path) -> list[dict[str, Any]]:
    """Return a claim for every table of two stores."""
    config = FewShotConfig(shots=(1, 5, 10, 50))
    sides = {"train": featkit.open_store(train).tables(), "test": featkit.open_store(test).tables()}
    result = FewShot(config).run(sides)
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in result.tables["accuracy"]:
        rows.setdefault(row["features"], []).append(row)
    return [
        {
            "what": f"`featkit fewshot` of {name}",
            "measured": ", ".join(f"{r['accuracy']:.2%} ± {r['ci95']:.2%}" for r in of_name),
            "target": "—",
            "met": None,
            "sized": f"{', '.join(str(r['shots']) for r in of_name)} shots, {config.ways} ways, "
            f"{config.queries} queries, {config.episodes} episodes; "
            f"{result.scalars['support_images']:,} images to know, "
            f"{result.scalars['query_images']:,} to ask for",
        }
        for name, of_name in rows.items()
    ]


def main() -> None:
    """Measure, judge and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path, nargs="?", metavar="TRAIN", help="store with labels")
    parser.add_argument("test", type=Path, nargs="?", metavar="TEST", help="store with labels")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=2_048)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # /tmp may be memory
        claims, details = measure(given, Path(folder))
    if given.test is not None:
        claims += judge(given.train, given.test)
    save("few_shot", command_line(parser, given), claims, **details)


if __name__ == "__main__":
    main()
