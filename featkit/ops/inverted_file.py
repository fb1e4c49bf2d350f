"""Approximate neighbours by an inverted file: a query looks through the lists near to it only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from featkit.errors import UsageError
from featkit.ops.free_memory import free_memory
from featkit.ops.kmeans import kmeans
from featkit.ops.neighbors import (
    BLOCK,
    CHUNK_FLOATS,
    FOUND,
    Floats,
    Found,
    Integers,
    Rows,
    UnitRows,
    as_rows,
    check_search,
    in_order,
    nearest_neighbors,
    neighbor_blocks,
    resolve_device,
    unit,
    unit_rows,
)
from featkit.ops.row_sources import RowSource
from featkit.ops.search_engines import faiss_threads, full_precision

LISTS = 4
"""Lists are this many times √n: the least of what faiss advises, as lists cost time to find."""

FITTED = 30
"""Rows a list that the centroids are fitted to, likewise."""

ITERATIONS = 10
"""Of k-means, as in faiss' ``IndexIVF``."""

_WORKING = 2**26
"""Bytes that k-means takes beside its rows; faiss ends the process where it does not get them."""


@dataclass(frozen=True)
class InvertedFile:
    """The rows of a bank in lists, each row in that of the most similar of l centroids.

    It holds no features: the rows of lists are read from the bank, in the order of the bank, so
    that the bank may be larger than memory and is not copied. faiss' ``IndexIVFFlat`` finds the
    same neighbours and holds copies of all rows. It multiplies vector by vector, which takes less
    time for few queries; here a list is multiplied with all queries that look through it at once,
    which takes less where these are dozens.

    Args:
        centroids: float32 (l, d), each of length 1.
        lists: The list of each row, int32 (n) in [0, l).

    Source: Sivic and Zisserman 2003, Video Google; faiss' guidelines to choose an index,
    https://github.com/facebookresearch/faiss/wiki/Guidelines-to-choose-an-index: 4 √n to 16 √n
    lists, fitted to 30 to 256 rows a list.

    Example:
        >>> bank = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> index = InvertedFile(np.eye(2, dtype=np.float32), np.array([0, 0, 1], np.int32))
        >>> [(_, similarities, rows)] = index.search(np.array([[2.0, 0.2]]), bank, 2, 1)
        >>> rows
        array([[1, 0]])
    """

    PARAMETERS: ClassVar = {"lists": LISTS, "fitted": FITTED, "iterations": ITERATIONS}

    centroids: Floats
    lists: npt.NDArray[np.int32]

    @classmethod
    def build(
        cls, bank: Rows, *, device: str | torch.device = "auto", seed: int = 0
    ) -> InvertedFile:
        """Cluster a sample of the rows, and put each row into the list of its centroid.

        Args:
            bank: (n, d), as for :func:`featkit.ops.neighbors.nearest_neighbors`.
            device: As there.
            seed: Of the sample and of the first centroids.

        Returns:
            l = 4 √n lists, or n / 30 if that is less, one at least.

        Raises:
            UsageError: ``bank`` cannot be used, or the sample does not fit into the memory that is
                free.

        Cost: 2·n·l·d + 660·l²·d operations; memory 120·l·d bytes for the sample, then that of an
        exact search for one neighbour.
        """
        held = as_rows(bank, "bank")
        n = held.shape[0]
        count = max(1, min(round(LISTS * n**0.5), n // FITTED))
        needed, free = 4 * FITTED * count * held.shape[1] + _WORKING, free_memory()
        if needed > free:
            raise UsageError(
                f"lists of {n:,} rows of {held.shape[1]:,} numbers are fitted to a sample that "
                f"takes {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free: "
                f"search exactly"
            )
        draws = np.random.default_rng(seed)
        chosen = np.sort(draws.choice(n, min(n, FITTED * count), replace=False, shuffle=False))
        sample = torch.from_numpy(unit(bank, held, chosen, "bank")).to(resolve_device(device))
        with faiss_threads():
            found = kmeans(sample, count, iterations=ITERATIONS, seed=seed, overwrite_x=True)
        centroids = unit_rows(found.centroids)
        lists = np.empty(n, np.int32)
        for part, _, nearest in neighbor_blocks(bank, centroids, 1, device=device):
            lists[part] = nearest[:, 0]
        return cls(centroids.array, lists)

    def places(
        self, queries: Floats, rows: Integers, *, device: str | torch.device = "auto"
    ) -> Integers:
        """Return how many lists a query must look through to come to some rows, less one.

        Args:
            queries: float32 (q, d), each of length 1.
            rows: Of the bank, (q, k).
            device: As there.

        Returns:
            (q, k) in [0, l).

        Cost: 2·q·l·d operations, 16·q·l bytes.
        """
        lists = UnitRows(self.centroids)
        _, order = nearest_neighbors(UnitRows(queries), lists, len(self.centroids), device=device)
        places = np.argsort(order, axis=1)
        return np.take_along_axis(places, self.lists[rows].astype(np.int64), axis=1)

    def search(
        self,
        queries: Rows,
        bank: Rows,
        k: int,
        probes: int,
        *,
        own: Integers | None = None,
        device: str | torch.device = "auto",
    ) -> Iterator[Found]:
        """Yield the most similar rows among those of the lists nearest to each query.

        A query whose lists hold fewer than k rows looks through twice as many, and so on.

        Args:
            queries: (q, d), as for :func:`featkit.ops.neighbors.neighbor_blocks`.
            bank: The rows that the lists were made of, (n, d).
            k: Neighbours of each query.
            probes: Lists that each query looks through; with l of them the search is exact.
            own: As there.
            device: As there.

        Yields:
            As there.

        Raises:
            UsageError: As there.

        Cost: 2·q·d·(l + n·probes / l) operations, if lists are alike; each row of the bank that is
        looked at is read once for 2²⁷ / d queries, or 2²² / probes. Memory: some 1.5 GiB, and 20
        bytes for each of the rows.
        """
        asked, held = as_rows(queries, "queries"), as_rows(bank, "bank")
        kept = check_search(asked, held, k, own)
        probes = min(probes, len(self.centroids))
        where = resolve_device(device)
        q, d = asked.shape
        most = max(1, min(CHUNK_FLOATS // d, FOUND // max(kept, 4 * probes)))
        for start in range(0, q, most):
            part = slice(start, min(start + most, q))
            units = unit(queries, asked, part, "queries")
            near, rows = self._scan(units, (bank, held), kept, probes, where)
            more = probes
            while len(short := np.flatnonzero(rows[:, -1] < 0)):
                more = min(2 * more, len(self.centroids))
                near[short], rows[short] = self._scan(units[short], (bank, held), kept, more, where)
            near = near.clip(-1, 1)
            yield part, *in_order(near, rows, None if own is None else own[part])

    def _scan(
        self,
        units: Floats,
        bank: tuple[Rows, RowSource],
        kept: int,
        probes: int,
        device: torch.device,
    ) -> tuple[Floats, Integers]:
        """Return the best rows of each query, -1 where its lists hold fewer."""
        centroids = UnitRows(self.centroids)
        _, probed = nearest_neighbors(UnitRows(units), centroids, probes, device=device)
        looked = np.zeros(len(self.centroids), bool)
        looked[probed] = True
        rows = np.flatnonzero(looked[self.lists])
        asked = torch.from_numpy(units).to(device)
        count = min(torch.get_num_threads(), len(units)) if device.type == "cpu" else 1
        cuts = [len(units) * i // count for i in range(count + 1)]
        shares = [
            _Asked(asked[a:b], probed[a:b], len(self.centroids), kept) for a, b in pairwise(cuts)
        ]
        step = max(1, CHUNK_FLOATS // units.shape[1])
        with full_precision(device), _beside_each_other(count) as each:
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                held = torch.from_numpy(unit(*bank, some, "bank")).to(device)
                names = torch.from_numpy(some).to(device)
                members, ends = _by_list(self.lists[some], len(self.centroids))
                list(each(_Asked.look, shares, *map(repeat, (held, names, members, ends))))
        near = torch.cat([share.near for share in shares])
        found = torch.cat([share.found for share in shares])
        near, order = near.sort(dim=1, descending=True)
        return near.cpu().numpy(), found.gather(1, order).cpu().numpy()


class _Asked:
    """Some queries, the lists that each looks through, and the best rows it has seen.

    Args:
        units: (q, d).
        probed: Lists, (q, probes).
        count: How many lists there are.
        kept: Rows that are kept of each query.

    Attributes:
        near: Similarities of the best, (q, kept), in no order.
        found: Their numbers, -1 where there are none yet.
    """

    def __init__(self, units: torch.Tensor, probed: Integers, count: int, kept: int) -> None:
        self.units, self.probes, self.kept = units, probed.shape[1], kept
        self._askers, self._bounds = _by_list(probed.ravel(), count)
        self.near = units.new_full((len(units), kept), -torch.inf)
        self.found = torch.full((len(units), kept), -1, device=units.device)
        self._worst = units.new_full((len(units),), -torch.inf)

    def look(
        self, held: torch.Tensor, names: torch.Tensor, members: Integers, ends: Integers
    ) -> None:
        """Let them look at some rows.

        Args:
            held: (n, d).
            names: The numbers of these rows, (n).
            members: Their places, list by list, (n).
            ends: Where in ``members`` each list begins, (count + 1).
        """
        for number in np.flatnonzero(np.diff(ends)):
            who = self._askers[self._bounds[number] : self._bounds[number + 1]] // self.probes
            inside = members[ends[number] : ends[number + 1]]
            for first, last in _steps(len(inside) if len(who) else 0):
                one = torch.from_numpy(inside[first:last]).to(held.device)
                self._look(who, held[one], names[one])

    def _look(self, who: Integers, rows: torch.Tensor, names: torch.Tensor) -> None:
        for first, last in _steps(len(who)):
            some = torch.from_numpy(who[first:last]).to(rows.device)
            likeness = self.units.index_select(0, some) @ rows.T
            gains = (likeness.amax(1) > self._worst[some]).nonzero().squeeze(1)
            if not len(gains):  # as for most, but at the start
                continue
            some = some[gains]
            likeness = torch.cat([self.near[some], likeness[gains]], dim=1)
            both = torch.cat([self.found[some], names.expand(len(some), -1)], dim=1)
            self.near[some], order = likeness.topk(self.kept, dim=1, sorted=False)
            self.found[some] = both.gather(1, order)
            self._worst[some] = self.near[some].amin(1)


@contextmanager
def _beside_each_other(count: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Yield a ``map`` whose calls run beside each other, each on one thread.

    What is small is slower on several threads, most of all where something else runs too.
    """
    if count == 1:
        yield map
        return
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield pool.map
        finally:
            torch.set_num_threads(threads)


def _by_list(numbers: npt.NDArray[np.integer], count: int) -> tuple[Integers, Integers]:
    """Return the places of each number among ``numbers``, in order, and where each begins."""
    order = np.argsort(numbers, kind="stable")
    return order, np.concatenate([[0], np.cumsum(np.bincount(numbers, minlength=count))])


def _steps(count: int) -> Iterator[tuple[int, int]]:
    yield from pairwise([*range(0, count, BLOCK), count])
