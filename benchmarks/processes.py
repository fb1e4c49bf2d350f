"""Two processes against one: how fast, and how far apart what they give is.

On a machine of two cores two processes have one thread each, and one process two; so nothing can be
gained here but what threads lose. What is measured is what sharing costs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from benchmarks.harness import command_line, interleaved, save
from benchmarks.jobs import list_images
from featkit.store.reader import open_store

EXTRACTED, TRAINED = 4_000, 2_000
EXTRACT = "-b cifar_resnet56?weights=none -b cifar_resnet20?weights=none --precision fp32"
TRAIN = "--preset cpu --epochs 1 --precision fp32 --held-out 0"
TRAIN += " --optimizer sgd --lr 0.003 --weight-decay 0"
FIT = "--preset paper-stable --epochs 10"
WAYS = {"one process": (2, 1), "one process, one thread": (1, 1), "two processes": (1, 2)}
"""Threads of each process, and processes."""


def run(arguments: list[str], threads: int, devices: int) -> None:
    """Run a command."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "featkit_cli", *arguments, "--devices", str(devices)]
    subprocess.run([*command, "--quiet"], env=environment, check=True, stdout=subprocess.DEVNULL)


def extract(source: str, work: Path, way: str) -> float:
    """Return the seconds that a command has spent on images, by its own log."""
    store = work / f"store {way}"
    shutil.rmtree(store, ignore_errors=True)
    run(["extract", source, *EXTRACT.split(), "-o", str(store)], *WAYS[way])
    lines = (store / "runs.jsonl").read_text().splitlines()
    return float(json.loads(lines[-1])["seconds"])


def train(source: str, work: Path, way: str) -> float:
    """Return the seconds of the steps of an epoch, by its own table."""
    given = ["--images", str(TRAINED), *TRAIN.split(), "--overwrite"]
    run(["train", "simclr", source, "-o", str(work / f"run {way}"), *given], *WAYS[way])
    rows = json.loads((work / f"run {way}" / "result.json").read_text())["tables"]["epochs"]
    return float(rows[-1]["seconds"])


def fit(work: Path, way: str) -> float:
    """Return the seconds of a whole command, starts of processes among them."""
    store, folder = work / f"store {way}", work / f"psi {way}"
    given = ["ensemble-fit", str(store), "-o", str(folder), "--name", "psi", "--overwrite"]
    before = os.times().elapsed
    run([*given, *FIT.split()], *WAYS[way])
    return os.times().elapsed - before


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Return ‖a - b‖ / ‖a‖."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(one))


def weights(run_folder: Path) -> np.ndarray:
    """Return what was learned, running statistics left out, as one vector."""
    tensors = load_file(max((run_folder / "weights").glob("*.safetensors")))
    learned = [t for name, t in sorted(tensors.items()) if "running" not in name]
    return np.concatenate([t.double().numpy().ravel() for t in learned])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, metavar="CIFAR10", help="with train/ and test/")
    parser.add_argument("--work", type=Path, metavar="WORK", required=True)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    source = list_images(given.images / "train", EXTRACTED, given.work / "images.csv")
    claims: list[dict[str, Any]] = []
    times: dict[str, dict[str, list[float]]] = {}
    for what, seconds_of in (
        ("extraction", partial(extract, source)),
        ("training", partial(train, source)),
        ("ensemble", fit),
    ):
        ways = {way: partial(seconds_of, given.work, way) for way in WAYS}
        times[what] = interleaved(ways, given.repeats)
    stores = [open_store(given.work / f"store {way}") for way in list(WAYS)[1:]]
    files = [store.table_files()[:2] for store in stores]
    same = all(a.read_bytes() == b.read_bytes() for a, b in zip(*files, strict=True))
    psi = [store["ensemble-psi"].numpy() for store in stores]
    learned = [weights(given.work / f"run {way}") for way in list(WAYS)[1:]]
    agree = {
        "extraction": "the same bytes" if same else "other bytes",
        "training": f"weights apart by {apart(*learned):.1e} of their length",
        "ensemble": f"ψ apart by {apart(*psi):.1e} of its length",
    }
    sizes = {
        "extraction": f"{EXTRACTED:,} images of CIFAR-10, two networks",
        "training": f"SimCLR, {TRAINED:,} images, one epoch of steps",
        "ensemble": f"{EXTRACTED:,} images, two models, the whole command",
    }
    for what, found in times.items():
        two, one = (statistics.median(found[way]) for way in ("two processes", "one process"))
        claims.append(
            {
                "what": f"{what} by two processes of one thread, against one process of two",
                "measured": f"{one / two:.2f}× as fast ({two:.1f} s for {one:.1f} s); against one "
                f"of one thread {agree[what]}",
                "target": "—",
                "met": None,
                "sized": f"{sizes[what]}; two cores",
            }
        )
    save("processes", command_line(parser, given), claims, seconds=times)


if __name__ == "__main__":
    main()
