"""Few-shot episodes over mapped features, against a loop over the episodes as one writes it first.

With two stores, also the accuracies of their tables, each episode held against scikit-learn's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.neighbors import NearestCentroid

import featkit
from benchmarks.harness import command_line, interleaved, median_ratio, save
from featkit.analyses.fewshot import FewShot, FewShotConfig
from featkit.ops.few_shot import Episodes, prototype_accuracy, sample_episodes
from featkit.store.reader import FeatureTable

WAYS, SHOTS, QUERIES, EPISODES = 5, 5, 15, 600
TARGET = 1.0  # seconds
HELD_AGAINST = (1, 5)  # shots at which scikit-learn judges the episodes too
NOISE = 8.0  # standard deviations of the classes' means, for accuracies far from 0 and 1


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
    written[:] = NOISE * rng.standard_normal(written.shape, np.float32) + centres[labels]
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


def judge(
    sides: dict[str, list[FeatureTable]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a claim for every table of two stores, and how their episodes agree."""
    config = FewShotConfig(shots=(1, 5, 10, 50))
    result = FewShot(config).run(sides)
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in result.tables["accuracy"]:
        rows.setdefault(row["features"], []).append(row)
    claims = [
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
    labels = [tables[0].labels for tables in sides.values()]
    episodes = sample_episodes(
        *labels,
        ways=config.ways,
        shots=max(config.shots),
        queries=config.queries,
        episodes=config.episodes,
        generator=config.seed,
    )
    agreed = []
    for name, train, test in zip(rows, sides["train"], sides["test"], strict=True):
        for shots in HELD_AGAINST:
            theirs = by_centroids(train.numpy(), test.numpy(), episodes.with_shots(shots))
            found = result.arrays[f"episodes/{name}/s{shots}"]
            agreed.append(
                {
                    "features": name,
                    "shots": shots,
                    "accuracy": float(found.mean()),
                    "same": int((found == theirs).sum()),
                    "most_apart": float(abs(found - theirs).max()),
                }
            )
    return [*claims, agreement(agreed)], agreed


def by_centroids(train: np.ndarray, test: np.ndarray, episodes: Episodes) -> np.ndarray:
    """Judge one episode after the other with scikit-learn's nearest centroid, in float64."""
    found = []
    for support, queries in zip(episodes.support, episodes.queries, strict=True):
        ways = np.arange(len(support))
        known = train[support.ravel()].astype(np.float64)
        asked = test[queries.ravel()].astype(np.float64)
        with warnings.catch_warnings():  # of standard deviations, which it does not use
            warnings.simplefilter("ignore")
            fitted = NearestCentroid().fit(known, ways.repeat(support.shape[1]))
        found.append((fitted.predict(asked) == ways.repeat(queries.shape[1])).mean())
    return np.array(found)


def agreement(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the claim that scikit-learn finds the same accuracy in every episode."""
    same, asked = sum(row["same"] for row in rows), EPISODES * len(rows)
    accuracies = [row["accuracy"] for row in rows]
    apart = max(row["most_apart"] for row in rows) * WAYS * QUERIES
    return {
        "what": "episodes of the same accuracy as with scikit-learn's NearestCentroid",
        "measured": f"{same / asked:.2%} ({same:,} of {asked:,})",
        "target": "100 %",
        "met": same == asked,
        "sized": f"{len(rows) // len(HELD_AGAINST)} tables, {WAYS}-way, "
        f"{' and '.join(map(str, HELD_AGAINST))} shots, {QUERIES} queries; mean accuracies "
        f"{min(accuracies):.1%} to {max(accuracies):.1%}; at most {apart:.0f} of "
        f"{WAYS * QUERIES} queries apart",
    }


def chosen(store: Path, models: str | None) -> list[FeatureTable]:
    """Return the tables of a store whose backbones match one of some patterns."""
    tables = featkit.open_store(store).tables()
    if models is None:
        return tables
    patterns = models.split(",")
    return [
        table for table in tables if any(fnmatch(table.backbone, pattern) for pattern in patterns)
    ]


def main() -> None:
    """Measure, judge and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path, nargs="?", metavar="TRAIN", help="store with labels")
    parser.add_argument("test", type=Path, nargs="?", metavar="TEST", help="store with labels")
    parser.add_argument(
        "--models", metavar="NAME,…", help="backbones of the stores, * for any letters; all if none"
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=2_048)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # /tmp may be memory
        claims, details = measure(given, Path(folder))
    if given.test is not None:
        sides = {"train": given.train, "test": given.test}
        judged, details["agreement"] = judge(
            {side: chosen(store, given.models) for side, store in sides.items()}
        )
        claims += judged
    save("few_shot", command_line(parser, given), claims, **details)


if __name__ == "__main__":
    main()
