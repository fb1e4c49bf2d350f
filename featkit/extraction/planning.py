"""What has to be computed: which tables are there, which are begun, which are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from featkit.backbones.base import Backbone
from featkit.backbones.precision import PRECISIONS
from featkit.backbones.probe import Probe, probe, resolve_taps, row_shape
from featkit.backbones.taps import Tap, token_layout
from featkit.data.sources import Source
from featkit.errors import ConflictError, DiskFullError, UsageError
from featkit.extraction.listing import list_samples
from featkit.parallel.group import first
from featkit.registry import did_you_mean
from featkit.store.files import free_bytes, size_text
from featkit.store.fingerprint import differences
from featkit.store.plans import PartPlan, Unfinished, unfinished_tables
from featkit.store.reader import FeatureTable
from featkit.store.samples import Samples, read_samples
from featkit.store.schema import SAMPLES_FILE, table_file
from featkit.store.writer import TableSpec

PART_BYTES = 64e6
"""Bytes of rows, over all tables of a pass, that a crash may lose at most."""

PART_BATCHES = 8
"""Batches in a part at most."""


@dataclass(frozen=True)
class Options:
    """How to extract.

    Attributes:
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        dtype: What is stored: ``float32`` or ``float16``.
        batch_size: Images that go through a network together.
        workers: Decoding processes; None chooses by device.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        compiled: Whether to run the networks through ``torch.compile``.
        fail_fast: Whether the first image that cannot be read ends the run.
        overwrite: Whether tables that exist are made anew.
    """

    precision: str = "auto"
    dtype: str = "float32"
    batch_size: int = 32
    workers: int | None = None
    device: str = "auto"
    compiled: bool = False
    fail_fast: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name, value, known in (
            ("precision", self.precision, PRECISIONS),
            ("dtype", self.dtype, ("float32", "float16")),
        ):
            if value not in known:
                raise UsageError(f"{name} {value!r}: use {', '.join(known)}")
        if self.batch_size < 1:
            raise UsageError(f"batch size {self.batch_size}: at least 1")
        if self.workers is not None and self.workers < 0:
            raise UsageError(f"workers {self.workers}: at least 0")


@dataclass
class Job:
    """Tables that one network gives in one forward.

    Attributes:
        backbone: The network.
        outputs: Its trial run.
        taps: What is read.
        specs: The table of each tap; their provenance lacks the precision until it is known.
        precision: The format to run in; None until the first batch has decided.
        plan: How parts are cut.
    """

    backbone: Backbone
    outputs: Probe
    taps: list[Tap]
    specs: list[TableSpec]
    precision: str | None
    plan: PartPlan

    def resolved(self) -> list[TableSpec]:
        """The tables with the precision in their provenance."""
        return [
            replace(spec, provenance={**spec.provenance, "precision": self.precision})
            for spec in self.specs
        ]


@dataclass
class Plan:
    """All that one extraction will do.

    Attributes:
        store: The store's folder.
        source: The images.
        samples: Their names, contents and labels.
        backbones: The networks.
        asked: Every table asked for, in order; finished ones included.
        finished: Names of those that are there already.
        relabels: Whether the store has the same images with other labels.
        jobs: What is to be computed.
        bytes_done: Bytes of rows that unfinished tables have on disk already.
        notes: What the user should be told.
        options: How to extract.
    """

    store: Path
    source: Source
    samples: Samples
    backbones: Sequence[Backbone]
    options: Options
    asked: list[TableSpec] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    relabels: bool = False
    jobs: list[Job] = field(default_factory=list)
    bytes_done: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def pending(self) -> list[TableSpec]:
        """The tables to be computed."""
        return [spec for job in self.jobs for spec in job.specs]

    def check_disk(self) -> None:
        """Refuse to begin what will not fit: all rows in parts, and one table while it is joined.

        Raises:
            DiskFullError: It will not.
        """
        sizes = [spec.nbytes for spec in self.pending]
        needed = sum(sizes) - self.bytes_done + max(sizes, default=0)
        free = free_bytes(self.store)
        if needed > free:
            raise DiskFullError(
                f"{size_text(needed)} needed, {size_text(free)} free at "
                f"{self.store}: choose another disk, --dtype float16, or a smaller pooling"
            )


def plan_extraction(
    source: Source,
    backbones: Sequence[Backbone],
    store: Path,
    taps: Sequence[str],
    options: Options,
    progress: bool = False,
) -> Plan:
    """Compare what is asked for with what the store has; nothing is written.

    Args:
        source: The images.
        backbones: The networks.
        store: The store's folder, which need not exist.
        taps: ``PATH[:POOLING]`` for every backbone, or ``BACKBONE/PATH[:POOLING]`` for one.
        options: How to extract.
        progress: Whether to draw a progress bar on stderr while images are hashed.

    Raises:
        ConflictError: The store is about other images, or a table of the same name was made from
            something else.
    """
    names = [backbone.name for backbone in backbones]
    if not names:
        raise UsageError("no backbone given; name one or more, such as torchvision:resnet50")
    for backbone in backbones:
        if names.count(backbone.name) > 1:
            raise UsageError(
                f"two backbones are called {backbone.name!r}; name one: -b other={backbone.spec}"
            )
    asked_taps = _taps_by_backbone(taps, names)
    samples = first(lambda: list_samples(source, store, progress))
    plan = Plan(store, source, samples, backbones, options, notes=list(source.notes))
    check_samples(plan)
    begun = unfinished_tables(store)
    for backbone in backbones:
        backbone.module.eval()
        identity = backbone.identity()
        report = backbone.network.checkpoint
        outputs = probe(backbone)
        layout = token_layout(backbone.module)
        pending: list[tuple[Tap, TableSpec]] = []
        for tap in resolve_taps(backbone, asked_taps[backbone.name], outputs):
            shape = outputs[tap.path].shape
            assert shape is not None  # noqa: S101 - resolve_taps has seen to it
            spec = TableSpec(
                backbone=backbone.name,
                tap=tap.name,
                pooling=tap.pooling,
                spec=backbone.spec,
                provenance=_provenance(backbone, identity, tap, plan),
                rows=len(plan.samples),
                row_shape=row_shape(shape, tap, layout),
                dtype=options.dtype,
                checkpoint=asdict(report) if report else None,
            )
            twin = next((s for s in plan.asked if s.key == spec.key), None)
            if twin is not None:
                raise UsageError(
                    f"{twin.name} and {spec.name} are one table under two names (same weights, tap "
                    f"and preprocessing); ask for one of them"
                )
            plan.asked.append(spec)
            if _is_finished(spec, plan):
                plan.finished.append(spec.name)
            else:
                pending.append((tap, spec))
        plan.jobs += _jobs(backbone, outputs, pending, begun, plan)
    _cut_parts(plan.jobs)
    return plan


def refresh(plan: Plan) -> None:
    """Compare once more, under the store's lock: another process may have written meanwhile.

    Raises:
        ConflictError: What it wrote is about other images, or has a name that is asked for here.
    """
    check_samples(plan)
    for job in plan.jobs:
        made = [_is_finished(spec, plan) for spec in job.specs]
        plan.finished += [spec.name for spec, there in zip(job.specs, made, strict=True) if there]
        job.taps = [tap for tap, there in zip(job.taps, made, strict=True) if not there]
        job.specs = [spec for spec, there in zip(job.specs, made, strict=True) if not there]
    plan.jobs = [job for job in plan.jobs if job.specs]


def _taps_by_backbone(taps: Sequence[str], backbones: Sequence[str]) -> dict[str, list[str]]:
    chosen: dict[str, list[str]] = {name: [] for name in backbones}
    for text in taps:
        name, slash, tap = text.rpartition("/")
        if slash and name not in chosen:
            raise UsageError(f"tap {text!r}: no backbone {name!r}; {did_you_mean(name, chosen)}")
        for backbone in [name] if slash else backbones:
            chosen[backbone].append(tap)
    return chosen


def check_samples(plan: Plan) -> None:
    """Compare the images and labels of a plan with those of its store.

    Raises:
        ConflictError: The store is about other images, or labels them otherwise.
    """
    if not (plan.store / SAMPLES_FILE).is_file():
        return
    old, new = read_samples(plan.store), plan.samples
    if old.manifest != new.manifest:
        changed = _first_change(old, new)
        raise ConflictError(
            f"{plan.store} is about other images: {len(old)} from {old.source}, not these "
            f"{len(new)} from {new.source} ({changed}); choose another folder with -o"
        )
    plan.relabels = not old.same_labels(new)
    if plan.relabels and not plan.options.overwrite:
        raise ConflictError(
            f"{plan.store} has the same images with other labels; --overwrite replaces the labels "
            f"and keeps the features"
        )


def _first_change(old: Samples, new: Samples) -> str:
    for row, (a, b) in enumerate(zip(old.paths, new.paths, strict=False)):
        if a != b:
            return f"row {row} is {a} there and {b} here"
        if not np.array_equal(old.digests[row], new.digests[row]):
            return f"the content of {a} has changed"
    return "one is longer"


def _provenance(
    backbone: Backbone, identity: dict[str, Any], tap: Tap, plan: Plan
) -> dict[str, Any]:
    return {
        "backbone": identity,
        "tap": tap.path,
        "pooling": tap.pooling,
        "preprocessing": backbone.preprocessing.as_dict(),
        "samples": plan.samples.manifest,
        "dtype": plan.options.dtype,
    }


def _wanted(spec: TableSpec, options: Options) -> dict[str, Any]:
    """The provenance asked for, with the precision only where it was named."""
    named = {} if options.precision == "auto" else {"precision": options.precision}
    return {**spec.provenance, **named}


def _matches(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return {**found, **wanted} == found and found.keys() - wanted.keys() <= {"precision"}


def _is_finished(spec: TableSpec, plan: Plan) -> bool:
    """Whether a table is there; new labels alone do not make one be computed again."""
    path = plan.store / table_file(spec.backbone, spec.tap, spec.pooling)
    overwrite = plan.options.overwrite
    if not path.is_file() or (overwrite and not plan.relabels):
        return False
    found = FeatureTable(path, plan.samples).provenance
    wanted = _wanted(spec, plan.options)
    if _matches(found, wanted):
        return True
    if overwrite:
        return False
    differ = "; ".join(differences(found, {"precision": found["precision"], **wanted}))
    raise ConflictError(
        f"{plan.store} has a table {spec.name} made from something else ({differ}); give the "
        f"backbone another name (-b other={spec.spec}) or replace the table with --overwrite"
    )


def _jobs(
    backbone: Backbone,
    outputs: Probe,
    pending: Sequence[tuple[Tap, TableSpec]],
    begun: Sequence[Unfinished],
    plan: Plan,
) -> list[Job]:
    """Group the pending tables of one backbone by what they must run with."""
    options = plan.options
    asked_precision = None if options.precision == "auto" else options.precision
    jobs: dict[tuple[str | None, PartPlan | None], Job] = {}
    for tap, spec in pending:
        wanted = _wanted(spec, options)
        old = next((u for u in begun if _matches(dict(u.provenance), wanted)), None)
        precision = old.provenance["precision"] if old else asked_precision
        group = (precision, old.plan if old else None)
        if group not in jobs:
            cut = PartPlan(options.batch_size, 0, options.compiled)
            jobs[group] = Job(backbone, outputs, [], [], precision, old.plan if old else cut)
        jobs[group].taps.append(tap)
        jobs[group].specs.append(spec)
        if old:
            plan.bytes_done += old.rows_done * spec.row_bytes
            plan.notes.append(_resume_note(old, options))
    return list(jobs.values())


def _cut_parts(jobs: Sequence[Job]) -> None:
    """Give all jobs that are new the same parts, so that they share one pass over the images."""
    new = [job for job in jobs if not job.plan.part_rows]
    row_bytes = sum(spec.row_bytes for job in new for spec in job.specs)
    for job in new:
        batches = min(PART_BATCHES, max(1, int(PART_BYTES // (job.plan.batch_size * row_bytes))))
        job.plan = replace(job.plan, part_rows=batches * job.plan.batch_size)


def _resume_note(old: Unfinished, options: Options) -> str:
    kept = [f"precision {old.provenance['precision']}"] * (options.precision == "auto")
    if old.plan.batch_size != options.batch_size:
        kept.append(f"batch size {old.plan.batch_size}")
    if old.plan.compiled != options.compiled:
        kept.append("torch.compile" if old.plan.compiled else "no torch.compile")
    note = f"{old.name}: {old.rows_done:,} of {old.rows:,} rows were done; going on from there"
    return note + (f" with {', '.join(kept)}" if kept else "")
