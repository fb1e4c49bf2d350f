"""What each setting of an ensemble changes: the studies of the paper's sections 4 to 6."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import featkit
from benchmarks.harness import command_line, save
from featkit.ops.neighbors import nearest_neighbors
from featkit.ops.votes import majority_vote

K = (1, 5, 20, 200)

ABLATIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "seed 1": {"random_state": 1},
    "seed 2": {"random_state": 2},
    "last bias as torch starts it": {"last_bias": "usual"},
    "last layer linear": {"last_layer": "linear"},
    **{f"depth {depth}": {"depth": depth} for depth in (1, 3, 4, 6, 8)},
    "depth 6, weight decay 1e-6": {"depth": 6, "weight_decay": 1e-6},
    **{f"hidden {hidden}": {"hidden": hidden} for hidden in (16, 256, 512)},
    **{f"warm-up {share:.0%}": {"warmup": share} for share in (0.0, 0.25, 0.75, 1.0)},
    **{f"weight decay {decay:g}": {"weight_decay": decay} for decay in (1e-6, 1e-4)},
    **{f"L1 {l1:g}": {"l1": l1} for l1 in (1e-4, 1e-3, 1e-2)},
    **{f"width {width} (PCA)": {"width": width, "init": "pca"} for width in (16, 32, 64)},
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


def main() -> None:
    """Fit one ensemble a setting, judge and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of the models together")
    parser.add_argument("train", type=Path, metavar="TRAIN", help="store with labels")
    parser.add_argument("test", type=Path, metavar="TEST", help="store with labels")
    parser.add_argument("--models", required=True)
    parser.add_argument(
        "--work", type=Path, metavar="WORK", required=True, help="keeps what is done"
    )
    given = parser.parse_args()
    stores = featkit.open_store(given.train), featkit.open_store(given.test)
    labels = [np.asarray(store.samples.labels) for store in stores]
    names = given.models.split(",")
    bank, queries = ([store[name].numpy() for name in names] for store in stores)
    kept = given.work / f"ablations-{given.name}.json"
    done: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for what, changes in ABLATIONS.items():
        if what in done:
            continue
        started = time.perf_counter()
        ensemble = featkit.EnsembleRepresentation(**changes)
        psi = ensemble.fit_transform(bank)
        similarities, rows = nearest_neighbors(ensemble.transform(queries), psi, max(K))
        votes = majority_vote(similarities, labels[0][rows], int(labels[0].max()) + 1, K)
        start = ensemble.start(bank)
        moved = np.linalg.norm(psi - start, axis=1) / np.linalg.norm(start, axis=1)
        done[what] = {
            "settings": changes,
            "top1": {k: float((votes[k] == labels[1]).mean()) for k in K},
            "recovery": {stage: float(np.mean(x)) for stage, x in ensemble.recovery_.items()},
            "moved": float(np.median(moved)),
            "seconds": time.perf_counter() - started,
        }
        given.work.mkdir(exist_ok=True)
        kept.write_text(json.dumps(done))
        print(f"{what}: {done[what]}", file=sys.stderr)
    claims = []
    for what, row in json.loads(kept.read_text()).items():
        reached = ", ".join(f"{x:.3f}" for x in row["recovery"].values())
        claims.append(
            {
                "what": f"ablation, {given.name}: {what}",
                "measured": ", ".join(f"{value:.2%}" for value in row["top1"].values()),
                "target": "—",
                "met": None,
                "sized": f"k = {', '.join(map(str, K))}; recovery in training and of queries: "
                f"{reached}; moved by {row['moved']:.0%}",
            }
        )
    save(
        f"ensemble_ablations_{given.name}",
        command_line(parser, given),
        claims,
        models=names,
        rows=done,
    )


if __name__ == "__main__":
    main()
