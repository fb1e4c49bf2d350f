"""Many small trainings beside each other, each kept in a file with what it was made by."""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featkit.store.files import write_whole

Row = dict[str, Any]


def list_images(folder: Path, count: int, target: Path) -> str:
    """Write a CSV of images drawn at random, as many of each class, and return it as a source."""
    rng = np.random.default_rng(0)
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    share = count // len(classes)
    rows = []
    for entry in classes:
        files = sorted(entry.iterdir())
        chosen = np.sort(rng.permutation(len(files))[:share])
        rows += [(f"{entry.name}/{files[i].name}", entry.name) for i in chosen]
    with target.open("w", newline="") as out:
        csv.writer(out).writerows([("path", "label"), *rows])
    return f"{target}?root={folder}"


def study_parser(description: str | None, scales: Iterable[str]) -> argparse.ArgumentParser:
    """Return what the studies on CIFAR-10 are asked with; a GPU's size is the default on one."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("images", type=Path, metavar="CIFAR10", help="with train/ and test/")
    parser.add_argument("--work", type=Path, metavar="WORK", required=True, help="what is kept")
    default = "gpu" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--scale", choices=list(scales), default=default)
    return parser


def kept(file: Path, made_by: Row) -> Row | None:
    """Return what a file holds, if it was made by the same settings."""
    if not file.exists():
        return None
    told: Row = json.loads(file.read_text())
    return told if told["made_by"] == json.loads(json.dumps(made_by)) else None


def keep(file: Path, made_by: Row, told: Row) -> None:
    """Write what was found, and the settings that it was made by."""
    file.parent.mkdir(exist_ok=True)
    write_whole(file, json.dumps({"made_by": made_by, **told}, indent=1).encode())


def one_core() -> None:
    """Compute on one core where two networks are trained beside each other."""
    if not torch.cuda.is_available():
        torch.set_num_threads(1)


def run_all(work_on: Any, tasks: Sequence[Row], scale: str, work: Path) -> None:
    """Run tasks, one a core beside each other, or one by one on a GPU."""
    given = [(task, scale, work) for task in tasks]
    if scale == "gpu":
        for one in given:
            print(work_on(one), flush=True)
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for line in pool.imap_unordered(work_on, given, chunksize=1):
            print(line, flush=True)
