"""The linear probe's 45 penalties against scikit-learn's warm-started sweep, and at full size."""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

import featkit
from benchmarks.harness import command_line, save
from featkit.ops.linear_probe import PENALTIES
from featkit.ops.logistic import fit_logistic

ROWS, HELD_OUT = 6_400, 1_600
WIDTH = 2_048


def objectives(x: np.ndarray, y: np.ndarray, weights: np.ndarray, biases: np.ndarray) -> np.ndarray:
    """Return Σ cross-entropy + λ/2 ‖W‖² of every penalty, in float64."""
    found = []
    wide, labels = torch.from_numpy(x.astype(np.float64)), torch.from_numpy(y)
    for penalty, w, b in zip(PENALTIES, weights, biases, strict=True):
        logits = wide @ torch.from_numpy(w.astype(np.float64)).T + torch.from_numpy(b)
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        found.append(float(loss) + penalty / 2 * float(np.square(w, dtype=np.float64).sum()))
    return np.array(found)


def sweep(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit scikit-learn's classifier for ascending penalties, each from the one before."""
    model = LogisticRegression(solver="lbfgs", warm_start=True, max_iter=100)
    weights, biases = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for penalty in PENALTIES:
            model.set_params(C=1 / penalty).fit(x, y)
            weights.append(model.coef_.copy())
            biases.append(model.intercept_.astype(np.float64))
    return np.array(weights), np.array(biases)


def accuracies(x: np.ndarray, y: np.ndarray, weights: np.ndarray, biases: np.ndarray) -> np.ndarray:
    """Return the share of right rows for every penalty."""
    return ((x @ weights.swapaxes(1, 2) + biases[:, None]).argmax(2) == y).mean(1)


def time_full_size(store: featkit.Store) -> dict[str, Any]:
    """Return the claim of all rows, of two networks side by side."""
    tables = [store[name].numpy() for name in ("efficientnet_lite0", "efficientnet_lite1")]
    labels = np.asarray(store.samples.labels)
    wide = np.concatenate([tables[0], tables[1][:, : WIDTH - tables[0].shape[1]]], axis=1)
    classes = int(labels.max()) + 1
    started = time.perf_counter()
    found = fit_logistic(wide, labels, classes, PENALTIES)
    seconds = time.perf_counter() - started
    return {
        "what": "time of 45 penalties at full size",
        "measured": f"{seconds:.1f} s",
        "target": "< 60 s",
        "met": seconds < 60,
        "sized": f"{len(wide):,} rows, d = {WIDTH:,}, {classes} classes, "
        f"{int(found.converged.sum())} of {len(PENALTIES)} converged; one run",
    }


def main() -> None:
    """Measure, compare, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path, metavar="TRAIN", help="with the EfficientNet-Lites")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--full-size", action="store_true", help="time 50,000 rows of 2,048 too")
    given = parser.parse_args()
    store = featkit.open_store(given.train)
    table = store["efficientnet_lite0"]
    labels = np.asarray(table.labels)
    drawn = np.random.default_rng(0).permutation(len(table))[: ROWS + HELD_OUT]
    x, y = table.numpy()[drawn], labels[drawn]
    part, rest = slice(0, ROWS), slice(ROWS, None)
    classes = int(labels.max()) + 1
    fit_logistic(x[:500], y[:500], classes, [1.0])
    seconds = []
    for _ in range(given.repeats):
        started = time.perf_counter()
        path = fit_logistic(x[part], y[part], classes, PENALTIES)
        seconds.append(time.perf_counter() - started)
        print(f"{seconds[-1]:.2f} s", flush=True)
    started = time.perf_counter()
    theirs = sweep(x[part], y[part])
    slow = time.perf_counter() - started
    ours = objectives(x[part], y[part], path.weights, path.biases)
    wanted = objectives(x[part], y[part], *theirs)
    worst = float((ours / wanted - 1).max())
    judged = [
        float(accuracies(x[rest], y[rest], *both).max())
        for both in ((path.weights, path.biases), theirs)
    ]
    faster = slow / float(np.median(seconds))
    sized = f"{ROWS:,} rows, d = {table.shape[1]:,}, {classes} classes, {len(PENALTIES)} penalties"
    sized += f", {torch.get_num_threads()} thread(s)"
    claims = [
        {
            "what": "speed-up of the probe's sweep over scikit-learn's (lbfgs, warm-started)",
            "measured": f"{faster:.1f}× ({slow:.1f} s to {np.median(seconds):.2f} s)",
            "target": "≥ 20×",
            "met": faster >= 20,
            "sized": f"{sized}; median of {given.repeats}, scikit-learn once",
        },
        {
            "what": "training objective over scikit-learn's, at the worst penalty",
            "measured": f"{worst:+.1e}",
            "target": "≤ 0",
            "met": worst <= 1e-6,
            "sized": f"{sized}; at the best {float((ours / wanted - 1).min()):+.1e}; both in "
            f"float64, met up to a rounding of 1e-6",
        },
        {
            "what": "best accuracy on held-out rows, featkit and scikit-learn",
            "measured": f"{judged[0]:.2%}, {judged[1]:.2%}",
            "target": "± 0.1 points",
            "met": abs(judged[0] - judged[1]) <= 0.001,
            "sized": f"{sized}; {HELD_OUT:,} rows held out",
        },
    ]
    if given.full_size:
        claims.append(time_full_size(store))
    save(
        "probe",
        command_line(parser, given),
        claims,
        seconds=seconds,
        sklearn_seconds=slow,
        objectives={"featkit": ours.tolist(), "scikit-learn": wanted.tolist()},
        iterations=path.iterations.tolist(),
    )


if __name__ == "__main__":
    main()
