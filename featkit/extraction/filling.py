"""Images go through networks, and their rows into parts."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featkit.backbones.base import Backbone
from featkit.backbones.precision import computing_in
from featkit.backbones.taps import Tap, TapRunner
from featkit.data.loading import Batch, default_workers, load_batches
from featkit.data.preprocessing import Preprocessing
from featkit.errors import DecodeError, FeatkitError
from featkit.extraction.planning import Plan
from featkit.parallel.group import added_by_all, here
from featkit.progress import progress_bar
from featkit.store.plans import PartPlan, unfinished_tables
from featkit.store.writer import PartialTable, TableSpec


@dataclass(frozen=True)
class Order:
    """What one network has to fill, as the first process tells the others.

    Attributes:
        backbone: Its name.
        taps: What is read.
        calls: How often each tapped module runs in a forward.
        precision: The format to run in.
        plan: How parts are cut.
        specs: The table of each tap.
        missing: Parts that each table lacks.
    """

    backbone: str
    taps: list[Tap]
    calls: dict[str, int]
    precision: str
    plan: PartPlan
    specs: list[TableSpec]
    missing: list[set[int]]


class Filler:
    """Runs one network and fills the parts of its tables."""

    def __init__(self, order: Order, plan: Plan, device: torch.device) -> None:
        self.order = order
        self.device = device
        self.backbone = next(b for b in plan.backbones if b.name == order.backbone)
        self.tables = [PartialTable(plan.store, spec, order.plan) for spec in order.specs]
        self.overwrite = plan.options.overwrite
        place(self.backbone, device)
        self._runner = TapRunner(self.backbone.module, order.taps, order.calls)
        self._forward: Any = torch.compile(self._runner) if order.plan.compiled else self._runner
        self._rows: list[list[NDArray[Any]]] = [[] for _ in self.tables]

    def wants(self, part: int) -> bool:
        """Whether any of the tables lacks this part."""
        return any(part in missing for missing in self.order.missing)

    def add(self, images: Tensor, readable: NDArray[np.bool_]) -> None:
        """Run one batch of the current part."""
        with computing_in(self.order.precision, self.device):
            outputs = self._forward(images)
        for collected, rows, table in zip(self._rows, outputs, self.tables, strict=True):
            with np.errstate(over="ignore"):
                array = rows.cpu().numpy().astype(table.spec.dtype)
            if not np.isfinite(array[readable]).all():
                raise FeatkitError(
                    f"{table.spec.name}: the network gave numbers that {self.order.precision}, "
                    f"stored as {table.spec.dtype}, cannot hold (NaN or infinity); rows so far are "
                    f"safe: "
                    f"try --precision fp32 --dtype float32, or look at its weights"
                )
            array[~readable] = np.nan
            collected.append(array)

    def write(self, part: int, failures: dict[int, str]) -> None:
        """Write the current part where it is missing."""
        missing_parts = self.order.missing
        for collected, table, missing in zip(self._rows, self.tables, missing_parts, strict=True):
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


def passes(fillers: Sequence[Filler]) -> list[list[Filler]]:
    """Group jobs whose parts are cut alike: they share a pass over the images."""
    passes: dict[tuple[int, int], list[Filler]] = defaultdict(list)
    for filler in fillers:
        passes[filler.order.plan.batch_size, filler.order.plan.part_rows].append(filler)
    return list(passes.values())


def pass_over_images(
    fillers: Sequence[Filler], plan: Plan, device: torch.device, progress: bool
) -> int:
    """Fill this process's share of the parts; return how many images went through."""
    cut = fillers[0].tables[0]
    wanted = [part for part in range(cut.count) if any(f.wants(part) for f in fillers)]
    rows_wanted = sum(len(cut.rows_of(part)) for part in wanted)
    parts = wanted[here().rank :: here().count]
    batches = [rows for part in parts for rows in _batches(cut, part)]
    recipes = list({filler.backbone.preprocessing: None for filler in fillers})
    options = plan.options
    workers = default_workers(device) if options.workers is None else options.workers
    loaded = load_batches(plan.source, recipes, batches, workers, device)
    failures: dict[int, str] = {}
    with progress_bar(rows_wanted, "extracting", "img", show=progress, smoothing=0.1) as bar:
        for batch in loaded:
            if batch.failures and options.fail_fast:
                row, reason = next(iter(batch.failures.items()))
                raise unreadable(plan.samples.paths[row], reason)
            failures |= batch.failures
            part = batch.rows.start // cut.plan.part_rows
            readable = np.array([row not in batch.failures for row in batch.rows])
            images = normalize(batch, recipes, device)
            working = [filler for filler in fillers if filler.wants(part)]
            for filler in working:
                filler.add(images[filler.backbone.preprocessing], readable)
            if batch.rows.stop == cut.rows_of(part).stop:
                for filler in working:
                    filler.write(part, failures)
                failures = {}
            bar.update(added_by_all(cut.spec.key, len(batch.rows)))
    return sum(map(len, batches))


def _batches(table: PartialTable, part: int) -> Iterator[range]:
    rows, size = table.rows_of(part), table.plan.batch_size
    for start in range(rows.start, rows.stop, size):
        yield range(start, min(start + size, rows.stop))


def normalize(
    batch: Batch, recipes: Sequence[Preprocessing], device: torch.device
) -> dict[Preprocessing, Tensor]:
    """Return what networks read of a batch, by the preprocessing that each of them wants."""
    pixels = [p.to(device, non_blocking=True) for p in batch.pixels]
    return {recipe: recipe.normalize(p) for recipe, p in zip(recipes, pixels, strict=True)}


def place(backbone: Backbone, device: torch.device) -> None:
    """Move a network to the device that it runs on."""
    backbone.module.to(device).to(memory_format=torch.channels_last)


def unreadable(path: str, reason: str) -> DecodeError:
    """Return the error of an image where none is to be left out."""
    return DecodeError(f"{path} could not be read ({reason}); --on-error skip goes on without it")
