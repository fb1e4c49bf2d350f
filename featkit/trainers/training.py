"""Training from a source of images to a folder with networks."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featkit.analyses.base import RESULT_FILE, Figure, Result, check_folder
from featkit.backbones.device import choose_device
from featkit.backbones.precision import native_precision
from featkit.backbones.size import NetworkSize, network_size
from featkit.backbones.training_runs import RunRecord, is_run, read_run
from featkit.data.sources import Source, open_source
from featkit.errors import UsageError
from featkit.extraction.listing import list_samples
from featkit.parallel.group import first, first_holds
from featkit.parallel.launch import run_on_ranks, starts_others
from featkit.registry import did_you_mean
from featkit.trainers.base import Learner, Method
from featkit.trainers.examples import example_views
from featkit.trainers.images import TrainingImages, load_images
from featkit.trainers.loop import Loop, Progress
from featkit.trainers.run_folder import check_place, open_run
from featkit.trainers.settings import Precision, Training

METHODS = {
    "deepcluster": "featkit.trainers.deepcluster.method:DeepCluster",
    "simclr": "featkit.trainers.simclr:SimCLR",
    "treenet": "featkit.trainers.treenet:TreeNet",
}
"""Where each method is, by the name of its command."""


def find_method(name: str) -> type[Method]:
    """Import a method.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in METHODS:
        raise UsageError(f"no method {name!r}: {did_you_mean(name, METHODS)}")
    module, _, attribute = METHODS[name].partition(":")
    found: type[Method] = getattr(importlib.import_module(module), attribute)
    return found


def train(
    method: str,
    source: str | Path | Source,
    run: str | Path,
    *,
    preset: str = "paper",
    device: str = "auto",
    workers: int | None = None,
    overwrite: bool = False,
    devices: int | None = None,
    num_nodes: int | None = None,
    progress: bool = False,
    draw: Callable[[Result, Path], object] | None = None,
    **options: Any,
) -> Result:
    """Train a network, which is a backbone afterwards.

    A training that was stopped, however, goes on when it is called with the same settings; on the
    same CPU, with as many threads, its weights are those of one that never was, byte for byte.

    Args:
        method: ``simclr``, ``treenet`` or ``deepcluster``.
        source: Image folder, CSV, ``torchvision:…``, ``digits``, or a source object.
        run: The folder to make or to go on in.
        preset: ``paper``, ``cpu`` (minutes on a few cores), ``tiny`` (seconds, to try it out), or
            another of the method's.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``, …
        workers: Decoding processes; None chooses by device.
        overwrite: Whether to start again where a training is.
        devices: Processes that share each batch, each with a GPU of its own where the device is
            one. The source is then given as text. What is learned is what one process learns, up to
            the order in which numbers are added.
        num_nodes: Machines, on each of which the same is called; see
            :func:`featkit.parallel.launch.run_on_ranks`. The run lies where all can read.
        progress: Whether to draw progress bars on stderr.
        draw: Draws the figures of the result into the folder. It is called before the run counts as
            finished: one that is killed there is ended by the next call.
        **options: In place of the preset's: fields of the method's ``Config`` and of
            :class:`featkit.trainers.settings.Training`.

    Returns:
        Table ``epochs`` (see :class:`featkit.trainers.loop.Progress`) and its figures, which
        ``result.json`` in the folder holds too. ``load_backbone(run)`` gives the network,
        ``load_backbone(f"{run}?epoch=10")`` that of another epoch that is kept.

    Raises:
        UsageError: A setting cannot be used, or the folder holds something else.
        ConflictError: The folder holds a training with other settings or images.
        DivergedError: The loss or a weight is no finite number.
        RankError: One of several processes was killed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     few = {"epochs": 1, "images": 80, "batch_size": 32}
        ...     result = train("simclr", "digits", f"{folder}/run", preset="tiny", **few)
        >>> [row["epoch"] for row in result.tables["epochs"]]
        [0, 1]
    """
    kind = find_method(method)
    own, training = split_options(kind, preset, options)
    if (devices, num_nodes) != (None, None) and starts_others(devices, num_nodes):
        given = {
            "method": method, "source": source, "run": run, "preset": preset, "device": device,
            "workers": workers, "overwrite": overwrite, "progress": progress, "draw": draw,
            **options,
        }  # fmt: skip
        run_on_ranks(train, given, devices, num_nodes)
        return Result.load(run, method)
    path, where = Path(run), choose_device(device)
    check_folder(run, method)
    check_place(path)
    precision = first(lambda: _precision(training.precision, path, where, overwrite))
    training = replace(training, precision=precision)
    images = open_source(source)
    check_outside(source, path)
    gpus = range(torch.cuda.device_count()) if where.type == "cuda" else ()
    with torch.random.fork_rng(list(gpus)):
        learner = kind(own).learner(training.size, training.seed)
        learner.check_count(learned_count(images, training))
        settings = {
            **asdict(own),
            **asdict(training),
            "samples": first(lambda: list_samples(images, path, progress).manifest),
            "labels": _labels_digest(images),
        }
        network = learner.network
        record = RunRecord(kind.name, network.architecture, network.preprocessing, settings)
        with first_holds(lambda: open_run(path, record, overwrite)) as folder:
            if folder.record.chosen is not None:
                first(folder.sweep)  # what a kill at the very end has left
                return _finished(path, method)
            loaded = load_images(images, training, network.preprocessing, path, workers, progress)
            result = Result(
                method,
                {**asdict(own), **asdict(training)},
                provenance={
                    **describe_training(images, settings["samples"], where),
                    "architecture": network.architecture,
                    "seed": training.seed,
                },
                figures=[*_FIGURES[: 2 + bool(len(loaded.judged))], *learner.figures],
            )
            views, names = example_views(learner, loaded, training.seed)
            result.arrays = {
                "views": views,
                "columns": np.array(names),
                "rows": np.array([""] * len(views)),
            }
            notes, size = _notes(loaded, training), cache(partial(network_size, network))
            said = partial(_report, result, notes, path, learner, size, loaded)
            loop = Loop(learner, loaded, training, folder, where, said)
            loop.run(progress)
            if draw is not None:
                first(partial(draw, result, path))
            first(loop.finish)
    return result


def _finished(path: Path, method: str) -> Result:
    """Return what a training has said when it ended."""
    if not (path / RESULT_FILE).is_file():
        raise UsageError(
            f"{path}: this training has finished, and its {RESULT_FILE} is gone; its networks can "
            f"be used, and --overwrite trains again"
        )
    return Result.load(path, method)


def _notes(images: TrainingImages, training: Training) -> list[str]:
    notes = [f"{name} is left out: {why}" for name, why in images.unreadable.items()]
    if training.held_out and not len(images.judged):
        why = "its images have no labels, or several each" if images.labels is None else "too few"
        notes.append(f"no image is held out ({why}): neighbours do not judge this training")
    return notes


def _labels_digest(images: Source) -> str | None:
    """Return the sha256 of labels, which decide what is held out; None without any."""
    if images.labels is None:
        return None
    labels = images.labels
    return hashlib.sha256(f"{labels.shape} {labels.dtype}".encode() + labels.tobytes()).hexdigest()


def learned_count(images: Source, training: Training) -> int:
    """Return how many images are learned from, if all of them can be read."""
    count = min(len(images.ids), training.images or len(images.ids))
    is_labelled = images.labels is not None and images.labels.ndim == 1
    return count - (round(training.held_out * count) if is_labelled else 0)


def check_outside(source: object, path: Path) -> None:
    """Refuse a folder within that of the images, which its figures would join.

    Raises:
        UsageError: It is.
    """
    folder = Path(source).resolve() if isinstance(source, str | Path) else None
    if folder is not None and folder.is_dir() and path.resolve().is_relative_to(folder):
        raise UsageError(f"{path} lies in {source}, where figures would be images: give another")


def _report(
    result: Result,
    notes: Sequence[str],
    path: Path,
    learner: Learner,
    size_of: Callable[[], NetworkSize],
    images: TrainingImages,
    now: Progress,
) -> None:
    """Say in ``result.json`` how far a training has come."""
    size = size_of()
    result.tables = {"epochs": now.rows, **learner.tables(now.rows)}
    result.notes = [*notes, *learner.notes(now.rows)]
    result.scalars = {
        "epochs": now.epoch,
        "images": len(images.learned),
        "held_out": len(images.judged),
        "parameters": sum(p.numel() for p in learner.network.module.parameters()),
        "encoder_parameters": size.parameters,
        "flops": size.flops,
        "activations": size.activations,
    }
    if now.best >= 0:
        result.scalars |= {"best_knn_top1": now.best, "best_epoch": now.best_epoch}
    result.save(path)


def split_options(
    kind: type[Method], preset: str, options: Mapping[str, Any]
) -> tuple[Any, Training]:
    """Return what a method and what the loop is told.

    Raises:
        UsageError: There is no such preset or option, or a value cannot be used.
    """
    if preset not in kind.presets:
        raise UsageError(f"no preset {preset!r}: {did_you_mean(preset, kind.presets)}")
    known = {field.name: part for part in (kind.Config, Training) for field in fields(part)}
    given = decided(kind)
    known = {name: part for name, part in known.items() if name not in given}
    for name in options:
        if name not in known:
            raise UsageError(f"{kind.name} has no option {name!r}: {did_you_mean(name, known)}")
    chosen = {**kind.presets[preset], **options}
    own, training = (
        part(**{name: value for name, value in chosen.items() if known[name] is part})
        for part in (kind.Config, Training)
    )
    return own, replace(training, **{name: getattr(own, name) for name in given})


def decided(kind: type[Method]) -> set[str]:
    """Return the fields of :class:`Training` that follow from a method's own options.

    Example:
        >>> decided(find_method("deepcluster")), decided(find_method("simclr"))
        ({'epochs'}, set())
    """
    names = (field.name for field in fields(Training))
    return {name for name in names if isinstance(getattr(kind.Config, name, None), property)}


def _precision(asked: Precision, path: Path, device: torch.device, overwrite: bool) -> Precision:
    """Decide once; a training that goes on keeps to what was decided."""
    if asked == "auto" and is_run(path) and not overwrite:
        return "bf16" if read_run(path).settings.get("precision") == "bf16" else "fp32"
    return resolve_precision(asked, device)


def resolve_precision(asked: Precision, device: torch.device) -> Precision:
    """Return what ``auto`` means on a device; anything else means itself."""
    if asked != "auto":
        return asked
    return "bf16" if native_precision(device) == "bf16" else "fp32"


def describe_training(source: Source, samples: str, device: torch.device) -> dict[str, Any]:
    """Return the ``provenance`` of what images, a machine and libraries decide."""
    libraries = ("featkit", "torch", "torchvision", "timm", "numpy", "faiss-cpu", "scikit-learn")
    return {
        "source": source.name,
        "samples": samples,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in libraries},
        },
    }


_FIGURES = [
    Figure(
        "views",
        "pictures",
        "views",
        "Images, and their views",
        "",
        "",
        labels="rows",
        columns="columns",
    ),
    Figure("loss", "line", "epochs", "Loss", "epoch", "loss"),
    Figure("knn", "line", "epochs", "Accuracy of 20 neighbours", "epoch", "knn_top1"),
]
