"""One pass over the images fills every table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import torch

from featkit.backbones.base import Backbone
from featkit.backbones.device import choose_device
from featkit.backbones.precision import AGREEMENT, agreement, computing_in, native_precision
from featkit.backbones.resolve import load_backbone
from featkit.backbones.taps import TapRunner
from featkit.data.loading import Batch, load_batches
from featkit.data.sources import Source, open_source
from featkit.errors import UsageError
from featkit.extraction.filling import (
    Filler,
    Order,
    normalize,
    pass_over_images,
    passes,
    place,
    unreadable,
)
from featkit.extraction.planning import Job, Options, Plan, plan_extraction, refresh
from featkit.parallel.group import all_of, first, first_holds, here
from featkit.parallel.launch import run_on_ranks, starts_others
from featkit.store.reader import Store, open_store
from featkit.store.runs import log_run
from featkit.store.samples import write_samples
from featkit.store.schema import SAMPLES_FILE
from featkit.store.writer import PartialTable, remains, sweep, writing

_OF_RANKS = ("devices", "num_nodes")


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


def extract(  # noqa: PLR0913 - as many as the command has options
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
    devices: int | None = None,
    num_nodes: int | None = None,
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
        devices: Processes that share the images, each with a GPU of its own where the device is
            one. Sources and backbones are then given as text. The tables have the same bytes as
            from one process with as many threads.
        num_nodes: Machines, on each of which the same is called; see
            :func:`featkit.parallel.launch.run_on_ranks`. The store lies where all can write.
        progress: Whether to draw a progress bar on stderr.

    Returns:
        The store, opened.

    Raises:
        ConflictError: The store is about other images, or has such a table made otherwise.
        DiskFullError: The disk is, or would become, full.
        DecodeError: An image cannot be read, with ``on_error="fail"``.
        RankError: One of several processes was killed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     net = "cifar_resnet20?weights=none"
        ...     store = extract("torchvision:FakeData?size=3", [net], folder, workers=0)
        ...     store.tables()
        [FeatureTable('cifar_resnet20/avgpool.avg', shape=(3, 64), dtype=float32)]
    """
    if (devices, num_nodes) != (None, None) and starts_others(devices, num_nodes):
        given = {name: value for name, value in locals().items() if name not in _OF_RANKS}
        run_on_ranks(extract, given, devices, num_nodes)
        return open_store(store)
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

    Of several processes each fills parts of its own, and the first does the rest.

    Args:
        plan: From :func:`plan_extraction`.
        progress: Whether to draw a progress bar on stderr.

    Raises:
        DiskFullError: The disk is, or would become, full.
        DecodeError: An image cannot be read, and the plan says to fail.
        StoreError: Another process is writing to the store.
    """
    device = choose_device(plan.options.device)
    first(plan.check_disk)
    summary = Summary(notes=plan.notes)
    if first(lambda: _is_due(plan)):
        with first_holds(lambda: writing(plan.store)):
            _fill_tables(plan, device, summary, progress)
    store = open_store(plan.store)
    for spec in plan.asked:
        for row, reason in store[spec.name].failures.items():
            summary.failures[plan.samples.paths[row]] = reason
    if plan.options.fail_fast:
        for path, reason in summary.failures.items():
            raise unreadable(path, reason)
    return summary


def _is_due(plan: Plan) -> bool:
    is_new = not (plan.store / SAMPLES_FILE).exists()
    return bool(plan.jobs or plan.relabels or is_new or remains(plan.store))


def _fill_tables(plan: Plan, device: torch.device, summary: Summary, progress: bool) -> None:
    started = time.monotonic()
    orders, processes = first(lambda: _begin(plan, device, summary)), here().count
    with ExitStack() as hooks:
        all_fillers = [Filler(order, plan, device) for order in orders]
        for filler in all_fillers:
            hooks.callback(filler.close)
        for fillers in passes(all_fillers):
            summary.images += pass_over_images(fillers, plan, device, progress)
    summary.images = sum(all_of(summary.images))
    summary.tables = first(lambda: [name for filler in all_fillers for name in filler.finish()])
    summary.seconds = time.monotonic() - started
    first(
        lambda: log_run(
            plan.store,
            "finished",
            summary.tables,
            images=summary.images,
            seconds=round(summary.seconds, 3),
            processes=processes,
            torch=torch.__version__,
        )
    )


def _begin(plan: Plan, device: torch.device, summary: Summary) -> list[Order]:
    """Make what all processes find in the store, and say what they have to do."""
    refresh(plan)
    sweep(plan.store, {s.key for j in plan.jobs if j.precision for s in j.resolved()})
    write_samples(plan.store, plan.samples)
    asked = [spec.name for spec in plan.asked]
    log_run(plan.store, "started", asked, device=str(device))
    orders = []
    for job in plan.jobs:
        _decide_precision(job, plan, device, summary)
        specs, calls = job.resolved(), _calls(job)
        tables = [PartialTable(plan.store, spec, job.plan) for spec in specs]
        for table in tables:
            table.begin()
        missing = [set(table.missing()) for table in tables]
        name, precision = job.backbone.name, job.precision or "fp32"
        orders.append(Order(name, job.taps, calls, precision, job.plan, specs, missing))
    return orders


def _decide_precision(job: Job, plan: Plan, device: torch.device, summary: Summary) -> None:
    """Let the first batch decide, where nothing has."""
    if job.precision is not None:
        return
    job.precision = "fp32"
    fast = native_precision(device)
    batch = _first_readable(job, plan) if fast != "fp32" else None
    if batch is None:
        return
    recipe = job.backbone.preprocessing
    place(job.backbone, device)
    images = normalize(batch, [recipe], device)[recipe]
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
