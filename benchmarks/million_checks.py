"""What other means say of the million rows, and the one step that is no command."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featkit.store.reader import FeatureTable, open_store

BLOCK = 20_000
PAIRS = 200_000


def sampled(table: FeatureTable, _: float) -> dict[str, Any]:
    """Estimate the energy of all rows: the step itself."""
    from featkit.ops.sampled_energy import sample_energy

    found = sample_energy(table.numpy(), rows=np.flatnonzero(table.valid))
    return {name: getattr(found, name) for name in ("mean", "error", "pairs", "rows")}


def pairs(table: FeatureTable, few: float) -> dict[str, Any]:
    """Return the mean energy of pairs drawn one by one, of all rows or of those of the command.

    The command draws ``few`` by a permutation of the valid rows, seed 0.
    """
    rows = np.flatnonzero(table.valid)
    rng = np.random.default_rng(0)
    if few:
        rows = np.sort(rng.permutation(rows)[: int(few)])
    i, j = rng.integers(0, len(rows), (2, PAIRS))
    i, j = rows[i[i != j]], rows[j[i != j]]
    energies = []
    for start in range(0, len(i), BLOCK):
        part = slice(start, start + BLOCK)
        one, other = (_unit(table.numpy()[k[part]]) for k in (i, j))
        energies.append(1 / np.linalg.norm(one - other, axis=1))
    found = np.concatenate(energies)
    return {"mean": found.mean(), "error": found.std() / len(found) ** 0.5, "pairs": len(found)}


def neighbors(table: FeatureTable, _: float) -> dict[str, Any]:
    """Return the accuracy of 20 neighbours of the few, all similarities in float64."""
    few = open_store(table.path.parents[2] / "few")[table.name]
    queries = _unit(few.numpy()[few.valid])
    best = np.full((len(queries), 20), -np.inf)
    labels = np.zeros(best.shape, np.int64)
    valid = np.flatnonzero(table.valid)
    for start in range(0, len(valid), BLOCK):
        rows = valid[start : start + BLOCK]
        near = np.concatenate([best, queries @ _unit(table.numpy()[rows]).T], 1)
        of = np.concatenate(
            [labels, np.broadcast_to(_labels(table)[rows], (len(near), len(rows)))], 1
        )
        kept = np.argpartition(-near, 19, axis=1)[:, :20]
        best, labels = (np.take_along_axis(x, kept, 1) for x in (near, of))
    order = np.argsort(-best, axis=1)
    best, labels = (np.take_along_axis(x, order, 1) for x in (best, labels))
    votes = np.array([_majority(row) for row in labels])
    return {"top1": float((votes == _labels(few)[few.valid]).mean()), "queries": len(queries)}


def _majority(voters: NDArray[np.int64]) -> int:
    """Return the most frequent class; of several the one whose nearest voter comes first."""
    counts = np.bincount(voters)
    return int(next(c for c in voters if counts[c] == counts.max()))


def logistic(table: FeatureTable, penalty: float) -> dict[str, Any]:
    """Return scikit-learn's accuracy, learned from 50,000 rows at most with the same penalty."""
    from sklearn.linear_model import LogisticRegression

    test = open_store(table.path.parents[2] / "test")[table.name]
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(table.valid))[:50_000]
    rows = np.sort(drawn)
    share = len(rows) / table.valid.sum()
    model = LogisticRegression(C=1 / (penalty * share), tol=1e-3, max_iter=100)
    model.fit(table.numpy()[rows], _labels(table)[rows])
    top1 = model.score(test.numpy()[test.valid], _labels(test)[test.valid])
    return {"top1": float(top1), "rows": len(rows)}


def _labels(table: FeatureTable) -> NDArray[np.int64]:
    assert table.labels is not None
    return table.labels


def _unit(rows: NDArray[Any]) -> NDArray[np.float64]:
    wide: NDArray[np.float64] = rows.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


CHECKS: dict[str, Callable[[FeatureTable, float], dict[str, Any]]] = {
    check.__name__: check for check in (sampled, pairs, neighbors, logistic)
}

if __name__ == "__main__":
    first = open_store(Path(sys.argv[3]))["one"]
    print(json.dumps(CHECKS[sys.argv[2]](first, float(sys.argv[4]))))
