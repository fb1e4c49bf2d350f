"""Indexes of neighbours, each made once and kept in the store of its tables."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featkit.errors import StoreError, UsageError, one_line
from featkit.ops.approximate import ApproximateNeighbors
from featkit.ops.combine import Combination, CombinedRows
from featkit.ops.hnsw import Hnsw
from featkit.ops.inverted_file import InvertedFile
from featkit.ops.row_sources import RowSource, SelectedRows
from featkit.store.fingerprint import Provenance
from featkit.store.indexes import index_file, read_index, write_index
from featkit.store.reader import FeatureTable
from featkit.store.writer import writing


def streamed_rows(table: FeatureTable, keep: NDArray[np.bool_]) -> RowSource:
    """Return some rows of a table, each read when it is asked for."""
    return table if keep.all() else SelectedRows(table, keep)


@dataclass(frozen=True)
class StoredRows:
    """Rows of a table, or of several together, that are read when they are asked for.

    Attributes:
        tables: One, or all that are combined; rows of one store.
        keep: Which rows, (n) bool.
        combination: How several are combined.
    """

    tables: Sequence[FeatureTable]
    keep: NDArray[np.bool_]
    combination: Combination | None = None

    def rows(self) -> RowSource:
        """Return the rows, (kept, d); nothing is read yet."""
        sources = [streamed_rows(table, self.keep) for table in self.tables]
        return CombinedRows(sources, self.combination) if self.combination else sources[0]


def open_index(bank: StoredRows, index: ApproximateNeighbors) -> list[str]:
    """Take an index from the store, or make it and keep it there.

    Args:
        bank: What is to be searched.
        index: Not fitted; fitted afterwards.

    Returns:
        What a reader must know: that an index was damaged, or could not be kept.

    Raises:
        UsageError: As for :meth:`featkit.ops.approximate.ApproximateNeighbors.fit`.
    """
    rows, notes = bank.rows(), []
    stores = {table.path.parents[1] for table in bank.tables}
    store, provenance = min(stores), _provenance(bank, index)
    try:
        index.restore(rows, read_index(index_file(store, provenance))[1])
    except FileNotFoundError:
        pass
    except UsageError:
        raise
    except (StoreError, ValueError, LookupError, TypeError) as error:
        notes.append(f"an index is made anew: {one_line(error)}")
    else:
        return notes
    index.fit(rows)
    try:
        if len(stores) > 1:
            raise StoreError("its tables are of several stores")  # noqa: TRY301 - as the others
        with writing(store):
            write_index(store, provenance, index.to_arrays())
    except (StoreError, OSError, MemoryError) as error:
        reason = one_line(error) or "no memory is left"
        notes.append(f"the index was used and not kept: {reason}")
    return notes


def _provenance(bank: StoredRows, index: ApproximateNeighbors) -> Provenance:
    """Return all that decides an index."""
    parameters = InvertedFile.PARAMETERS if index.kind == "ivf" else Hnsw.PARAMETERS
    return {
        "tables": [table.key for table in bank.tables],
        "combination": bank.combination,
        "samples": len(bank.keep),
        "rows": hashlib.sha256(np.packbits(bank.keep).tobytes()).hexdigest(),
        "kind": index.kind,
        "parameters": parameters | {"seed": index.random_state},
        "faiss": importlib.metadata.version("faiss-cpu"),
    }
