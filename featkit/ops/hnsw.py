"""Approximate neighbours by faiss' hierarchical graph of near rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from featkit.errors import UsageError
from featkit.ops.free_memory import free_memory
from featkit.ops.neighbors import (
    BLOCK,
    Floats,
    Found,
    Integers,
    Rows,
    as_rows,
    check_search,
    in_order,
    neighbor_blocks,
    unit,
)
from featkit.ops.row_sources import Array
from featkit.ops.search_engines import faiss_threads

LINKS = 32
"""Of each row in every layer but the lowest, which has twice as many; faiss' default."""

_ADDED = 2**24
"""Floats of rows that join the graph at once."""


class Hnsw:
    """The rows of a bank, joined to near ones: a search walks from row to row.

    All rows and their links lie in memory: 4·n·(d + 66) bytes.

    Attributes:
        index: ``faiss.IndexHNSWFlat`` by inner product, of rows of length 1.

    Source: Malkov and Yashunin 2016, arXiv:1603.09320; faiss with its defaults, M = 32 and
    efConstruction = 40.

    Example:
        >>> bank = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> [(_, similarities, rows)] = Hnsw.build(bank).search([[2.0, 0.2]], bank, 2, 16)
        >>> rows
        array([[1, 0]])
    """

    PARAMETERS: ClassVar = {"links": LINKS}

    def __init__(self, index: Any) -> None:
        self.index = index

    @classmethod
    def build(cls, bank: Rows) -> Hnsw:
        """Join each row to near ones among those before it.

        Args:
            bank: (n, d), as for :func:`featkit.ops.neighbors.nearest_neighbors`.

        Returns:
            With several threads another one each time.

        Raises:
            UsageError: ``bank`` cannot be used, or does not fit into the memory that is free.

        Cost: some 10 times that of a search of n queries.
        """
        index = _empty(bank)
        with faiss_threads():
            for rows in _rows(bank):
                index.add(rows)
        return cls(index)

    @classmethod
    def from_arrays(cls, bank: Rows, arrays: Mapping[str, Array]) -> Hnsw:
        """Return the graph that :meth:`to_arrays` has told of, over the same rows.

        Args:
            bank: The rows that it was made of.
            arrays: ``levels``, ``links`` and ``entry``.

        Raises:
            UsageError: As for :meth:`build`.
            ValueError: The arrays are not those of a graph over so many rows.

        Cost: one pass over the rows.
        """
        import faiss

        index = _empty(bank)
        graph, places = index.hnsw, faiss.vector_to_array(index.hnsw.cum_nneighbor_per_level)
        levels, links = arrays["levels"], arrays["links"]
        _check_graph(as_rows(bank, "bank").shape[0], arrays, places)
        offsets = np.concatenate([[0], np.cumsum(places[levels])]).astype(np.uint64)
        for values, vector in (
            (levels, graph.levels),
            (offsets, graph.offsets),
            (links, graph.neighbors),
        ):
            faiss.copy_array_to_vector(np.ascontiguousarray(values), vector)
        graph.entry_point, graph.max_level = int(arrays["entry"]), int(levels.max()) - 1
        storage = faiss.downcast_index(index.storage)
        for rows in _rows(bank):
            storage.add(rows)
        index.ntotal = storage.ntotal
        return cls(index)

    def to_arrays(self) -> dict[str, Array]:
        """Return the graph without its rows.

        ``levels``, int32 (n): layers that a row is in; ``links``, int32: of each row in order, and
        of each of its layers from the lowest, 64 and above it 32 rows, -1 for none; ``entry``:
        the row where a search begins.
        """
        import faiss

        graph = self.index.hnsw
        return {
            "levels": faiss.vector_to_array(graph.levels),
            "links": faiss.vector_to_array(graph.neighbors),
            "entry": np.array(graph.entry_point, np.int64),
        }

    def search(
        self,
        queries: Rows,
        bank: Rows,
        k: int,
        candidates: int,
        *,
        own: Integers | None = None,
    ) -> Iterator[Found]:
        """Yield the most similar rows that a walk comes by.

        Args:
            queries: (q, d), as for :func:`featkit.ops.neighbors.neighbor_blocks`.
            bank: The rows of the graph, in which queries are looked for that came by too few.
            k: Neighbours of each query.
            candidates: Rows that a walk keeps, faiss' efSearch; k at least.
            own: As there.

        Yields:
            As there.

        Raises:
            UsageError: As there.

        Cost: a walk compares a query with some hundreds of rows to many thousands.
        """
        asked, held = as_rows(queries, "queries"), as_rows(bank, "bank")
        kept = check_search(asked, held, k, own)
        for start in range(0, asked.shape[0], BLOCK):
            part = slice(start, min(start + BLOCK, asked.shape[0]))
            units = unit(queries, asked, part, "queries")
            with faiss_threads():  # which also keeps other searches from changing efSearch
                self.index.hnsw.efSearch = max(candidates, kept)
                near, rows = self.index.search(units, kept)
            short = np.flatnonzero(rows[:, -1] < 0)  # faiss writes -1 where it has found no more
            for some, similarities, names in neighbor_blocks(
                units[short], bank, kept, device="cpu"
            ):
                near[short[some]], rows[short[some]] = similarities, names
            yield part, *in_order(near.clip(-1, 1), rows, None if own is None else own[part])


def _empty(bank: Rows) -> Any:
    """Return a graph without rows, whose memory is asked for."""
    import faiss

    n, d = as_rows(bank, "bank").shape
    needed, free = 4 * n * (d + 2 * LINKS + 2), free_memory()
    if needed > free:
        raise UsageError(
            f"an HNSW graph of {n:,} rows of {d:,} numbers takes {needed / 1e9:.1f} GB of memory, "
            f"and {free / 1e9:.1f} GB are free: use ivf, which leaves the rows in their file"
        )
    index = faiss.IndexHNSWFlat(d, LINKS, faiss.METRIC_INNER_PRODUCT)
    storage: Any = faiss.downcast_index(index.storage)
    storage.codes.resize(4 * n * d)  # all at once: a vector that grows is there twice meanwhile
    storage.codes.resize(0)
    return index


def _rows(bank: Rows) -> Iterator[Floats]:
    held = as_rows(bank, "bank")
    n, d = held.shape
    step = max(1, _ADDED // d)
    for start in range(0, n, step):
        yield unit(bank, held, slice(start, min(start + step, n)), "bank")


def _check_graph(n: int, arrays: Mapping[str, Array], places: Array) -> None:
    """Refuse what faiss would follow out of its memory."""
    levels, links, entry = arrays["levels"], arrays["links"], int(arrays["entry"])
    is_graph = (
        levels.dtype == links.dtype == np.int32
        and levels.shape == (n,)
        and bool((levels >= 1).all() and (levels < len(places)).all())
        and links.shape == (int(places[levels].sum(dtype=np.int64)),)
        and bool((links >= -1).all() and (links < n).all())
        and 0 <= entry < n
        and levels[entry] == levels.max()
        and _stay_in_layers(levels, links, places)
    )
    if not is_graph:
        raise ValueError(f"these are no links of {n} rows")


def _stay_in_layers(levels: Array, links: Array, places: Array) -> bool:
    """Say whether the links of each layer lead to rows of that layer."""
    starts = np.cumsum(places[levels], dtype=np.int64) - places[levels]
    for layer in range(1, int(levels.max())):
        inside = np.flatnonzero(levels > layer)
        spots = starts[inside][:, None] + np.arange(places[layer], places[layer + 1])
        led = links[spots]
        if not (levels[led[led >= 0]] > layer).all():
            return False
    return True
