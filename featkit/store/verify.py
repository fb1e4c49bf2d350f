"""Is everything that a store holds still what was written?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featkit.errors import DamagedError, StoreError, one_line
from featkit.store.files import check_seal
from featkit.store.fingerprint import fingerprint
from featkit.store.indexes import index_files, read_index
from featkit.store.plans import DAMAGES, DROPPED, PLAN_FILE, read_plan
from featkit.store.reader import FeatureTable, Store
from featkit.store.samples import Samples
from featkit.store.schema import (
    PART_FORMAT,
    PARTIAL_FOLDER,
    SAMPLES_FILE,
    SAMPLES_FORMAT,
    TABLE_FORMAT,
    is_slug,
    table_file,
)


@dataclass(frozen=True)
class Check:
    """What was found about one file.

    Attributes:
        name: The file, relative to the store.
        problems: What is wrong, a line each; empty for a sound file.
        remarks: What is worth knowing.
    """

    name: str
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def verify_store(path: str | Path) -> Iterator[Check]:
    """Hash every file again, and compare shapes, rows and numbers with what they should be.

    Yields:
        One check a file: samples, tables, indexes, then unfinished tables.

    Raises:
        StoreError: The folder is not a store.

    Cost: one read of every byte, another of the features.
    """
    path = Path(path)
    sealed: tuple[str, ...] = ()
    if (path / SAMPLES_FILE).is_file():
        sealed = _seal_problems(path / SAMPLES_FILE, SAMPLES_FORMAT)
    if sealed:
        yield Check(SAMPLES_FILE, sealed)
        return
    store = Store(path)
    yield Check(SAMPLES_FILE)
    for file in store.table_files():
        yield _check_table(file, store.samples, path)
    for file in index_files(path):
        yield Check(file.relative_to(path).as_posix(), _index_problems(file))
    for plan_file in sorted((path / PARTIAL_FOLDER).glob(f"*/{PLAN_FILE}")):
        if plan_file.parent.suffix != DROPPED:
            yield _check_unfinished(plan_file, path)


def _seal_problems(file: Path, kind: str) -> tuple[str, ...]:
    try:
        check_seal(file, kind)
    except DamagedError:
        return ("its bytes are not the ones that were written; delete it and extract again",)
    except OSError as error:
        return (f"cannot be read now ({error.strerror}); its bytes were not looked at",)
    return ()


def _index_problems(file: Path) -> tuple[str, ...]:
    try:
        read_index(file)
    except DamagedError:
        return ("its bytes are not the ones that were written; delete it, it will be made again",)
    except (StoreError, FileNotFoundError) as error:
        return (str(error),)
    return ()


def _check_unfinished(plan_file: Path, store: Path) -> Check:
    try:
        unfinished = read_plan(plan_file)
    except DAMAGES:
        again = "it is damaged; the next featkit extract begins this table again"
        return Check(plan_file.relative_to(store).as_posix(), (again,))
    damaged = [
        f"{part.name}: its bytes are not the ones that were written; the same featkit extract "
        f"makes it again"
        for part in sorted(plan_file.parent.glob("part-*.h5"))
        if _seal_problems(part, PART_FORMAT)
    ]
    done = f"unfinished: {unfinished.rows_done:,} of {unfinished.rows:,} rows"
    return Check(f"{unfinished.name}.h5", tuple(damaged), (done,))


def _check_table(file: Path, samples: Samples, store: Path) -> Check:
    name = file.relative_to(store).as_posix()
    problems = _seal_problems(file, TABLE_FORMAT)
    if problems:
        return Check(name, problems)
    try:
        table = FeatureTable(file, samples)
    except StoreError as error:
        return Check(name, (str(error),))
    found = list(_table_problems(table, samples))
    names = table.backbone, table.tap, table.pooling
    if not all(map(is_slug, names)) or file != store / table_file(*names):
        found.append(f"holds {one_line(table.name, 200)}; it was renamed by hand")
    unreadable = [
        f"unreadable: {samples.paths[row]} ({reason})" for row, reason in table.failures.items()
    ]
    return Check(name, tuple(found), tuple(unreadable))


def _table_problems(table: FeatureTable, samples: Samples) -> Iterator[str]:
    if fingerprint(table.provenance) != table.key:
        yield "its key does not belong to its provenance"
    if table.provenance["samples"] != samples.manifest:
        yield "it is about other images than its store"
    wrong, unmarked = 0, 0
    for rows, features in table.blocks():
        finite = np.isfinite(features.reshape(len(features), -1))
        wrong += int((~finite.all(1) & table.valid[rows]).sum())
        unmarked += int((finite.any(1) & ~table.valid[rows]).sum())
    if wrong:
        yield f"{wrong:,} rows of readable images hold NaN or infinity"
    if unmarked:
        yield f"{unmarked:,} rows of unreadable images hold numbers"
    if set(table.failures) != set(np.flatnonzero(~table.valid).tolist()):
        yield "its list of failures does not fit its marks"
