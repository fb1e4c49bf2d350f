"""The study of the diversity paper on families of SimCLR networks that are trained for it.

Epochs by width (its figure 1), parameters with early stopping (2), methods (3), depth by
normalisation (4), over several seeds. Everything is kept in WORK, and what is there is not made
again.

Source: Malviya and Sudhakar, Feature diversity in self-supervised learning.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.families_claims import PAPER, claims_of
from benchmarks.families_figures import figures_of
from benchmarks.harness import RESULTS, command_line, save
from benchmarks.jobs import list_images
from featkit.store.files import write_whole

Row = dict[str, Any]

POWERS = (0.0, 1.0, 2.0)


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        images: Of the training set; a share of them is held out, on which epochs are chosen.
        tested: Images of the test set that errors are measured on.
        measured: Those of them that diversities are measured on.
        size: Pixels of the networks' input.
        arch: ResNet whose depth, width and normalisation are varied.
        base: Depth at which widths are varied, with batch normalisation.
        widths: Factors on the channels.
        depths: At width 1, with both normalisations.
        epochs: At which networks are measured; training ends at the last.
        options: Of all trainings.
    """

    images: int
    tested: int
    measured: int
    size: int
    arch: str
    base: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    epochs: tuple[int, ...]
    options: Row


SIZES = {
    "cpu": Size(
        images=2_000, tested=4_000, measured=1_000, size=16, arch="cifar_resnet20", base=8,
        widths=(1, 2, 4), depths=(8, 14, 20), epochs=(0, 5, 10, 20, 30),
        options={
            "batch_size": 64, "optimizer": "adam", "lr": 2e-3, "temperature": 0.2, "held_out": 0.4,
        },
    ),
    "gpu": Size(
        images=50_000, tested=10_000, measured=2_000, size=32, arch="resnet50_32px", base=50,
        widths=(1, 2, 4), depths=(18, 50, 101), epochs=(0, 10, 30, 100),
        options={"batch_size": 512, "lr": 0.6, "warmup": 10.0, "held_out": 0.1},
    ),
}  # fmt: skip


def jobs(scale: Size, seeds: int, weights: Path) -> list[Row]:
    """Return every network of the study, the longest trainings first."""
    shapes = [(scale.base, width, "batch") for width in scale.widths]
    shapes += [
        (d, 1, n)
        for d in scale.depths
        for n in ("batch", "layer")
        if (d, n) != (scale.base, "batch")
    ]
    found = [
        {
            "name": f"d{depth}w{width}-{norm}-seed{seed}", "method": "SimCLR", "depth": depth,
            "width": width, "norm": norm, "seed": seed, "size": scale.size,
        }
        for depth, width, norm in shapes
        for seed in range(seeds)
    ]  # fmt: skip
    compared = {"depth": 20, "width": 1, "norm": "batch", "size": 32}
    method = [
        {"name": f"method-simclr-seed{seed}", "method": "SimCLR", "seed": seed, **compared}
        for seed in range(min(seeds, 2))
    ]
    supervised = [
        {
            "name": f"method-supervised{depth}", "method": "supervised", "seed": None,
            "file": str(next(weights.glob(f"resnet{depth}-*"))), **compared, "depth": depth,
        }
        for depth in (20, 32, 44, 56)
    ]  # fmt: skip
    found.sort(key=lambda job: (-job["width"], -job["depth"]))
    return method + found + supervised


def run_job(task: tuple[Row, str, Path, Path]) -> str:
    """Train one network if it has to be trained, measure its epochs, and keep the rows."""
    job, scale_name, images, work = task
    target, scale = work / "rows" / f"{job['name']}.json", SIZES[scale_name]
    made_by = json.loads(json.dumps({**job, "scale": asdict(scale)}))
    if target.exists():
        there = json.loads(target.read_text())
        if all(there.get(name) == value for name, value in made_by.items()):
            return f"{job['name']}: was there"
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    started = time.perf_counter()
    sources = {
        name: f"{work / name}.csv?root={images / part}"
        for name, part in (("train", "train"), ("test", "test"), ("maps", "test"))
    }
    judged: dict[int, float | None] = {}
    if job["method"] == "SimCLR":
        run = work / "runs" / job["name"]
        judged = train_one(job, scale, sources["train"], run)
        backbones = {epoch: f"e{epoch}={run}?epoch={epoch}" for epoch in scale.epochs}
    else:
        backbones = {200: f"e200={job['file']}?arch=cifar_resnet{job['depth']}"}
    trained = time.perf_counter() - started
    rows = measure(job, backbones, sources, judged)
    told = {
        "seconds": {"training": round(trained, 1), "all": round(time.perf_counter() - started, 1)}
    }
    target.parent.mkdir(exist_ok=True)
    write_whole(target, json.dumps({**made_by, **told, "rows": rows}, indent=1).encode())
    return (
        f"{job['name']}: {trained:.0f} s of training, {time.perf_counter() - started:.0f} s in all"
    )


def train_one(job: Row, scale: Size, source: str, run: Path) -> dict[int, float | None]:
    """Train one network, and return the accuracy of neighbours on images held out, by epoch."""
    import featkit

    arch = "cifar_resnet20" if job["name"].startswith("method") else scale.arch
    result = featkit.train(
        "simclr", source, run, arch=arch, depth=job["depth"], width=job["width"],
        norm=job["norm"], seed=job["seed"], size=job["size"], epochs=scale.epochs[-1],
        knn_every=5, keep_every=5, precision="auto", workers=0, **scale.options,
    )  # fmt: skip
    return {row["epoch"]: row["knn_top1"] for row in result.tables["epochs"]}


def measure(
    job: Row, backbones: dict[int, str], sources: dict[str, str], judged: dict[int, float | None]
) -> list[Row]:
    """Return a row for each epoch: error of a probe on the test set, energies of every layer."""
    import featkit
    from featkit.analyses.diversity.analysis import Diversity
    from featkit.analyses.diversity.config import DiversityConfig

    names = list(backbones.values())
    options: Row = {"workers": 0, "batch_size": 128}
    with tempfile.TemporaryDirectory() as folder:
        stores = {
            name: featkit.extract(sources[name], names, f"{folder}/{name}", taps=taps, **options)
            for name, taps in (
                ("train", ["avgpool"]),
                ("test", ["avgpool"]),
                ("maps", ["conv1:none", "res2:none", "res4:none", "avgpool", "head"]),
            )
        }
        found, read = (
            Diversity(DiversityConfig(taps=taps, power=POWERS, over=("samples",), probe=False)).run(
                {"store": stores["maps"].tables()}
            )
            for taps in (PAPER, ("avgpool",))  # which is no layer of the paper, and not ranked
        )
        rows = []
        for epoch in backbones:
            tables = [stores[name][f"e{epoch}/avgpool"] for name in ("train", "test")]
            probe = featkit.LinearProbe().fit(tables[0].numpy(), tables[0].labels)
            wrong = probe.predict(tables[1].numpy()) != tables[1].labels
            energies = [*found.tables["energy"], *read.tables["energy"]]
            energies = [row for row in energies if row["backbone"] == f"e{epoch}"]
            ahead = [row for row in found.tables["most_diverse"] if row["backbone"] == f"e{epoch}"]
            model = next(r for r in found.tables["family"] if r["backbone"] == f"e{epoch}")
            rows.append(
                {
                    "epoch": epoch,
                    "method": job["method"] if epoch else "untrained",
                    "parameters": model["parameters"],
                    "error": float(wrong.mean()),
                    "held_out_knn": judged.get(epoch),
                    "energy": [
                        {
                            n: row[n]
                            for n in ("layer", "pooling", "power", "d", "mean_diversity", "spread")
                        }
                        for row in energies
                    ],
                    "most_diverse": [
                        {n: row[n] for n in ("pooling", "power", "layer", "next", "apart")}
                        for row in ahead
                    ],
                }
            )
        return rows


def main() -> None:
    """Train, measure, compare, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, metavar="CIFAR10", help="with train/ and test/")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="with resnet20-*.th, …")
    parser.add_argument("--work", type=Path, metavar="WORK", required=True, help="what is kept")
    parser.add_argument(
        "--scale", choices=list(SIZES), default="gpu" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    scale = SIZES[given.scale]
    given.work.mkdir(parents=True, exist_ok=True)
    counts = {"train": scale.images, "test": scale.tested, "maps": scale.measured}
    for name, count in counts.items():
        part = "train" if name == "train" else "test"
        list_images(given.images / part, count, given.work / f"{name}.csv")
    tasks = [
        (job, given.scale, given.images.resolve(), given.work.resolve())
        for job in jobs(scale, given.seeds, given.weights)
    ]
    if given.scale == "gpu":
        for task in tasks:
            print(run_job(task), flush=True)
    else:
        os.environ["OMP_NUM_THREADS"] = "1"  # two trainings beside each other, a core each
        with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
            for line in pool.imap_unordered(run_job, tasks):
                print(line, flush=True)
    files = (given.work / "rows" / f"{task[0]['name']}.json" for task in tasks)
    models = [json.loads(file.read_text()) for file in files]
    cores = 1 if given.scale == "gpu" else os.cpu_count() or 1
    minutes = sum(model["seconds"]["all"] for model in models) / 60 / cores
    duration = {
        "what": "minutes that the study takes", "holds": "—", "measured": f"{minutes:.0f}",
        "target": "< 60", "met": minutes < 60, "sized": f"{len(models)} networks, {cores} core(s)",
    }  # fmt: skip
    for path in figures_of(models, scale.epochs):
        shutil.move(path, RESULTS / path.name)
    learned = round(scale.images * (1 - scale.options["held_out"]))
    sized = f"{learned:,} training images of CIFAR-10, {scale.size} px, {scale.epochs[-1]} epochs"
    claims = [duration, *claims_of(models, scale.epochs, sized)]
    details = {"size": asdict(scale), "minutes": round(minutes, 1), "models": compact(models)}
    save("simclr_families", command_line(parser, given), claims, **details)


def compact(models: list[Row]) -> list[Row]:
    """Return the models with five digits, an entry for each layer, pooling and power."""
    found = []
    for model in models:
        rows = [
            {
                **{name: row[name] for name in ("epoch", "parameters", "error", "held_out_knn")},
                "mean_diversity": {
                    f"{e['layer']}/{e['pooling']}/{e['power']:g}": float(
                        f"{e['mean_diversity']:.5g}"
                    )
                    for e in row["energy"]
                },
            }
            for row in model["rows"]
        ]
        about = ("name", "method", "depth", "width", "norm", "seed", "size", "seconds")
        found.append({**{name: model[name] for name in about}, "rows": rows})
    return found


if __name__ == "__main__":
    main()
