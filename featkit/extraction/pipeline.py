"""One pass over the images fills every table."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from featkit.backbones.base import Backbone
from featkit.backbones.device import choose_device
from featkit.backbones.precision import AGREEMENT, agreement, computing_in, native_precision
from featkit.backbones.resolve import load_backbone
from featkit.backbones.taps import TapRunner
from featkit.data.loading import Batch, default_workers, load_batches
from featkit.data.preprocessing import Preprocessing
from featkit.data.sources import Source, open_source
from featkit.errors import DecodeError, FeatkitError, UsageError
from featkit.extraction.planning import Job, Options, Plan, plan_extraction, refresh
from featkit.store.plans import unfinished_tables
from featkit.store.reader import Store, open_store
from featkit.store.runs import log_run
from featkit.store.samples import write_samples
from featkit.store.schema import SAMPLES_FILE
from featkit.store.writer import PartialTable, remains, sweep, writing


@dataclass
class Summary:
    """What an extraction did.

    Attributes:
        tables: Names of the tables made.
        images: Images that went through the networks in this run.
        seconds: Time of the run, from the first batch to the last table.
        failures: Reason by name of every image of the store that could not be read.
        notes: What the user should be told.
    """

    tables: list[str] = field(default_factory=list)
    images: int = 0
    seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def extract(
    source: str | Path | Source,
    backbones: str | Backbone | Sequence[str | Backbone],
    store: str | Path,
    *,
    taps: str | Sequence[str] = (),
    precision: str = "auto",
    dtype: str = "float32",
    batch_size: int = 32,
    workers: int | None = None,
    device: str = "auto",
    compile: bool = False,  # noqa: A002 - the name of the command's option
    on_error: str = "skip",
    overwrite: bool = False,
    progress: bool = False,
) -> Store:
    """Run every image through every backbone once and keep the activations.

    What is there already is not computed again; what an earlier run left unfinished goes on.

    Args:
        source: Image folder, CSV, ``torchvision:…``, ``digits``, or a source object.
        backbones: One or more specifications (see :func:`featkit.load_backbone`) or loaded
            backbones.
        store: The folder to make or to add to.
        taps: ``PATH[:POOLING]`` for every backbone, or ``BACKBONE/PATH[:POOLING]`` for one; empty
            for what each network's classifier reads.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        dtype: What is stored: ``float32`` or ``float16``.
        batch_size: Images that go through a network together.
        workers: Decoding processes; None chooses by device.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``, …
        compile: Whether to run the networks through ``torch.compile``.
        on_error: ``skip`` images that cannot be read, or ``fail`` at the first.
        overwrite: Whether tables that exist are made anew.
        progress: Whether to draw a progress bar on stderr.

    Returns:
        The store, opened.

    Raises:
        ConflictError: The store is about other images, or has such a table made otherwise.
        DiskFullError: The disk is, or would become, full.
        DecodeError: An image cannot be read, with ``on_error="fail"``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     net = "cifar_resnet20?weights=none"
        ...     store = extract("torchvision:FakeData?size=3", [net], folder, workers=0)
        ...     store.tables()
        [FeatureTable('cifar_resnet20/avgpool.avg', shape=(3, 64), dtype=float32)]
    """
    if on_error not in ("skip", "fail"):
        raise UsageError(f"on_error {on_error!r}: use skip or fail")
    options = Options(
        precision=precision,
        dtype=dtype,
        batch_size=batch_size,
        workers=workers,
        device=device,
        compiled=compile,
        fail_fast=on_error == "fail",
        overwrite=overwrite,
    )
    if isinstance(backbones, str | Backbone):
        backbones = [backbones]
    loaded = [load_backbone(b) if isinstance(b, str) else b for b in backbones]
    taps = [taps] if isinstance(taps, str) else taps
    plan = plan_extraction(open_source(source), loaded, Path(store), taps, options, progress)
    run_plan(plan, progress=progress)
    return open_store(store)


def run_plan(plan: Plan, progress: bool = False) -> Summary:
    """Carry out a plan.

    Args:
        plan: From :func:`plan_extraction`.
        progress: Whether to draw a progress bar on stderr.

    Raises:
        DiskFullError: The disk is, or would become, full.
        DecodeError: An image cannot be read, and the plan says to fail.
        StoreError: Another process is writing to the store.
    """
    device = choose_device(plan.options.device)
    plan.check_disk()
    summary = Summary(notes=plan.notes)
    is_new = not (plan.store / SAMPLES_FILE).exists()
    if plan.jobs or plan.relabels or is_new or remains(plan.store):
        with writing(plan.store):
            refresh(plan)
            sweep(plan.store, {s.key for j in plan.jobs if j.precision for s in j.resolved()})
            _fill_tables(plan, device, summary, progress)
    store = open_store(plan.store)
    for spec in plan.asked:
        for row, reason in store[spec.name].failures.items():
            summary.failures[plan.samples.paths[row]] = reason
    if plan.options.fail_fast:
        for path, reason in summary.failures.items():
            raise _unreadable(path, reason)
    return summary


def _unreadable(path: str, reason: str) -> DecodeError:
    return DecodeError(f"{path} could not be read ({reason}); --on-error skip goes on without it")


def _fill_tables(plan: Plan, device: torch.device, summary: Summary, progress: bool) -> None:
    started = time.monotonic()
    write_samples(plan.store, plan.samples)
    log_run(plan.store, "started", [spec.name for spec in plan.asked], device=str(device))
    for job in plan.jobs:
        _prepare(job, plan, device, summary)
    with ExitStack() as hooks:
        all_fillers = [_Filler(job, plan, device) for job in plan.jobs]
        for filler in all_fillers:
            hooks.callback(filler.close)
        for fillers in _passes(all_fillers):
            _pass_over_images(fillers, plan, device, summary, progress)
        for filler in all_fillers:
            summary.tables += filler.finish()
    summary.seconds = time.monotonic() - started
    log_run(
        plan.store,
        "finished",
        summary.tables,
        images=summary.images,
        seconds=round(summary.seconds, 3),
        torch=torch.__version__,
    )


def _passes(fillers: Sequence[_Filler]) -> list[list[_Filler]]:
    """Group jobs whose parts are cut alike: they share a pass over the images."""
    passes: dict[tuple[int, int], list[_Filler]] = defaultdict(list)
    for filler in fillers:
        passes[filler.job.plan.batch_size, filler.job.plan.part_rows].append(filler)
    return list(passes.values())


def _normalize(
    batch: Batch, recipes: Sequence[Preprocessing], device: torch.device
) -> dict[Preprocessing, Tensor]:
    pixels = [p.to(device, non_blocking=True) for p in batch.pixels]
    return {recipe: recipe.normalize(p) for recipe, p in zip(recipes, pixels, strict=True)}


def _prepare(job: Job, plan: Plan, device: torch.device, summary: Summary) -> None:
    """Move the network to its device, and let the first batch decide the precision."""
    job.backbone.module.to(device).to(memory_format=torch.channels_last)
    if job.precision is not None:
        return
    job.precision = "fp32"
    fast = native_precision(device)
    batch = _first_readable(job, plan) if fast != "fp32" else None
    if batch is None:
        return
    recipe = job.backbone.preprocessing
    images = _normalize(batch, [recipe], device)[recipe]
    readable = [row not in batch.failures for row in batch.rows]
    runner = TapRunner(job.backbone.module, job.taps, _calls(job))
    with closing(runner):
        rows = {}
        for precision in ("fp32", fast):
            with computing_in(precision, device):
                rows[precision] = [tap_rows[readable] for tap_rows in runner(images)]
    cosines = agreement(rows[fast], rows["fp32"])
    if min(cosines) >= AGREEMENT:
        job.precision = fast
    else:
        worst = cosines.index(min(cosines))
        summary.notes.append(
            f"{job.backbone.name}: fp32, because {fast} agrees only to {min(cosines):.4f} (cosine "
            f"of the worst image at {job.taps[worst]}; {AGREEMENT} is wanted)"
        )


def _calls(job: Job) -> dict[str, int]:
    return {path: output.calls for path, output in job.outputs.items()}


def _first_readable(job: Job, plan: Plan) -> Batch | None:
    size, rows = job.plan.batch_size, len(plan.samples)
    batches = [range(start, min(start + size, rows)) for start in range(0, rows, size)]
    recipes = [job.backbone.preprocessing]
    for batch in load_batches(plan.source, recipes, batches, 0, torch.device("cpu")):
        if len(batch.failures) < len(batch.rows):
            return batch
    return None


class _Filler:
    """Runs one job and fills the parts of its tables."""

    def __init__(self, job: Job, plan: Plan, device: torch.device) -> None:
        self.job = job
        self.device = device
        self.tables = [PartialTable(plan.store, spec, job.plan) for spec in job.resolved()]
        for table in self.tables:
            table.begin()
        self.missing = [set(table.missing()) for table in self.tables]
        self.overwrite = plan.options.overwrite
        self._runner = TapRunner(job.backbone.module, job.taps, _calls(job))
        self._forward: Any = torch.compile(self._runner) if job.plan.compiled else self._runner
        self._rows: list[list[NDArray[Any]]] = [[] for _ in self.tables]

    def wants(self, part: int) -> bool:
        """Whether any of the tables lacks this part."""
        return any(part in missing for missing in self.missing)

    def add(self, images: Tensor, readable: NDArray[np.bool_]) -> None:
        """Run one batch of the current part."""
        with computing_in(self.job.precision or "fp32", self.device):
            outputs = self._forward(images)
        for collected, rows, table in zip(self._rows, outputs, self.tables, strict=True):
            with np.errstate(over="ignore"):
                array = rows.cpu().numpy().astype(table.spec.dtype)
            if not np.isfinite(array[readable]).all():
                raise FeatkitError(
                    f"{table.spec.name}: the network gave numbers that {self.job.precision}, "
                    f"stored as {table.spec.dtype}, cannot hold (NaN or infinity); rows so far are "
                    f"safe: "
                    f"try --precision fp32 --dtype float32, or look at its weights"
                )
            array[~readable] = np.nan
            collected.append(array)

    def write(self, part: int, failures: dict[int, str]) -> None:
        """Write the current part where it is missing."""
        for collected, table, missing in zip(self._rows, self.tables, self.missing, strict=True):
            if part in missing:
                rows = table.rows_of(part)
                valid = np.array([row not in failures for row in rows])
                table.write(part, np.concatenate(collected), valid, failures)
            collected.clear()

    def close(self) -> None:
        """Take the hooks off the network."""
        self._runner.close()

    def finish(self) -> list[str]:
        """Let the tables appear; return their names."""
        for table in self.tables:
            table.finish()
            if self.overwrite:
                _forget_unfinished(table)
        return [table.spec.name for table in self.tables]


def _forget_unfinished(table: PartialTable) -> None:
    """Delete what earlier runs with other settings left of a table that is now replaced."""
    for old in unfinished_tables(table.store):
        if old.name == table.spec.name:
            shutil.rmtree(old.folder)


def _pass_over_images(
    fillers: Sequence[_Filler], plan: Plan, device: torch.device, summary: Summary, progress: bool
) -> None:
    cut = fillers[0].tables[0]
    parts = [part for part in range(cut.count) if any(f.wants(part) for f in fillers)]
    batches = [rows for part in parts for rows in _batches(cut, part)]
    recipes = list({filler.job.backbone.preprocessing: None for filler in fillers})
    options = plan.options
    workers = default_workers(device) if options.workers is None else options.workers
    loaded = load_batches(plan.source, recipes, batches, workers, device)
    failures: dict[int, str] = {}
    with tqdm(total=sum(map(len, batches)), unit="img", disable=not progress, smoothing=0.1) as bar:
        for batch in loaded:
            if batch.failures and options.fail_fast:
                row, reason = next(iter(batch.failures.items()))
                raise _unreadable(plan.samples.paths[row], reason)
            failures |= batch.failures
            part = batch.rows.start // cut.plan.part_rows
            readable = np.array([row not in batch.failures for row in batch.rows])
            images = _normalize(batch, recipes, device)
            working = [filler for filler in fillers if filler.wants(part)]
            for filler in working:
                filler.add(images[filler.job.backbone.preprocessing], readable)
            if batch.rows.stop == cut.rows_of(part).stop:
                for filler in working:
                    filler.write(part, failures)
                failures = {}
            summary.images += len(batch.rows)
            bar.update(len(batch.rows))


def _batches(table: PartialTable, part: int) -> Iterator[range]:
    rows, size = table.rows_of(part), table.plan.batch_size
    for start in range(rows.start, rows.stop, size):
        yield range(start, min(start + size, rows.stop))
