"""A store's tables as one file for other tools: npz, parquet or plain HDF5."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featkit.errors import MissingExtraError, UsageError
from featkit.store.files import appearing, explain_write_errors, writing_hdf5
from featkit.store.reader import FeatureTable
from featkit.store.samples import Samples
from featkit.store.schema import put, structure_bytes, write_header

EXPORT_FORMAT = "featkit-export"

ROW_GROUP = 4096
"""Rows of a Parquet row group."""


def export_tables(samples: Samples, tables: Sequence[FeatureTable], path: Path) -> None:
    """Write samples and tables into one file, by atomic rename.

    Args:
        samples: Their names and labels.
        tables: Of one store.
        path: Ends in ``.npz`` (arrays ``path``, ``label``, ``classes``, and ``TABLE`` and
            ``TABLE.valid`` of each table), ``.parquet`` (one row a sample, one list column a table
            of vectors, null where the image could not be read) or ``.h5`` (groups ``samples`` and
            one a table).

    Raises:
        UsageError: The ending is another, or a table does not fit the format.
        MissingExtraError: Parquet needs pyarrow.
    """
    if path.suffix not in _WRITERS:
        raise UsageError(f"{path}: the ending says the format; use {', '.join(_WRITERS)}")
    path = path.absolute()
    with explain_write_errors(path.name, path.parent, kept=""), appearing(path) as temporary:
        _WRITERS[path.suffix](samples, tables, temporary)


def _described(samples: Samples) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {"path": np.array(samples.paths, dtype=np.str_)}
    if samples.labels is not None:
        arrays["label"] = samples.labels
    if samples.classes is not None:
        arrays["classes"] = np.array(samples.classes, dtype=np.str_)
    return arrays


def _write_npz(samples: Samples, tables: Sequence[FeatureTable], path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in _described(samples).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                np.lib.format.write_array(out, array, allow_pickle=False)
        for table in tables:
            header = {
                "descr": np.lib.format.dtype_to_descr(table.dtype),
                "fortran_order": False,
                "shape": table.shape,
            }
            with archive.open(f"{table.name}.npy", "w", force_zip64=True) as out:
                np.lib.format.write_array_header_2_0(out, header)
                for _, block in table.blocks():
                    out.write(block.tobytes())
            with archive.open(f"{table.name}.valid.npy", "w") as out:
                np.lib.format.write_array(out, table.valid, allow_pickle=False)


def _write_parquet(samples: Samples, tables: Sequence[FeatureTable], path: Path) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError(
            'parquet needs pyarrow; install it with pip install "featkit[parquet]"'
        ) from None
    for table in tables:
        if len(table.shape) != 2:
            raise UsageError(
                f"{table.name} holds {table.shape[1:]} a row; export it as .h5 or .npz"
            )
    fields = [pa.field("path", pa.string())]
    if samples.labels is not None:
        several = samples.labels.ndim == 2
        fields.append(pa.field("label", pa.list_(pa.string()) if several else pa.string()))
    for table in tables:
        kind = pa.float16() if table.dtype == np.float16 else pa.float32()
        fields.append(pa.field(table.name, pa.list_(kind, table.shape[1])))
    schema = pa.schema(fields)
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(samples), ROW_GROUP):
            rows = slice(start, start + ROW_GROUP)
            columns: list[Any] = [pa.array(samples.paths[rows], pa.string())]
            if samples.labels is not None:
                columns.append(pa.array(_label_names(samples, rows), fields[1].type))
            columns += [
                pa.FixedSizeListArray.from_arrays(
                    pa.array(table.numpy()[rows].ravel()),
                    table.shape[1],
                    mask=pa.array(~table.valid[rows]),
                )
                for table in tables
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _label_names(samples: Samples, rows: slice) -> list[Any]:
    labels, classes = samples.labels, samples.classes or ()
    assert labels is not None  # noqa: S101 - asked only where there are labels
    if labels.ndim == 2:
        return [[classes[i] for i in np.flatnonzero(row)] for row in labels[rows]]
    return [classes[label] for label in labels[rows]]


def _write_h5(samples: Samples, tables: Sequence[FeatureTable], path: Path) -> None:
    described = _described(samples)
    numbers = [array for array in described.values() if array.dtype.kind != "U"]
    texts = [*samples.paths, *(samples.classes or ()), *(json.dumps(t.provenance) for t in tables)]
    size = structure_bytes(2 * len(tables) + len(described), texts)
    size += sum(array.nbytes for array in numbers)
    size += sum(math.prod(t.shape) * t.dtype.itemsize + len(t.valid) for t in tables)
    with writing_hdf5(path, size) as file:
        write_header(file, EXPORT_FORMAT)
        for name, array in described.items():
            is_text = array.dtype.kind == "U"
            put(file, f"samples/{name}", array.tolist() if is_text else array, text=is_text)
        for table in tables:
            out = file.create_dataset(f"{table.name}/features", table.shape, table.dtype)
            for rows, block in table.blocks():
                out[rows] = block
            file[f"{table.name}/valid"] = table.valid
            group = file[table.name]
            group.attrs.update(
                {"key": table.key, "spec": table.spec, "provenance": json.dumps(table.provenance)}
            )


_WRITERS: dict[str, Callable[[Samples, Sequence[FeatureTable], Path], None]] = {
    ".npz": _write_npz,
    ".parquet": _write_parquet,
    ".h5": _write_h5,
}
