"""Neighbours that are nearly all found, in a fraction of the time, and how many are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, Self, get_args

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from featkit.errors import UsageError
from featkit.ops.hnsw import Hnsw
from featkit.ops.inverted_file import InvertedFile
from featkit.ops.neighbors import (
    Floats,
    Found,
    Integers,
    Rows,
    UnitRows,
    as_rows,
    neighbor_blocks,
    unit,
    whole_number,
)
from featkit.ops.recall import Recall, neighbor_recall
from featkit.ops.row_sources import Array

Kind = Literal["ivf", "hnsw"]

SAMPLE = 1000
"""Queries that are compared with an exact search."""

REMEMBERED = 100
"""Exact neighbours of each row of the sample that are kept at least, for other k."""


class ApproximateNeighbors(BaseEstimator):  # type: ignore[misc]
    """Nearest neighbours by cosine similarity, most of them, in a part of the time.

    How far a search goes is chosen when the index is made: the least that finds a share ``recall``
    of the exact ``k`` nearest of 1,000 rows of the bank, each without itself. Other queries may be
    harder: :meth:`measure` tells of those.

    Args:
        k: Neighbours of a query, unless it says otherwise.
        kind: ``ivf``, lists of near rows, of which some are looked through; the bank may be a
            memory map, or any source of rows, larger than memory. ``hnsw``, a graph of near rows:
            faster for single queries, slower to make, and wholly in memory.
        recall: In (0, 1].
        device: ``auto``, ``cpu`` or ``cuda``, of ivf and of exact searches; hnsw has the CPU.
        random_state: Seed of the samples and of k-means.

    Attributes:
        index_: :class:`featkit.ops.inverted_file.InvertedFile` or :class:`featkit.ops.hnsw.Hnsw`.
        effort_: Lists that are looked through, or candidates that a walk keeps.

    Cost: that of ``index_``, and an exact search for 1,000 queries. Whether that pays, against an
    exact search, depends on the queries, some ten thousand at the first time, and on ``effort_``.

    Example:
        >>> bank = np.random.default_rng(0).standard_normal((500, 8))
        >>> found = ApproximateNeighbors(k=5, recall=1.0, device="cpu").fit(bank)
        >>> found.kneighbors(bank[:1])[1][0, 0]
        np.int64(0)
    """

    def __init__(
        self,
        k: int = 20,
        kind: Kind = "ivf",
        recall: float = 0.95,
        device: str = "auto",
        random_state: int = 0,
    ) -> None:
        self.k = k
        self.kind = kind
        self.recall = recall
        self.device = device
        self.random_state = random_state

    def fit(self, X: Rows, y: object = None) -> Self:  # noqa: ARG002, N803
        """Make the index, and choose how far searches go.

        Args:
            X: (n, d), as for :func:`featkit.ops.neighbors.nearest_neighbors`; it is kept, not
                copied.
            y: Not used.

        Raises:
            UsageError: Rows or parameters cannot be used, or the index does not fit into memory.
        """
        bank = self._opened(X)
        if self.kind == "ivf":
            self.index_: InvertedFile | Hnsw = InvertedFile.build(
                bank, device=self.device, seed=self.random_state
            )
        else:
            self.index_ = Hnsw.build(bank)
        n = as_rows(bank, "bank").shape[0]
        self._sample = self._drawn(n, 1)
        k = min(max(self.k, REMEMBERED), n - 1)
        self._exact, self._nearest = self._exactly(self._units(bank, self._sample), k, self._sample)
        return self._tuned()

    def restore(self, X: Rows, arrays: Mapping[str, Array]) -> Self:  # noqa: N803
        """Take an index from what :meth:`to_arrays` told of it, over the rows that it was made of.

        Raises:
            UsageError: As for :meth:`fit`.
            ValueError: The arrays do not belong to so many rows, or know too few neighbours for k.
        """
        bank = self._opened(X)
        n, d = as_rows(bank, "bank").shape
        self._sample, self._nearest = arrays["sample"], arrays["nearest"]
        self._exact = arrays["similarities"]
        known = (
            self._sample.shape == (min(n, SAMPLE),)
            and self._nearest.shape
            == self._exact.shape
            == (len(self._sample), self._exact.shape[-1])
            and all(((x >= 0) & (x < n)).all() for x in (self._sample, self._nearest))
        )
        if not known:
            raise ValueError("these are no neighbours of a sample of the rows")
        if self._nearest.shape[1] < min(self.k, n - 1):
            raise ValueError(f"it knows {self._nearest.shape[1]} neighbours, and k is {self.k}")
        if self.kind == "ivf":
            centroids, lists = arrays["centroids"], arrays["lists"]
            fitting = centroids.ndim == 2 and centroids.shape[1] == d and lists.shape == (n,)
            if not fitting or not ((lists >= 0) & (lists < len(centroids))).all():
                raise ValueError(f"these are no lists of {n} rows")
            if not np.isfinite(centroids).all():
                raise ValueError("a centroid is not finite")
            self.index_ = InvertedFile(centroids, lists)
        else:
            self.index_ = Hnsw.from_arrays(bank, arrays)
        return self._tuned()

    def to_arrays(self) -> dict[str, Array]:
        """Return the index without the rows of the bank.

        ``sample`` (s), ``nearest`` and ``similarities`` (s, K): rows of the bank and their exact
        nearest; of ivf ``centroids`` (l, d) and ``lists`` (n); of hnsw what
        :meth:`featkit.ops.hnsw.Hnsw.to_arrays` says.
        """
        check_is_fitted(self)
        told: dict[str, Array] = {
            "sample": self._sample,
            "nearest": self._nearest,
            "similarities": self._exact,
        }
        if isinstance(self.index_, Hnsw):
            return told | self.index_.to_arrays()
        return told | {"centroids": self.index_.centroids, "lists": self.index_.lists}

    def kneighbors(
        self,
        X: Rows | None = None,  # noqa: N803
        n_neighbors: int | None = None,
    ) -> tuple[Floats, Integers]:
        """Find similar rows of the bank.

        Args:
            X: (q, d), or None for the rows of the bank, each without itself.
            n_neighbors: Neighbours of each row; ``k`` if None.

        Returns:
            Similarities, float32 (q, n_neighbors) in [-1, 1], decreasing, and rows, int64.

        Raises:
            NotFittedError: ``fit`` has not been called.
            UsageError: shapes, values or ``n_neighbors`` cannot be used.
        """
        check_is_fitted(self)
        k = self.k if n_neighbors is None else n_neighbors
        queries = self._bank if X is None else X
        found = list(self.blocks(queries, k, own=self._all() if X is None else None))
        if not found:
            return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
        return np.concatenate([x for _, x, _ in found]), np.concatenate([x for _, _, x in found])

    def blocks(self, queries: Rows, k: int, *, own: Integers | None = None) -> Iterator[Found]:
        """Yield what :meth:`kneighbors` finds, some queries at a time.

        Args:
            queries: As for :func:`featkit.ops.neighbors.neighbor_blocks`, like the others.
            k: Likewise.
            own: Likewise.
        """
        check_is_fitted(self)
        return self._search(queries, k, self.effort_, own)

    def measure(
        self,
        X: Rows | None = None,  # noqa: N803
        n_neighbors: int | None = None,
        *,
        own: Integers | None = None,
    ) -> Recall:
        """Compare 1,000 of some queries with an exact search.

        Args:
            X: As for :meth:`kneighbors`.
            n_neighbors: Likewise.
            own: The row of the bank that each query is, (q), where they are some of it.

        Cost: an exact search for these.
        """
        check_is_fitted(self)
        k = self.k if n_neighbors is None else n_neighbors
        queries = self._bank if X is None else X
        chosen = self._drawn(as_rows(queries, "queries").shape[0], 2)
        units = self._units(queries, chosen)
        if X is None:
            own = self._all()
        rows = None if own is None else own[chosen]
        near = np.concatenate([x for _, x, _ in self.blocks(units, k, own=rows)])
        return neighbor_recall(near, self._exactly(units, k, rows)[0])

    def _opened(self, bank: Rows) -> Rows:
        if self.kind not in get_args(Kind):
            raise UsageError(f"approximate is {self.kind!r}: give {' or '.join(get_args(Kind))}")
        if not 0 < self.recall <= 1:
            raise UsageError(f"recall is {self.recall}: give a share above 0, up to 1")
        n = as_rows(bank, "bank").shape[0]
        if n < 2:
            raise UsageError(f"an index of {n} rows: give two or more")
        whole_number(self.k, "k", n, "rows to choose from")
        self._bank = bank
        return bank

    def _all(self) -> Integers:
        return np.arange(as_rows(self._bank, "bank").shape[0])

    def _drawn(self, n: int, stream: int) -> Integers:
        """Return the rows of a sample, in order."""
        draws = np.random.default_rng([self.random_state, stream])
        drawn: Integers = np.sort(draws.choice(n, min(n, SAMPLE), replace=False, shuffle=False))
        return drawn

    def _units(self, x: Rows, rows: Integers) -> UnitRows:
        return UnitRows(unit(x, as_rows(x, "queries"), rows, "queries"))

    def _exactly(self, queries: Rows, k: int, own: Integers | None) -> tuple[Floats, Integers]:
        found = list(neighbor_blocks(queries, self._bank, k, own=own, device=self.device))
        return np.concatenate([x for _, x, _ in found]), np.concatenate([x for _, _, x in found])

    def _search(
        self, queries: Rows, k: int, effort: int, own: Integers | None = None
    ) -> Iterator[Found]:
        if isinstance(self.index_, Hnsw):
            return self.index_.search(queries, self._bank, k, effort, own=own)
        return self.index_.search(queries, self._bank, k, effort, own=own, device=self.device)

    def _tuned(self) -> Self:
        """Choose the least effort that finds enough neighbours of the sample."""
        exact, n = self._exact[:, : self.k], as_rows(self._bank, "bank").shape[0]
        units = self._units(self._bank, self._sample)
        if isinstance(self.index_, InvertedFile):
            near = self._nearest[:, : self.k]
            places = np.sort(self.index_.places(units.array, near, device=self.device), axis=None)
            self.effort_ = int(places[int(np.ceil(self.recall * places.size)) - 1]) + 1
            return self
        self.effort_ = max(16, self.k + 1)  # 16 is faiss' default
        while self.effort_ < n:
            found = self._search(units, exact.shape[1], self.effort_, self._sample)
            near = np.concatenate([x for _, x, _ in found])
            if neighbor_recall(near, exact).share >= self.recall:
                break
            self.effort_ *= 2
        return self
