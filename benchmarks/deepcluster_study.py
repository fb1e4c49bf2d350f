"""DeepCluster: untrained networks, what becomes of them, and what its settings do.

Parts: ``survey`` describes untrained networks (the thesis's figures 4.2 and 4.3), ``starts`` trains
those that span the survey's range (4.4), ``lenet`` and ``alexnet`` vary the number of clusters
(4.5), ``settings`` varies one setting at a time (tables 4.1 and 4.2, figure 4.6). What is there in
WORK is not made again.

Source: Mustapha 2021, Unsupervised deep learning: inter-model interpretation and deep clustering.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.deepcluster_claims import claims_of
from benchmarks.deepcluster_figures import figures_of
from benchmarks.harness import RESULTS, command_line, save
from benchmarks.jobs import keep, kept, list_images, one_core, run_all, study_parser

Row = dict[str, Any]

PARTS = ("survey", "starts", "lenet", "alexnet", "settings")
TESTED = 5_000
"""Images of CIFAR-10's test set."""
_TAUGHT = 4 / 5
"""Share of the digits that are learned from; the others are the test set."""


@dataclass(frozen=True)
class Size:
    """How large the study is.

    Attributes:
        images: Of CIFAR-10's training set.
        clusters: k, where it is not varied.
        cycles: Of each training on them.
        starts: Of the survey.
        trained: How many of these are trained.
        grey: Images of grey CIFAR-10, where k is varied.
        grey_cycles: Of these trainings.
        alexnet: Numbers of clusters there, and ``lenet`` those on digits.
        alexnet_seeds: Trainings of each, and ``lenet_seeds``.
        lenet_cycles: Of the trainings on digits.
        halts: Last cycles that cluster, as shares of all.
        halt_cycles: Of these trainings.
        widths: Of PCA.
        shares: Of the images that k-means is fitted on.
        setting_seeds: Trainings of each setting.
        batch: Images of a step.
    """

    images: int
    clusters: int
    cycles: int
    starts: int
    trained: int
    grey: int
    grey_cycles: int
    alexnet: tuple[int, ...]
    alexnet_seeds: int
    lenet: tuple[int, ...]
    lenet_seeds: int
    lenet_cycles: int
    halts: tuple[float, ...]
    halt_cycles: int
    widths: tuple[int, ...]
    shares: tuple[float, ...]
    setting_seeds: int
    batch: int


LENET = {"optimizer": "adam", "lr": 1e-3, "crop": 0.4}
"""By plain SGD its loss stays: N(0, 0.01) makes the signals of narrow layers vanish."""

_SHARES = (0.05, 0.1, 0.2, 0.4, 0.7)
_HALTS = (0.1, 0.2, 1 / 3, 2 / 3)
SIZES = {
    "cpu": Size(
        images=1_500, clusters=60, cycles=6, starts=100, trained=10,
        grey=1_000, grey_cycles=6, alexnet=(10, 50, 100, 500), alexnet_seeds=5,
        lenet=(5, 7, 10, 12, 20, 200, 500), lenet_seeds=30, lenet_cycles=5,
        halts=_HALTS, halt_cycles=10, widths=(32, 64, 128), shares=_SHARES, setting_seeds=1,
        batch=32,
    ),
    "gpu": Size(
        images=50_000, clusters=2_000, cycles=150, starts=100, trained=10,
        grey=50_000, grey_cycles=150, alexnet=(10, 50, 100, 500), alexnet_seeds=5,
        lenet=(5, 7, 10, 12, 20, 200, 500), lenet_seeds=30, lenet_cycles=150,
        halts=_HALTS, halt_cycles=150, widths=(32, 64, 128),
        shares=(0.05, *(i / 10 for i in range(1, 10))), setting_seeds=3, batch=256,
    ),
}  # fmt: skip


def jobs(scale: Size, part: str, chosen: Sequence[int] = ()) -> list[Row]:
    """Return the trainings of a part.

    Args:
        scale: Of the study.
        part: Of it.
        chosen: Seeds of the survey that are trained.
    """
    base = {
        "arch": "alexnet32", "clusters": scale.clusters, "cycles": scale.cycles, "pca": 256,
        "batch_size": scale.batch,
    }  # fmt: skip
    if part == "starts":
        varied = [({**base, "seed": seed}, "color", f"seed{seed}") for seed in chosen]
    elif part == "alexnet":
        own = {**base, "cycles": scale.grey_cycles}
        varied = [
            ({**own, "clusters": k, "seed": seed}, "grey", f"k{k}-seed{seed}")
            for seed in range(scale.alexnet_seeds)
            for k in scale.alexnet
        ]
    elif part == "lenet":
        own = {**base, "arch": "lenet5", "pca": 32, "cycles": scale.lenet_cycles, **LENET}
        varied = [
            ({**own, "clusters": k, "seed": seed}, "digits", f"k{k}-seed{seed}")
            for seed in range(scale.lenet_seeds)
            for k in scale.lenet
        ]
    else:
        longer = {"cycles": scale.halt_cycles}
        changes: dict[str, Row] = {"original": {}, "halt-none": longer}
        changes |= {f"halt{share:.3g}": {**longer, "halt": share} for share in scale.halts}
        changes |= {f"pca{width}": {"pca": width} for width in scale.widths}
        changes |= {f"share{share:g}": {"fit_share": share} for share in scale.shares}
        varied = [
            ({**base, **change, "seed": seed}, "color", f"{name}-seed{seed}")
            for seed in range(scale.setting_seeds)
            for name, change in changes.items()
        ]
    return [
        {"part": part, "name": f"{part}-{name}", "source": source, "options": options}
        for options, source, name in varied
    ]


def run_job(task: tuple[Row, str, Path]) -> str:
    """Train one network if it has to be trained, measure it, and keep what is told."""
    import featkit

    job, scale, work = task
    target = work / "rows" / f"{job['name']}.json"
    source, test = ((work / f"{job['source']}-{side}").read_text() for side in ("train", "test"))
    made_by = {"options": job["options"], "train": _digest(source), "test": _digest(test)}
    if kept(target, made_by) is not None:
        return f"{job['name']}: was there"
    one_core()
    run, started = work / "runs" / job["name"], time.process_time()
    result = featkit.train(
        "deepcluster", source, run, workers=0, held_out=0.0, keep_every=10**6, overwrite=True,
        **job["options"],
    )  # fmt: skip
    trained = time.process_time()
    arch, every = job["options"]["arch"], job["name"].startswith("settings-original")
    told = {
        **job,
        "cycles": result.tables["cycles"],
        "notes": result.notes,
        "trained": measure(f"net={run}", source, test, arch, every),
        "untrained": measure(f"net={run}?epoch=0", source, test, arch, every)
        if _is_first(job, scale)
        else None,
        "seconds": {
            "training": round(trained - started, 1),
            "measuring": round(time.process_time() - trained, 1),
        },
    }
    keep(target, made_by, told)
    shutil.rmtree(run)
    return f"{job['name']}: {told['seconds']} {told['trained']['linear']:.3f}"


def _is_first(job: Row, scale: str) -> bool:
    """Return whether no other training of the part starts with the same network."""
    if job["part"] in ("alexnet", "lenet"):
        return bool(job["options"]["clusters"] == getattr(SIZES[scale], job["part"])[0])
    return job["part"] == "starts" or job["name"].startswith("settings-original")


TAPS = {
    "alexnet32": ("conv1:avg4s4", "conv2:avg4s4", "conv3:avg2s2", "conv4:avg2s2", "conv5:avg2s2"),
    "lenet5": ("conv1:avg4s4", "conv2:avg2s2"),
}
"""Convolutions with the pooling that leaves some 1,000 of their numbers, the last one last."""


def measure(backbone: str, train: str, test: str, arch: str, every: bool = False) -> Row:
    """Return the accuracy of a probe on the last convolution, or on every one."""
    import featkit
    from featkit.analyses.probe import Probe, ProbeConfig

    taps = TAPS[arch] if every else TAPS[arch][-1:]
    with tempfile.TemporaryDirectory() as folder:
        tables = {
            side: featkit.extract(
                source, [backbone], f"{folder}/{side}", taps=taps, workers=0, batch_size=128
            ).tables()
            for side, source in (("train", train), ("test", test))
        }
        result = Probe(ProbeConfig()).run(tables)
    rows = {row["features"].rpartition("/")[2]: row["top1"] for row in result.tables["accuracy"]}
    return {"linear": rows[next(reversed(rows))], "layers": rows if every else {}}


def _digest(source: str) -> str:
    """Return which images a source has, wherever its list lies."""
    listed = Path(source.partition("?")[0])
    return listed.read_text() if listed.is_file() else source


def run_survey(task: tuple[Row, str, Path]) -> str:
    """Describe some untrained networks, with and without sobel, and keep the rows."""
    from featkit.trainers.alignment import survey

    job, _, work = task
    source = (work / f"{job['source']}-train").read_text()
    target = work / "rows" / f"{job['name']}.json"
    made_by = {**job, "train": _digest(source)}
    if kept(target, made_by) is not None:
        return f"{job['name']}: was there"
    one_core()
    started = time.process_time()
    result = survey(source, job["starts"], workers=0, **job["options"])
    told = {
        "starts": result.tables["starts"],
        "projection": result.tables["projection"],
        "classes": result.arrays["classes"].tolist(),
        "seconds": round(time.process_time() - started, 1),
    }
    keep(target, made_by, told)
    return f"{job['name']}: {told['seconds']} s"


def survey_jobs(scale: Size) -> list[Row]:
    """Return the survey in parts; the last shows LeNet-5's features of digits."""
    options = {"arch": "alexnet32", "clusters": scale.clusters, "pca": 256}
    each = max(scale.starts // 10, 1)
    digits = {"name": "survey-digits", "source": "digits", "starts": 5}
    return [
        {
            "name": f"survey-{first}", "source": "color", "starts": each,
            "options": {**options, "seed": first},
        }
        for first in range(0, scale.starts, each)
    ] + [{**digits, "options": {"arch": "lenet5", "clusters": 20, "pca": 32}}]  # fmt: skip


def spanning(starts: Sequence[Row], count: int) -> list[int]:
    """Return the seeds of starts whose alignments are spread evenly from the least to the most."""
    nmi = np.array([row["nmi"] for row in starts])
    wanted = np.linspace(nmi.min(), nmi.max(), count)
    chosen: list[int] = []
    for value in wanted:
        order = np.argsort(abs(nmi - value), kind="stable")
        chosen.append(next(int(i) for i in order if int(i) not in chosen))
    return [starts[i]["seed"] for i in chosen]


def list_sources(images: Path, scale: Size, work: Path) -> None:
    """Write what is learned from and what is tested on: colour, grey, digits."""
    for side, count in (("train", scale.images), ("test", TESTED)):
        target = work / f"color-{side}.csv"
        (work / f"color-{side}").write_text(list_images(images / side, count, target))
    for side, count in (("train", scale.grey), ("test", TESTED)):
        target = work / f"grey-{side}.csv"
        listed = list_images(images / side, count, target)
        folder = work / "grey" / side
        _write_grey(Path(listed.partition("?root=")[2]), target, folder)
        (work / f"grey-{side}").write_text(f"{target}?root={folder}")
    for side in ("train", "test"):
        (work / f"digits-{side}").write_text(str(_write_digits(work / "digits", side)))


def _write_grey(root: Path, listed: Path, folder: Path) -> None:
    from PIL import Image

    for line in listed.read_text().splitlines()[1:]:
        path, _, _ = line.partition(",")
        if not (folder / path).exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            Image.open(root / path).convert("L").save(folder / path, quality=100)


def _write_digits(folder: Path, side: str) -> Path:
    """Write scikit-learn's digits as images, the first four fifths to learn from."""
    import featkit

    source = featkit.open_source("digits")
    count = int(_TAUGHT * len(source.ids))
    rows = range(count) if side == "train" else range(count, len(source.ids))
    assert source.labels is not None
    for row in rows:
        target = folder / side / str(source.labels[row]) / f"{row:04d}.png"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            source.read(row).save(target)
    return folder / side


def main() -> None:
    """Describe, train, measure, compare, and save."""
    parser = study_parser(__doc__, SIZES)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    scale, work = SIZES[given.scale], given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    list_sources(given.images.resolve(), scale, work)
    found: dict[str, list[Row]] = {}
    surveys = survey_jobs(scale)
    run_all(run_survey, surveys, given.scale, work)
    found["survey"] = [_read(work, job) for job in surveys]
    starts = [row for told in found["survey"] for row in told["starts"]]
    chosen = spanning([row for row in starts if row["arch"] == "alexnet32"], scale.trained)
    for part in given.parts:
        if part != "survey":
            own = jobs(scale, part, chosen)
            run_all(run_job, own, given.scale, work)
            found[part] = [_read(work, job) for job in own]
    for path in figures_of(found):
        shutil.move(path, RESULTS / path.name)
    cores = 1 if given.scale == "gpu" else os.cpu_count() or 1
    save(
        "deepcluster_study",
        command_line(parser, given),
        claims_of(found, asdict(scale), cores),
        size=asdict(scale),
        survey=starts,
        trainings=[_compact(row) for part in found if part != "survey" for row in found[part]],
    )


def _read(work: Path, job: Row) -> Row:
    told: Row = json.loads((work / "rows" / f"{job['name']}.json").read_text())
    return told


def _compact(row: Row) -> Row:
    cycles = ("cycle", "loss", "clusters", "nmi_previous", "nmi_labels", "ami_labels")
    own = [[cycle[name] for name in cycles] for cycle in row["cycles"]]
    kept_names = ("name", "options", "trained", "untrained", "seconds", "notes")
    return {**{n: row[n] for n in kept_names}, "cycles": [list(cycles), *own]}


if __name__ == "__main__":
    main()
