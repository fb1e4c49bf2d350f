"""Tables that are computed from other tables of a store, such as learned representations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featkit.errors import ConflictError
from featkit.store.reader import FeatureTable, Store
from featkit.store.runs import log_run
from featkit.store.writer import PartialTable, PartPlan, TableSpec, writing

PART_BYTES = 64e6
"""Bytes of rows in a part."""


def is_made(store: Store, name: str, key: str) -> bool:
    """Say whether a table is there already.

    Args:
        store: Where.
        name: ``backbone/tap.pooling``.
        key: Of what is to be made.

    Raises:
        ConflictError: One of this name was made from something else.
    """
    path = store.path / f"{name}.h5"
    if not path.is_file():
        return False
    if FeatureTable(path, store.samples).key == key:
        return True
    raise ConflictError(
        f"{store.path} has a table {name} made from something else; choose another --name, or "
        f"replace the table with --overwrite"
    )


def write_derived(
    store: Store,
    spec: TableSpec,
    features: NDArray[Any],
    failures: Mapping[int, str],
    overwrite: bool = False,
) -> None:
    """Write a table whole; one that was made from the same is left as it is.

    Args:
        store: Where.
        spec: What is made.
        features: (n, *row_shape).
        failures: Why rows are not valid, by row; they are written as NaN.
        overwrite: Whether to replace a table of this name.

    Raises:
        ConflictError: There is one, made from something else.
        StoreError: Another process is writing to the store, or it cannot be written to.
        DiskFullError: The disk is full.
    """
    if not overwrite and is_made(store, spec.name, spec.key):
        return
    valid = np.ones(spec.rows, bool)
    valid[list(failures)] = False
    part = PartialTable(
        store.path, spec, PartPlan(1, max(1, int(PART_BYTES // spec.row_bytes)), False)
    )
    with writing(store.path):
        log_run(store.path, "started", [spec.name])
        part.begin()
        for number in part.missing():
            rows = part.rows_of(number)
            kept = valid[rows.start : rows.stop]
            values = np.where(kept[:, None], features[rows.start : rows.stop], np.nan)
            reasons = {row: why for row, why in failures.items() if row in rows}
            part.write(number, values.astype(spec.dtype), kept, reasons)
        part.finish()
        log_run(store.path, "finished", [spec.name])
