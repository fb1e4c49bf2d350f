"""TreeNets against one pathway of as many parameters, on equal terms, and what their leaves are.

Three parts: ``main`` compares the tree with its baseline, ``joins`` are the models of the paper's
figure 6 and a deep ResNet, ``leaves`` are trees of more and fewer leaves. What is there in WORK is
not made again.

Source: Grant, Dias, Kulkarni, Spontaneous decomposition from grouped network pathways.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import RESULTS, command_line, save
from benchmarks.jobs import keep, kept, list_images, one_core, run_all, study_parser
from benchmarks.treenet_claims import claims_of, seen_claims
from benchmarks.treenet_figures import figures_of
from benchmarks.treenet_pictures import draw_views, look_at, project_joins

Row = dict[str, Any]

HELD_OUT = 0.1


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        images: Of the training set, by part.
        tested: Of the test set.
        rates: Learning rates; the better is chosen for tree and baseline alike, each by its
            neighbours on training images held out, after a short training.
        short: Epochs of these, of the images of the second part.
        leaves: Of the tree.
        varied: Numbers of leaves, in the part of that name.
        deep: A deep ResNet.
        epochs: Of all other trainings, those of the preset.
    """

    images: dict[str, int]
    tested: int
    rates: tuple[float, ...]
    short: int
    leaves: int
    varied: tuple[int, ...]
    deep: str
    preset: str
    epochs: int


SIZES = {
    "cpu": Size(
        images={"main": 10_000, "joins": 2_000, "leaves": 1_000}, tested=10_000,
        rates=(5e-4, 2e-3), short=2, leaves=8, varied=(2, 16, 32), deep="cifar_resnet56",
        preset="cpu", epochs=3,
    ),
    "gpu": Size(
        images=dict.fromkeys(("main", "joins", "leaves"), 50_000), tested=10_000,
        rates=(5e-4, 2e-3), short=5, leaves=48, varied=(2, 8, 16, 32, 64), deep="resnet50_32px",
        preset="paper", epochs=100,
    ),
}  # fmt: skip


def jobs(scale: Size, seeds: int, part: str) -> list[Row]:
    """Return the networks of a part, the longest trainings first."""
    tree = {"leaves": scale.leaves}
    if part == "main":
        models = {"tree": tree, "cnn": {**tree, "baseline": "cnn"}}
        return [
            {"part": part, "model": name, "seed": seed, "options": options}
            for seed in range(seeds)
            for name, options in models.items()
        ]
    if part == "joins":
        models = {
            "resnet": {"baseline": scale.deep},
            "dense": tree,
            "average": {**tree, "join": "average"},
            "attention": {**tree, "join": "attention"},
            "cosine": {**tree, "beta": 1.0},
        }
    else:
        models = {f"leaves{m}": {"leaves": m} for m in reversed(scale.varied)}
    return [
        {"part": part, "model": name, "seed": 0, "options": options}
        for name, options in models.items()
    ]


def train_one(job: Row, scale: Size, images: str, run: Path, **options: Any) -> Row:
    """Train one network, and return what its result says."""
    import featkit

    result = featkit.train(
        "treenet", images, run, preset=scale.preset, seed=job["seed"], workers=0,
        held_out=HELD_OUT, knn_every=1, images=None,
        **{"epochs": scale.epochs, **job["options"], **options},
    )  # fmt: skip
    return {
        "epochs": result.tables["epochs"],
        "scalars": result.scalars,
        "notes": result.notes,
        "architecture": result.provenance["architecture"],
    }


def choose_rate(job: Row, scale: Size, images: str, work: Path) -> tuple[float, Row]:
    """Return the learning rate with the best neighbours on training images held out, and all."""
    found = {}
    for rate in scale.rates:
        run = work / "runs" / f"rate-{job['model']}-{rate:g}"
        short = {**job, "seed": 1_000}
        told = train_one(short, scale, images, run, lr=rate, epochs=scale.short)
        found[f"{rate:g}"] = told["epochs"][-1]["knn_top1"]
    return max(scale.rates, key=lambda rate: found[f"{rate:g}"]), found


def run_rate(task: tuple[Row, str, Path]) -> str:
    """Choose the learning rate of a model of the main part, and keep it."""
    job, scale_name, work = task
    target, scale = work / f"rate-{job['model']}.json", SIZES[scale_name]
    images = scale.images["joins"]
    made_by = {"images": images, "rates": scale.rates, "short": scale.short, **job["options"]}
    told = kept(target, made_by)
    if told is None:
        one_core()
        started = time.process_time()
        rate, found = choose_rate(job, scale, (work / "source-joins").read_text(), work)
        told = {"rate": rate, "held_out_knn": found, "seconds": time.process_time() - started}
        keep(target, made_by, told)
    return f"{job['model']}: {told}"


def run_job(task: tuple[Row, str, Path]) -> str:
    """Train one network if it has to be trained, measure it, and keep the rows."""
    job, scale_name, work = task
    name = name_of(job)
    target, scale = work / "rows" / f"{name}.json", SIZES[scale_name]
    made_by = {
        "images": scale.images[job["part"]], "tested": scale.tested, "preset": scale.preset,
        "epochs": scale.epochs, **job["options"],
    }  # fmt: skip
    if kept(target, made_by) is not None:
        return f"{name}: was there"
    one_core()
    rates = work / f"rate-{'cnn' if job['model'] == 'cnn' else 'tree'}.json"
    rate = json.loads(rates.read_text())["rate"]
    sources = {side: (work / f"source-{side}").read_text() for side in (job["part"], "test")}
    started, run = time.process_time(), work / "runs" / name
    told = train_one(job, scale, sources[job["part"]], run, lr=rate)
    trained = time.process_time()
    is_tree = told["architecture"].startswith("treenet")
    rows = {"trained": measure(f"net={run}", sources[job["part"]], sources["test"], is_tree)}
    if job["part"] == "main":
        spec = f"{told['architecture']}?weights=none&seed={job['seed']}&size={told_size(run)}"
        rows["untrained"] = measure(f"net={spec}", sources[job["part"]], sources["test"], is_tree)
    told |= {
        "rate": rate,
        "pixels": told_size(run),
        "seconds": {
            "training": round(trained - started, 1),
            "measuring": round(time.process_time() - trained, 1),
        },
    }
    keep(target, made_by, {**job, **told, **rows})
    return f"{name}: {told['seconds']}"


def told_size(run: Path) -> int:
    """Return the pixels of a run's input."""
    from featkit.backbones.training_runs import read_run

    return read_run(run).preprocessing.size[0]


def measure(backbone: str, train: str, test: str, is_tree: bool) -> Row:
    """Judge every layer by neighbours and a probe; TEST is asked of the one chosen on TRAIN."""
    import featkit
    from featkit.analyses.best_subset import BestSubset, BestSubsetConfig
    from featkit.analyses.neighbors import KNN, KNNConfig
    from featkit.analyses.probe import Probe, ProbeConfig

    network = featkit.load_backbone(backbone).network
    layers, leaves = layers_of(network.module, is_tree)
    with tempfile.TemporaryDirectory() as folder:
        stores = {
            side: featkit.extract(
                source, [backbone], f"{folder}/{side}", taps=[*layers, *leaves], workers=0,
                batch_size=128,
            )
            for side, source in (("train", train), ("test", test))
        }  # fmt: skip
        tables = {side: store.tables() for side, store in stores.items()}
        taps = tuple(dict.fromkeys(t.tap for t in tables["train"] if not t.tap.startswith("leaf.")))
        found: Row = {}
        for name, analysis in (
            ("knn", KNN(KNNConfig(taps=taps))),
            ("linear", Probe(ProbeConfig(taps=taps))),
        ):
            result = analysis.run(tables)
            (row,) = result.tables["accuracy"]
            (chosen,) = (r["features"] for r in result.tables["layers"] if r["chosen"] == "yes")
            found[name] = {
                "top1": row["top1"],
                "layer": chosen.rpartition("/")[2],
                "layers": {
                    r["features"].rpartition("/")[2]: r["score"] for r in result.tables["layers"]
                },
            }
        if len(leaves) > 1:
            own = {
                side: [t for t in given if t.tap.startswith("leaf.")]
                for side, given in tables.items()
            }
            result = BestSubset(BestSubsetConfig()).run(own)
            found["subset"] = {
                "accuracy": result.tables["accuracy"],
                "individual": [
                    {n: r[n] for n in ("features", "held_out")} for r in result.tables["individual"]
                ],
                "sizes": result.tables["sizes"],
            }
        return found


def layers_of(module: torch.nn.Module, is_tree: bool) -> tuple[list[str], list[str]]:
    """Return the taps of all layers, and those of the leaves."""
    if is_tree:
        leaves = [f"leaf.{leaf}" for leaf in range(len(module.leaf))]
        return [*(f"conv{n}" for n in range(1, 6)), "join"], leaves
    blocks = [
        f"{stage}.{number}"
        for stage, layer in module.named_children()
        if stage.startswith("layer")
        for number in range(len(layer))
    ]
    return ["conv1", *blocks], []


def run_leaves(task: tuple[Row, str, Path]) -> str:
    """Tell what the leaves of a trained tree are, and those of an untrained one, and keep it."""
    import featkit

    job, _, work = task
    name = name_of(job)
    target = work / "leaves" / f"{name}.json"
    run = work / "runs" / name
    made_by = {"run": hashlib.sha256((run / "run.json").read_bytes()).hexdigest()}
    if kept(target, made_by) is not None:
        return f"{name}: was there"
    one_core()
    started = time.process_time()
    result = featkit.saliency(run, (work / "source-test").read_text(), workers=0)
    told = {
        "leaves": result.tables["leaves"],
        "shares": result.tables["shares"],
        "seconds": round(time.process_time() - started, 1),
    }
    keep(target, made_by, told)
    return f"{name}: {told['seconds']} s for its leaves"


def name_of(job: Row) -> str:
    """Return what a network of the study is called."""
    return f"{job['part']}-{job['model']}-seed{job['seed']}"


def main() -> None:
    """Train, measure, compare, and save."""
    parser = study_parser(__doc__, SIZES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", default=["main", "joins", "leaves"])
    given = parser.parse_args()
    scale, work = SIZES[given.scale], given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    for name, count in {**scale.images, "test": scale.tested}.items():
        folder = given.images.resolve() / ("test" if name == "test" else "train")
        (work / f"source-{name}").write_text(list_images(folder, count, work / f"{name}.csv"))
    main_jobs = jobs(scale, given.seeds, "main")
    tasks = [job for part in given.parts for job in jobs(scale, given.seeds, part)]
    run_all(run_rate, main_jobs[:2], given.scale, work)
    run_all(run_job, tasks, given.scale, work)
    trees = [job for job in tasks if "baseline" not in job["options"]]
    run_all(run_leaves, trees, given.scale, work)
    models = []
    for job in tasks:
        model = json.loads((work / "rows" / f"{name_of(job)}.json").read_text())
        if job in trees:
            model["leaves"] = json.loads((work / "leaves" / f"{name_of(job)}.json").read_text())
        models.append(model)
    rates = {m: json.loads((work / f"rate-{m}.json").read_text()) for m in ("tree", "cnn")}
    for path in figures_of(models):
        shutil.move(path, RESULTS / path.name)
    details: Row = {}
    if "main" in given.parts:
        look_at(work, "main-tree-seed0", "tree")
        draw_views(work, scale.preset)
    if "joins" in given.parts:
        details["projection"] = project_joins(work, 2_000)
    if "leaves" in given.parts:
        details["shap"] = look_at(work, "leaves-leaves2-seed0", "two-leaves", shap=True)
    cores = 1 if given.scale == "gpu" else os.cpu_count() or 1
    save(
        "treenet_study",
        command_line(parser, given),
        [*claims_of(models, rates, asdict(scale), cores), *seen_claims(details)],
        size=asdict(scale),
        rates=rates,
        models=[compact(model) for model in models],
        **details,
    )


def compact(model: Row) -> Row:
    """Return a model without what can be read off the others."""
    left_out = ("made_by", "part", "options")
    return {"part": model["part"], **{n: v for n, v in model.items() if n not in left_out}}


if __name__ == "__main__":
    main()
