"""The commands that are disturbed, small enough to run hundreds of times."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.faults import finish
from benchmarks.jobs import Row

NET = "cifar_resnet20?weights=none"
WRITING = ("extract", "ensemble-fit", "train simclr", "train treenet", "train deepcluster")
"""Commands that go on where they were."""
TRAINING = shlex.split(
    "--size 16 --optimizer adam --lr 0.002 --warmup 1 --knn-every 1 --precision fp32 "
    "--batch-size 16 --device cpu --workers 1 --quiet"
)
METHODS = {
    "simclr": ["--arch", "cifar_resnet8", "--epochs", "3"],
    "treenet": shlex.split(
        "--leaves 2 --join average --channels 4,8 --prototypes 32 --hidden 16 --bottleneck 8 "
        "--local-crops 2 --epochs 3"
    ),
    "deepcluster": shlex.split(
        "--arch lenet5 --size 32 --clusters 4 --pca 8 --optimizer sgd --held-out 0.1 --cycles 3"
    ),
}


@dataclass(frozen=True)
class Case:
    """A command and what it leaves.

    Attributes:
        name: In the table.
        arguments: Of the command, given the folder that it works in.
        outputs: Files and folders below it that the command makes or changes.
        given: Folders below it that are there before, copied from what is prepared.
        goes_on: Whether it goes on where it was stopped.
        work: What is counted as its work: module, class and method that does it, its unit, and how
            many units a call is.
    """

    name: str
    arguments: Callable[[Path], list[object]]
    outputs: tuple[str, ...]
    given: tuple[str, ...] = ()
    goes_on: bool = True
    work: tuple[str, str, str, int] | None = None

    def begin(self, prepared: Path, place: Path) -> list[object]:
        """Empty a folder, put into it what is there before, and return the command."""
        for entry in place.iterdir() if place.is_dir() else ():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        place.mkdir(parents=True, exist_ok=True)
        for name in self.given:
            shutil.copytree(prepared / name, place / name)
        return self.arguments(place)

    def results(self, place: Path) -> list[Path]:
        """Return the places of its outputs."""
        return [place / name for name in self.outputs]


def extraction(
    images: Path, store: Path, taps: tuple[str, ...] = ("layer3", "avgpool")
) -> list[object]:
    """Return the command that fills a store."""
    run: list[object] = ["extract", images, "-b", NET, "-o", store, "--batch-size", 4]
    for tap in taps:
        run += ["--tap", tap]
    return [*run, "--precision", "fp32", "--workers", 1, "--quiet"]


def _fit(place: Path) -> list[object]:
    run = ["ensemble-fit", place / "train", "--test", place / "test", "-o", place / "four"]
    return [*run, "--epochs", 6, "--batch-size", 32, "--k", 5, "--quiet"]


def _train(method: str, images: Path, place: Path) -> list[object]:
    return ["train", method, images, "-o", place / "run", *TRAINING, *METHODS[method]]


def cases(prepared: Path) -> dict[str, Case]:
    """Return the commands by name; further ones join here."""
    images, few = prepared / "images", prepared / "few"
    rows = ("featkit.extraction.filling", "Filler.add", "rows", 4)
    fit = ("featkit.analyses.ensemble.learning", "Learner.step", "steps", 1)
    training = ("featkit.trainers.loop", "Loop._step", "steps", 1)
    both = ("train", "test")
    answer = {"outputs": ("answer",), "given": both, "goes_on": False}
    found = [
        Case("extract", lambda p: extraction(images, p / "store"), ("store",), work=rows),
        Case("ensemble-fit", _fit, ("four", *both), both, work=fit),
        Case(
            "ensemble-transform",
            lambda p: ["ensemble-transform", p / "four", p / "new", "--quiet"],
            ("new",),
            ("four", "new"),
            goes_on=False,
        ),
        *(
            Case(f"train {m}", lambda p, m=m: _train(m, few, p), ("run",), work=training)
            for m in METHODS
        ),
        Case(
            "dissect",
            lambda p: [
                "dissect", few, "-b", "cifar_resnet20?weights=none&size=32", "--tap", "layer1",
                "-c", "color", "-o", p / "answer", "--workers", 1, "--quiet", "--draws", 10,
                "--chance", 1,
            ],
            ("answer",),
            goes_on=False,
        ),
        Case(
            "saliency",
            lambda p: [
                "saliency", prepared / "tree" / "run", few, "-o", p / "answer", "--workers", 1,
                "--quiet",
            ],
            ("answer",),
            goes_on=False,
        ),
        Case("knn", lambda p: ["knn", p / "train", p / "test", "-o", p / "answer"], **answer),
        Case("probe", lambda p: ["probe", p / "train", p / "test", "-o", p / "answer"], **answer),
        Case(
            "diversity",
            lambda p: ["diversity", p / "test", "--over", "samples", "-o", p / "answer"],
            **answer,
        ),
        Case(
            "project",
            lambda p: [
                "project", p / "test", "--methods", "tsne", "--perplexity", 20, "-o", p / "answer",
            ],
            **answer,
        ),
        Case(
            "export .h5",
            lambda p: ["export", p / "train", "-o", p / "out.h5"],
            ("out.h5",),
            both,
            goes_on=False,
        ),
        Case(
            "export .npz",
            lambda p: ["export", p / "train", "-o", p / "out.npz"],
            ("out.npz",),
            both,
            goes_on=False,
        ),
        Case("verify", lambda p: ["verify", p / "train"], ("train",), both, goes_on=False),
    ]  # fmt: skip
    return {case.name: case for case in found}


def row_of(what: str, how: str, count: int, outcome: str, met: bool | None) -> Row:
    """Return a row of the table: what, how, how often, what came of it, and whether it should."""
    return {"what": what, "how": how, "count": count, "outcome": outcome, "met": met}


def prepare(place: Path) -> None:
    """Make images, and the stores and models that commands read; what is there is kept."""
    if (place / "done").exists():
        return
    shutil.rmtree(place, ignore_errors=True)
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(16) * np.pi / 2)[:, None, None]
    for folder, count in (("images", 80), ("others", 40), ("few", 30)):
        for name in ("lying", "standing"):
            (place / folder / name).mkdir(parents=True)
            for i in range(count):
                own = wave * rng.uniform(60, 120, 3) + 128 + rng.normal(0, 12, (16, 16, 3))
                own = own if name == "lying" else own.transpose(1, 0, 2)
                pixels = Image.fromarray(own.clip(0, 255).astype(np.uint8))
                pixels.save(place / folder / name / f"{i:03d}.png")
    (place / "images" / "lying" / "007.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    log = place / "log"
    for store, source in (("train", "images"), ("test", "others"), ("new", "few")):
        _done(extraction(place / source, place / store), log)
    _done(_fit(place), log)
    shutil.rmtree(place / "train" / "ensemble-four")
    shutil.rmtree(place / "test" / "ensemble-four")
    _done(_train("treenet", place / "few", place / "tree"), log)
    (place / "done").touch()


def _done(run: list[object], log: Path) -> None:
    ended = finish(run, log)
    if ended.wait():
        raise SystemExit(f"{run}: {ended.said}")
