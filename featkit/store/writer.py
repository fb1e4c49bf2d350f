"""Tables grow in parts; a finished one appears whole, by atomic rename."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featkit.errors import DiskFullError, StoreError
from featkit.store.datasets import (
    find_features,
    key_of,
    read_array,
    read_failures,
    read_text,
    reading,
)
from featkit.store.files import (
    USERBLOCK,
    check_seal,
    explain_write_errors,
    free_bytes,
    holding,
    make_folder,
    seal,
    size_text,
    sync_folder,
    write_sealed,
    write_whole,
    writing_hdf5,
)
from featkit.store.fingerprint import Provenance, canonical_json, fingerprint
from featkit.store.indexes import unused_indexes
from featkit.store.plans import (
    DAMAGES,
    DROPPED,
    PLAN_FILE,
    PartPlan,
    plan_text,
    read_plan,
    unfinished_tables,
)
from featkit.store.schema import (
    LIBVER,
    LOCK_FILE,
    PART_FORMAT,
    PARTIAL_FOLDER,
    TABLE_FORMAT,
    put,
    structure_bytes,
    table_file,
    write_header,
)


@contextmanager
def writing(store: Path) -> Iterator[None]:
    """Hold the store's writer lock; the system lets go of it when the process ends, however.

    Raises:
        StoreError: Another process is writing to this store.
    """
    with ExitStack() as held:
        with explain_write_errors("the store", store):
            held.enter_context(holding(store, LOCK_FILE, "writing to this store"))
        yield


@dataclass(frozen=True)
class TableSpec:
    """One table to be made.

    Attributes:
        backbone: Its name in this store (a slug).
        tap: Module path inside the backbone (a slug).
        pooling: How the tap's output became a row.
        spec: The backbone as the user wrote it.
        provenance: All that decides the numbers; its fingerprint is the table's key.
        rows: Number of samples, n.
        row_shape: Shape of one row, (d,) or (c, h, w).
        dtype: Stored dtype, ``float32`` or ``float16``.
        checkpoint: How the file with the weights was understood, if they are from one; it is kept
            with the table and decides nothing.
    """

    backbone: str
    tap: str
    pooling: str
    spec: str
    provenance: Provenance
    rows: int
    row_shape: tuple[int, ...]
    dtype: str
    checkpoint: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """``backbone/tap.pooling``, as selectors spell it."""
        return f"{self.backbone}/{self.tap}.{self.pooling}"

    @property
    def key(self) -> str:
        """The sha256 over all that decides the numbers."""
        return fingerprint(self.provenance)

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored row."""
        return int(np.prod(self.row_shape)) * np.dtype(self.dtype).itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the features alone."""
        return self.rows * self.row_bytes


class PartialTable:
    """The rows done so far of one unfinished table, under ``.partial/KEY/``.

    Args:
        store: The store's folder.
        spec: The table.
        plan: How its parts are cut.
        kept: What a full disk does not cost; empty where the next run begins again.
    """

    def __init__(
        self,
        store: Path,
        spec: TableSpec,
        plan: PartPlan,
        kept: str = "rows written so far are safe",
    ) -> None:
        self.store = store
        self.spec = spec
        self.plan = plan
        self.kept = kept
        self.folder = store / PARTIAL_FOLDER / spec.key

    @property
    def count(self) -> int:
        """How many parts the table has."""
        return -(-self.spec.rows // self.plan.part_rows)

    def rows_of(self, part: int) -> range:
        """The rows that one part holds."""
        start = part * self.plan.part_rows
        return range(start, min(start + self.plan.part_rows, self.spec.rows))

    def begin(self) -> None:
        """Create the folder and the plan; nothing happens if they are there."""
        plan_file = self.folder / PLAN_FILE
        if plan_file.exists():
            try:
                is_same = read_plan(plan_file).plan == self.plan
            except DAMAGES:
                is_same = False
            if not is_same:
                raise StoreError(
                    f"{self.spec.name}: another process has begun it otherwise; run the same "
                    f"command again, it goes on from there"
                )
            return
        with explain_write_errors(self.spec.name, self.store, self.kept):
            make_folder(self.folder)
            spec = self.spec
            text = plan_text(spec.name, spec.rows, spec.provenance, self.plan)
            write_whole(plan_file, text.encode())

    def missing(self) -> list[int]:
        """The parts still to be made; damaged ones are deleted and count as missing."""
        return [part for part in range(self.count) if not self._is_whole(part)]

    def write(
        self,
        part: int,
        features: NDArray[Any],
        valid: NDArray[np.bool_],
        failures: Mapping[int, str],
    ) -> None:
        """Write one part by atomic rename.

        Args:
            part: Its index.
            features: (rows, *row_shape) of the stored dtype.
            valid: (rows,) whether each sample could be read.
            failures: Reason of failure by row of the table.

        Raises:
            DiskFullError: The disk is full; earlier parts are safe.
        """

        def fill(file: h5py.File) -> None:
            write_header(file, PART_FORMAT, key=self.spec.key, part=part)
            put(file, "features", features)
            put(file, "valid", valid)
            _write_failures(file, failures)

        with explain_write_errors(f"rows of {self.spec.name}", self.store, self.kept):
            write_sealed(self._file(part), PART_FORMAT, fill)

    def finish(self) -> Path:
        """Join the parts into the table, let it appear, and delete the parts.

        Returns:
            The table's file.

        Raises:
            DiskFullError: The joined file does not fit; the parts stay.
        """
        spec = self.spec
        target = self.store / table_file(spec.backbone, spec.tap, spec.pooling)
        needed, free = spec.nbytes, free_bytes(self.store)
        if needed > free:
            raise DiskFullError(
                f"no room to join {spec.name}: {size_text(needed)} needed, {size_text(free)} free "
                f"at {self.store}: {self.kept}{'; ' * bool(self.kept)}free some space and run the "
                f"same command again"
            )
        joined = self.folder / "table.h5.tmp"
        with explain_write_errors(spec.name, self.store, self.kept):
            offset = self._write_structure(joined)
            self._copy_rows(joined, offset)
            seal(joined, TABLE_FORMAT)
            make_folder(target.parent)
            joined.replace(target)
            sync_folder(target.parent)
            drop(self.folder)
        return target

    def _file(self, part: int) -> Path:
        return self.folder / f"part-{part:06d}.h5"

    def _is_whole(self, part: int) -> bool:
        path = self._file(part)
        if not path.is_file():
            return False
        try:
            check_seal(path, PART_FORMAT)
            with self._open(part) as file:
                self._check(file, part)
        except StoreError:
            path.unlink()
            return False
        return True

    def _open(self, part: int) -> AbstractContextManager[h5py.File]:
        return reading(self._file(part), PART_FORMAT, "run the same command again")

    def _check(self, file: h5py.File, part: int) -> None:
        """Refuse, as damaged, a part that holds other rows than it should."""
        rows, features = self.rows_of(part), find_features(file)
        if features.shape != (len(rows), *self.spec.row_shape):
            raise ValueError(f"features is {features.shape}")
        if features.dtype != self.spec.dtype or read_text(file, "key") != self.spec.key:
            raise ValueError("it is of another table")
        read_array(file, "valid", (len(rows),), "?")
        read_failures(self._file(part), file, rows)

    def _write_structure(self, path: Path) -> int:
        """Write all but the rows; return where in the file these go."""
        spec = self.spec
        valid = np.empty(spec.rows, bool)
        failures: dict[int, str] = {}
        for part in range(self.count):
            rows = self.rows_of(part)
            with self._open(part) as file:
                valid[rows.start : rows.stop] = read_array(file, "valid", (len(rows),), "?")
                failures |= read_failures(self._file(part), file, rows)
        texts = [json.dumps(spec.checkpoint), canonical_json(spec.provenance), *failures.values()]
        size = spec.nbytes + spec.rows + structure_bytes(3, texts)
        with writing_hdf5(path, size, libver=LIBVER, userblock_size=USERBLOCK) as file:
            write_header(
                file,
                TABLE_FORMAT,
                key=spec.key,
                provenance=canonical_json(spec.provenance),
                backbone=spec.backbone,
                tap=spec.tap,
                pooling=spec.pooling,
                spec=spec.spec,
            )
            if spec.checkpoint is not None:
                file.attrs["checkpoint"] = canonical_json(spec.checkpoint)
            put(file, "valid", valid)
            _write_failures(file, failures)
            layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            layout.set_layout(h5py.h5d.CONTIGUOUS)
            layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            layout.set_obj_track_times(False)
            features = h5py.h5d.create(
                file.id,
                b"features",
                h5py.h5t.py_create(np.dtype(spec.dtype).newbyteorder("<")),
                h5py.h5s.create_simple((spec.rows, *spec.row_shape)),
                layout,
            )
            return int(features.get_offset())

    def _copy_rows(self, path: Path, offset: int) -> None:
        with path.open("r+b") as out:
            out.seek(offset)
            for part in range(self.count):
                with self._open(part) as file:
                    rows = file["features"][...]
                out.write(rows.tobytes())
            out.flush()
            os.fsync(out.fileno())


def drop(folder: Path) -> None:
    """Delete the folder of an unfinished table; a crash meanwhile leaves nothing that counts."""
    if folder.suffix != DROPPED:
        dropped = folder.with_suffix(DROPPED)
        shutil.rmtree(dropped, ignore_errors=True)
        folder = folder.replace(dropped)
    shutil.rmtree(folder)


def remains(store: Path, pending: Collection[str] = ()) -> list[Path]:
    """List what crashes have left: parts of tables that are there, and parts without a plan.

    Indexes of tables that are no longer there are listed too.

    Args:
        store: The store's folder.
        pending: Keys of tables that are about to be made, even where they are there.
    """
    known = {unfinished.folder: unfinished for unfinished in unfinished_tables(store)}
    found = []
    for folder in sorted((store / PARTIAL_FOLDER).glob("*")):
        begun = known.get(folder)
        is_made = begun is not None and key_of(store / f"{begun.name}.h5") == folder.name
        if begun is None or (is_made and folder.name not in pending):
            found.append(folder)
    return found + unused_indexes(store)


def sweep(store: Path, pending: Collection[str]) -> None:
    """Delete what crashes have left; see :func:`remains`. The store's lock is held."""
    for path in remains(store, pending):
        if path.is_dir():
            drop(path)
        else:
            path.unlink(missing_ok=True)


def _write_failures(file: h5py.File, failures: Mapping[int, str]) -> None:
    rows = sorted(failures)
    put(file, "failed_row", np.array(rows, np.int64))
    put(file, "failed_reason", [failures[row] for row in rows], text=True)
