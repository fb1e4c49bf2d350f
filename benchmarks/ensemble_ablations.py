"""What each setting of an ensemble changes: the studies of the paper's sections 4 to 6.

Every row is learned on the same part of TRAIN and judged twice: by the rest of TRAIN, from which
presets are chosen, and by TEST, which chooses nothing.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import featkit
from benchmarks.harness import command_line, save
from featkit.ops.combine import combine
from featkit.ops.neighbors import Floats, nearest_neighbors
from featkit.ops.votes import majority_vote

Accuracies = dict[str, dict[str, float]]

K = (1, 5, 20, 200)

ABLATIONS: dict[str, dict[str, Any]] = {
    "paper-stable": {},
    "seed 1": {"random_state": 1},
    "seed 2": {"random_state": 2},
    "paper (last bias as torch starts it)": {"last_bias": "usual"},
    "last layer linear": {"last_layer": "linear"},
    **{f"depth {depth}": {"depth": depth} for depth in (1, 3, 4, 6, 8)},
    "depth 6, weight decay 1e-6": {"depth": 6, "weight_decay": 1e-6},
    **{f"hidden {hidden}": {"hidden": hidden} for hidden in (16, 256, 512)},
    **{f"warm-up {share:.0%}": {"warmup": share} for share in (0.0, 0.25, 0.75, 1.0)},
    **{f"weight decay {decay:g}": {"weight_decay": decay} for decay in (1e-6, 1e-4)},
    **{f"L1 {l1:g}": {"l1": l1} for l1 in (1e-4, 1e-3, 1e-2)},
    "ψ at 0 and above": {"non_negative": True},
    **{f"learning rate {lr:g}": {"lr": lr} for lr in (1e-4, 1e-3, 3e-3)},
    **{
        f"batch {size:,}, learning rate × {size / 256:g}": {
            "batch_size": size,
            "lr": 3e-4 * size / 256,
        }
        for size in (64, 1024, 4096)
    },
    "bank found anew": {"bank": "refit"},
    "Adam for each row": {"optimizer": "row"},
    "Adam for each row, its learning rate × 10": {"optimizer": "row", "representation_lr": 3e-3},
    "20 epochs": {"epochs": 20},
    "100 epochs": {"epochs": 100},
}


class Sides:
    """A part of TRAIN to learn from, and two sets of queries.

    Args:
        given: The command's arguments.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        stores = featkit.open_store(given.train), featkit.open_store(given.test)
        train, test = (
            [store[name].numpy() for name in given.models.split(",")] for store in stores
        )
        labels, wanted = (np.asarray(store.samples.labels) for store in stores)
        order = np.random.default_rng(0).permutation(len(labels))
        bank, held_out = order[: given.bank], order[given.bank :][: given.held_out]
        self.bank, self.labels = [x[bank] for x in train], labels[bank]
        self.queries = {
            "held-out": ([x[held_out] for x in train], labels[held_out]),
            "test": (test, wanted),
        }

    def judge(self, bank: Floats, represent: Callable[[Sequence[Floats]], Floats]) -> Accuracies:
        """Return the accuracy of each set of queries for each k."""
        found: Accuracies = {}
        for name, (models, wanted) in self.queries.items():
            similarities, rows = nearest_neighbors(represent(models), bank, max(K))
            classes = int(self.labels.max()) + 1
            votes = majority_vote(similarities, self.labels[rows], classes, K)
            found[name] = {str(k): float((votes[k] == wanted).mean()) for k in K}
        return found

    def judge_learned(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Fit with settings, and return what was reached and how long it took."""
        started = time.perf_counter()
        ensemble = featkit.EnsembleRepresentation(**changes)
        psi = ensemble.fit_transform(self.bank)
        found = self.judge(psi, ensemble.transform)
        start = ensemble.start(self.bank)
        moved = np.linalg.norm(psi - start, axis=1) / np.linalg.norm(start, axis=1)
        return {
            "settings": changes,
            "top1": found,
            "recovery": {stage: float(np.mean(x)) for stage, x in ensemble.recovery_.items()},
            "moved": float(np.median(moved)),
            "seconds": time.perf_counter() - started,
        }


def widths(sizes: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Return the settings of a start from the principal components, up to all there are."""
    one = max(sizes)
    return {
        f"{int(share * one)} principal components" + (" (best)" if share == 1 else ""): {
            "width": int(share * one),
            "init": "pca",
        }
        for share in (0.25, 0.5, 1, 2, 4)
        if share * one <= sum(sizes)
    }


def percent(accuracies: dict[str, float]) -> str:
    """Return the accuracies of one set of queries."""
    return ", ".join(f"{value:.2%}" for value in accuracies.values())


def main() -> None:
    """Fit one ensemble a setting, judge and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of the models together")
    parser.add_argument("train", type=Path, metavar="TRAIN", help="store with labels")
    parser.add_argument("test", type=Path, metavar="TEST", help="store with labels")
    parser.add_argument("--models", required=True, help="selectors, with commas between")
    parser.add_argument(
        "--work", type=Path, metavar="WORK", required=True, help="keeps what is done"
    )
    parser.add_argument("--bank", type=int, default=40_000, help="images of TRAIN to learn from")
    parser.add_argument("--held-out", type=int, default=10_000, help="other images of TRAIN")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--only", help="a regular expression for the rows that are wanted")
    given = parser.parse_args()
    sides = Sides(given)
    kept = given.work / f"ablations-{given.name}.json"
    done: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    if not done:
        for how in ("average", "concat") if len(sides.bank) > 1 else ("average",):
            joined = functools.partial(combine, how=how)
            done[how] = {"top1": sides.judge(joined(sides.bank), joined)}
    rows = ABLATIONS | widths([x.shape[1] for x in sides.bank])
    for what, changes in rows.items():
        if what not in done and re.search(given.only or "", what):
            done[what] = sides.judge_learned(changes | {"precision": given.precision})
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(json.dumps(done))
            print(f"{what}: {done[what]}", file=sys.stderr)
    claims = []
    done = {what: done[what] for what in ("average", "concat", *rows) if what in done}
    for what, row in done.items():
        sized = f"held-out: {percent(row['top1']['held-out'])}"
        if "recovery" in row:
            reached = ", ".join(f"{x:.3f}" for x in row["recovery"].values())
            sized += f"; recovery {reached}; moved by {row['moved']:.0%}"
        claims.append(
            {
                "what": f"ablation, {given.name}: {what}",
                "measured": percent(row["top1"]["test"]),
                "target": "—",
                "met": None,
                "sized": sized,
            }
        )
    save(
        f"ensemble_ablations_{given.name}",
        command_line(parser, given),
        claims,
        models=given.models.split(","),
        k=K,
        bank=len(sides.labels),
        queries={name: len(wanted) for name, (_, wanted) in sides.queries.items()},
        rows=done,
    )


if __name__ == "__main__":
    main()
