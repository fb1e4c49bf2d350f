"""Neighbours of learned ensembles, of their models, and of average and concatenation."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import featkit
from benchmarks.harness import command_line, save
from featkit.ops.combine import combine
from featkit.ops.neighbors import nearest_neighbors
from featkit.ops.votes import majority_vote

K = (1, 5, 20, 200)


def accuracies(
    bank: NDArray[Any], queries: NDArray[Any], labels: tuple[NDArray[Any], NDArray[Any]]
) -> list[float]:
    """Return the share of queries that a majority of k neighbours classifies right, for each k."""
    similarities, rows = nearest_neighbors(queries, bank, max(K))
    votes = majority_vote(similarities, labels[0][rows], int(labels[0].max()) + 1, K)
    return [float((votes[k] == labels[1]).mean()) for k in K]


def claim(what: str, values: list[float], sized: str) -> dict[str, Any]:
    """Return a row of the table of benchmarks."""
    shown = ", ".join(f"{value:.2%}" for value in values)
    return {"what": what, "measured": shown, "target": "—", "met": None, "sized": sized}


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path, metavar="TRAIN", help="store with labels")
    parser.add_argument("test", type=Path, metavar="TEST", help="store with labels")
    parser.add_argument("--models", default="resnet20,resnet32,resnet44,resnet56")
    parser.add_argument("--preset", default="paper-stable")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    stores = featkit.open_store(given.train), featkit.open_store(given.test)
    labels = tuple(np.asarray(store.samples.labels) for store in stores)
    names = given.models.split(",")
    bank, queries = ([store[name].numpy() for name in names] for store in stores)
    sized = f"k = {', '.join(map(str, K))}; {len(bank[0]):,} bank, {len(queries[0]):,} queries"
    together = " + ".join(names)
    rows = [
        claim(f"neighbours of {name}", accuracies(a, b, labels), sized)  # type: ignore[arg-type]
        for name, a, b in zip(names, bank, queries, strict=True)
    ]
    for how in ("average", "concat") if len(names) > 1 else ():
        if len({x.shape[1] for x in bank}) > 1 and how == "average":
            continue
        found = accuracies(combine(bank, how), combine(queries, how), labels)  # type: ignore[arg-type]
        rows.append(claim(f"neighbours of {together}, {how}", found, sized))
    for seed in range(given.seeds):
        started = time.perf_counter()
        ensemble = featkit.EnsembleRepresentation.from_preset(given.preset, random_state=seed)
        psi = ensemble.fit_transform(bank)
        found = accuracies(psi, ensemble.transform(queries), labels)  # type: ignore[arg-type]
        recovery = {name: np.mean(values) for name, values in ensemble.recovery_.items()}
        reached = ", ".join(f"{value:.3f}" for value in recovery.values())
        rows.append(
            claim(
                f"neighbours of {together}, ensemble ({given.preset}, seed {seed})",
                found,
                f"{sized}; recovery after warm-up, at the end, of queries: {reached}",
            )
        )
        print(f"seed {seed}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    save(f"ensemble_knn_{len(names)}", command_line(parser, given), rows)


if __name__ == "__main__":
    main()
