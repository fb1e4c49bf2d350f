"""From features to pseudo-labels, against DeepCluster's recipe in faiss.

The features stand for those of an untrained network: points of a few hundred Gaussian clusters, of
64 dimensions with falling variances, go through two random layers with a ReLU between them, and
white noise is added. Their mean is as large as their deviation, and their variances fall by three
orders of magnitude over the first 256 components.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import faiss
import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import command_line, interleaved, median_ratio, save
from featkit.ops import whitening
from featkit.ops.agreement import cluster_agreement
from featkit.ops.kmeans import kmeans
from featkit.ops.whitening import fit_whitening
from featkit.trainers.deepcluster.clustering import points_of

LATENT, GROUPS, HIDDEN, NOISE = 64, 500, 2048, 0.05
PCA, ITERATIONS = 256, 20  # of the original
THESIS = {"pca": 32, "share": 0.1}
SMALL = {"rows": 4_000, "width": 1_024, "k": 200, "repeats": 1}


def made_features(n: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return features (n, d) and the cluster that each row is of."""
    g = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, LATENT + 1.0) ** -0.5
    groups = torch.randint(GROUPS, (n,), generator=g)
    points = torch.randn(GROUPS, LATENT, generator=g)[groups]
    points = (points + 0.5 * torch.randn(n, LATENT, generator=g)) * scale
    first = torch.randn(LATENT, HIDDEN, generator=g) * (2 / LATENT) ** 0.5
    second = torch.randn(HIDDEN, d, generator=g) * (2 / HIDDEN) ** 0.5
    bias = torch.randn(HIDDEN, generator=g) / 2
    x = torch.empty(n, d)
    for part in torch.arange(n).split(4096):
        hidden = torch.relu(points[part] @ first + bias)
        x[part] = hidden @ second + NOISE * torch.randn(len(part), d, generator=g)
    return x, groups


@dataclass
class Run:
    """Labels of each round, and the seconds of each phase."""

    labels: list[np.ndarray[Any, Any]] = field(default_factory=list)
    phases: list[dict[str, float]] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase of the latest round."""
        started = time.perf_counter()
        yield
        self.phases[-1][name] = time.perf_counter() - started

    def total(self) -> float:
        """Return the seconds of the latest round."""
        return sum(self.phases[-1].values())

    def medians(self) -> dict[str, float]:
        """Return the median seconds of each phase, without the first round."""
        names = self.phases[-1]
        return {n: statistics.median(p[n] for p in self.phases[1:]) for n in names}


def original(x: Tensor, k: int, run: Run) -> float:
    """Cluster as the authors' ``clustering.py`` does, on a CPU."""
    seed, rows = len(run.labels), x.numpy()
    run.phases.append({})
    with run.phase("pca"):
        pca = faiss.PCAMatrix(rows.shape[1], PCA, -0.5)
        pca.train(rows)
    with run.phase("whitening"):
        points = pca.apply(rows)
        points /= np.linalg.norm(points, axis=1)[:, np.newaxis]
    with run.phase("k-means"):
        clustering = faiss.Clustering(PCA, k)
        clustering.niter, clustering.seed = ITERATIONS, seed
        clustering.max_points_per_centroid = 10_000_000
        clustering.min_points_per_centroid = 1  # only says whether it warns
        index = faiss.IndexFlatL2(PCA)
        clustering.train(points, index)
    with run.phase("assignment"):
        _, labels = index.search(points, 1)
    run.labels.append(labels[:, 0])
    return run.total()


def ours(x: Tensor, k: int, run: Run, pca: int = PCA, share: float = 1.0) -> float:
    """Cluster as featkit does."""
    seed = len(run.labels)
    run.phases.append({})
    with run.phase("pca"):
        whiten = fit_whitening(x, pca, seed)
    with run.phase("whitening"):
        points = points_of(x, whiten)
    with run.phase("k-means and assignment"):
        found = kmeans(points, k, iterations=ITERATIONS, share=share, seed=seed)
    run.labels.append(found.labels.numpy())
    return run.total()


def directions_of(x: Tensor, count: int) -> int:
    """Return how many directions the Krylov space of a fit has."""
    with patch.object(whitening, "centred_blocks", wraps=whitening.centred_blocks) as passes:
        fit_whitening(x, count)
    return passes.call_count * whitening.STEP


def product_rate(size: int = 4096) -> float:
    """Return the operations a second of a float32 matrix product, the best of a few."""
    a, b, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    best = np.inf
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def floor(x: Tensor, k: int, rate: float, pca: int = PCA, share: float = 1.0) -> float:
    """Return the seconds that the products of one clustering would take at some rate."""
    n, d = x.shape
    fit = 4 * n * d * directions_of(x, pca)
    return (fit + 2 * n * d * pca + 2 * n * k * pca * (share * ITERATIONS + 1)) / rate


def alike(one: Run, other: Run) -> float:
    """Return the mean NMI over the pairs of rounds of two runs, of different seeds."""
    if one is other:
        pairs = list(itertools.combinations(one.labels, 2))
    else:
        pairs = list(itertools.product(one.labels, other.labels))
    return statistics.mean(cluster_agreement(a, b).nmi for a, b in pairs)


def claims_of(
    seconds: dict[str, list[float]], runs: dict[str, Run], truth: Tensor, sized: str
) -> list[dict[str, Any]]:
    """Return what is claimed of the speed, and how alike the labels are."""
    peer, same, thesis = runs.values()
    rows = []
    for name, what, target in (
        ("thesis", "the thesis' preset (PCA 32, fitted on 10 %)", 8.0),
        ("same", "the original's settings (PCA 256, fitted on all)", 1.2),
    ):
        faster = median_ratio(seconds["original"], seconds[name])
        least, most = (
            f(a / b for a, b in zip(seconds["original"], seconds[name], strict=True))
            for f in (min, max)
        )
        rows.append(
            {
                "what": f"speed-up of a clustering over DeepCluster's recipe in faiss, with {what}",
                "measured": f"{faster:.1f}× ({least:.1f} to {most:.1f})",
                "target": f"≥ {target:g}×", "met": faster >= target, "sized": sized,
            }
        )  # fmt: skip
    between, seeds = alike(same, peer), alike(peer, peer)
    known = {name: statistics.mean(cluster_agreement(labels, truth).nmi for labels in run.labels)
             for name, run in runs.items()}  # fmt: skip
    rows.append(
        {
            "what": "NMI of the labels with those of the original, same settings, other seeds",
            "measured": f"{between:.3f} (of two seeds of the original: {seeds:.3f})",
            "target": "no less than of two seeds, within 0.01", "met": between >= seeds - 0.01,
            "sized": sized,
        }
    )  # fmt: skip
    rows.append(
        {
            "what": "the same with the thesis' preset",
            "measured": f"{alike(thesis, peer):.3f}; with the clusters that the features were made"
            f" of {known['thesis']:.3f} (the original's: {known['original']:.3f})",
            "target": "—", "met": None, "sized": sized,
        }
    )  # fmt: skip
    return rows


def whole_cycle(images: Path, count: int | None) -> dict[str, Any]:
    """Return the claim on where the time of a cycle goes, with the thesis preset."""
    import featkit

    with tempfile.TemporaryDirectory() as folder:
        result = featkit.train(
            "deepcluster", images / "train", f"{folder}/run", preset="thesis", cycles=1, halt=None,
            held_out=0.0, images=count,
        )  # fmt: skip
    (cycle,) = result.tables["cycles"]
    parts = {name: cycle[f"{name}_seconds"] for name in ("training", "feature", "cluster")}
    share = parts["training"] / sum(parts.values())
    told = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in parts.items())
    return {
        "what": "share of a whole cycle's time that is spent in training steps",
        "measured": f"{share:.0%} ({told})",
        "target": "≥ 70%",
        "met": share >= 0.7,
        "sized": f"{result.scalars['images']:,} images of CIFAR-10, alexnet32, k = "
        f"{result.config['clusters']:,}, {torch.get_num_threads()} threads",
    }


def main() -> None:
    """Measure, compare the labels, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, metavar="CIFAR10", help="with train/")
    parser.add_argument("--images-taken", type=int, help="for the cycle; all by default")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=4_096)
    parser.add_argument("--k", type=int, default=2_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="A trial that is not saved.")
    given = parser.parse_args()
    if given.small:
        vars(given).update(SMALL)
    x, truth = made_features(given.rows, given.width)
    runs = {name: Run() for name in ("original", "same", "thesis")}
    seconds = interleaved(
        {
            "original": lambda: original(x, given.k, runs["original"]),
            "same": lambda: ours(x, given.k, runs["same"]),
            "thesis": lambda: ours(x, given.k, runs["thesis"], **THESIS),
        },
        given.repeats,
    )
    rate = product_rate()
    floors = {"same": floor(x, given.k, rate), "thesis": floor(x, given.k, rate, **THESIS)}
    sized = (
        f"n = {given.rows:,}, d = {given.width:,}, k = {given.k:,}, {ITERATIONS} iterations,"
        f" {given.repeats} rounds, {torch.get_num_threads()} threads"
    )
    claims = claims_of(seconds, runs, truth, sized)

    claims.append(whole_cycle(given.images, 3_000 if given.small else given.images_taken))
    details = {
        "seconds": seconds,
        "phases": {name: run.medians() for name, run in runs.items()},
        "floor": {"gflops": rate / 1e9, "seconds": floors},
    }
    if given.small:
        for claim in claims:
            print(claim["what"], claim["measured"])
        print(details)
        return
    save("deepcluster_speed", command_line(parser, given), claims, **details)


if __name__ == "__main__":
    main()
