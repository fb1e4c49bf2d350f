"""Tables that are computed from other tables of a store, such as learned representations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featkit.store.plans import PartPlan
from featkit.store.reader import FeatureTable, Store
from featkit.store.runs import log_run
from featkit.store.writer import PartialTable, TableSpec, drop, writing

PART_BYTES = 64e6
"""Bytes of rows in a part."""


def find_table(store: Store, name: str) -> FeatureTable | None:
    """Return the table called ``backbone/tap.pooling``, if it is there."""
    path = store.path / f"{name}.h5"
    return FeatureTable(path, store.samples) if path.is_file() else None


def write_derived(
    store: Store, spec: TableSpec, features: NDArray[Any], failures: Mapping[int, str]
) -> None:
    """Write a table whole, in place of one of its name.

    Args:
        store: Where.
        spec: What is made.
        features: (v, d), of the rows that are valid.
        failures: Why the others are not, by row; they are written as NaN.

    Raises:
        StoreError: Another process is writing to the store, or it cannot be written to.
        DiskFullError: The disk is full.
    """
    valid = np.ones(spec.rows, bool)
    valid[list(failures)] = False
    part_rows = max(1, int(PART_BYTES // spec.row_bytes))
    part = PartialTable(store.path, spec, PartPlan(1, part_rows, compiled=False), kept="")
    with writing(store.path):
        if part.folder.exists():  # of a run that was killed; its rows may be of other numbers
            drop(part.folder)
        log_run(store.path, "started", [spec.name])
        part.begin()
        before = np.concatenate([[0], np.cumsum(valid)])  # valid rows above each
        for number in part.missing():
            rows = part.rows_of(number)
            kept = valid[rows.start : rows.stop]
            values = np.full((len(rows), *spec.row_shape), np.nan, spec.dtype)
            values[kept] = features[before[rows.start] : before[rows.stop]]
            reasons = {row: why for row, why in failures.items() if row in rows}
            part.write(number, values, kept, reasons)
        part.finish()
        log_run(store.path, "finished", [spec.name])
