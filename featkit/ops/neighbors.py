"""Exact nearest neighbours by cosine similarity."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from featkit.errors import UsageError

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float32]
Integers: TypeAlias = npt.NDArray[np.int64]
_Found: TypeAlias = tuple[torch.Tensor, torch.Tensor]  # similarities and rows, best first
_Search: TypeAlias = Callable[[Floats, int], _Found]  # queries and k to what was found
_Engine: TypeAlias = Callable[[Floats, torch.device, int], _Search]  # opens rows of the bank

BLOCK = 4096  # rows of each side in one matrix product: 64 MiB of similarities
CHUNK_FLOATS = 2**27  # floats of bank normalised at once: 512 MiB
KEPT = 2**23  # candidates that faiss may hold at once
SAFE_NORMS = (1e-12, 1e18)  # lengths whose squares float32 holds with all its digits

_LOCK = threading.RLock()  # faiss and torch keep the settings changed below per process


@dataclass(frozen=True, slots=True)
class UnitRows:
    """Rows that are normalised already, so that many searches need not do it again.

    Args:
        array: float32 (n, d), C-contiguous, each row of length 1 or 0: :func:`unit_rows` makes it.
    """

    array: Floats


Rows: TypeAlias = npt.ArrayLike | torch.Tensor | UnitRows


def unit_rows(x: Rows, *, name: str = "features") -> UnitRows:
    """Divide each row by its length: ``x_i / ‖x_i‖``. Zero rows stay zero.

    Args:
        x: (n, d), any real dtype, finite.
        name: What the rows are, for messages.

    Returns:
        float32 (n, d) in [-1, 1].

    Raises:
        UsageError: ``x`` is no matrix of finite real numbers.

    Cost: one pass over ``x``, 4·n·d bytes.

    Example:
        >>> unit_rows([[3.0, 4.0], [0.0, 0.0]]).array
        array([[0.6, 0.8],
               [0. , 0. ]], dtype=float32)
    """
    if isinstance(x, UnitRows):
        return x
    matrix = _matrix(x, name)
    return UnitRows(_normalise(matrix, slice(None), name))


def nearest_neighbors(
    queries: Rows,
    bank: Rows,
    k: int,
    *,
    exclude_self: bool = False,
    device: str | torch.device = "auto",
    block: int = BLOCK,
) -> tuple[Floats, Integers]:
    """Find the ``k`` rows of ``bank`` most similar to each query.

    ``sim(x, y) = x·y / (‖x‖ ‖y‖)``; 0 where x or y is zero.

    Every similarity is computed, in float32. Neighbours of equal similarity come in the order of
    their rows; which of those that tie for the last place are returned is not specified.

    Args:
        queries: (q, d), any real dtype, finite. Memory-mapped arrays are read block by block.
        bank: (n, d), likewise. Give ``unit_rows(bank)`` to search one bank several times.
        k: Neighbours of each query, 1 ≤ k ≤ n (n - 1 with ``exclude_self``).
        exclude_self: ``queries`` is ``bank`` row by row and no row is its own neighbour
            (leave-one-out). Exact copies of a row are its neighbours.
        device: ``cpu`` (faiss), ``cuda`` (torch) or ``auto`` (``cuda`` where there is one).
        block: Rows of each side in one matrix product.

    Returns:
        Similarities, float32 (q, k) in [-1, 1], decreasing along each row, and rows of the bank,
        int64 (q, k) in [0, n).

    Raises:
        UsageError: shapes, ``k``, ``block`` or ``device`` cannot be used, or rows are not finite.

    Cost: 2·q·n·d operations. Memory: some 24·q·k bytes for the answer, 4·block² for a product, up
    to 200 MiB for candidates and some 512 MiB for the part of the bank at work; never q·n.

    Example:
        >>> bank = [[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]
        >>> similarities, rows = nearest_neighbors([[3.0, 1.0]], bank, k=2, device="cpu")
        >>> rows
        array([[0, 1]])
        >>> similarities.round(3)
        array([[0.949, 0.894]], dtype=float32)
    """
    where = resolve_device(device)
    engine = _torch_engine if where.type == "cuda" else _faiss_engine
    return _search(queries, bank, k, engine, where, exclude_self=exclude_self, block=block)


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device that ``auto``, ``cpu`` or ``cuda`` names; UsageError if there is none."""
    kind, _, number = str(device).partition(":")
    if kind not in {"auto", "cpu", "cuda"} or not (number or "0").isdecimal():
        raise UsageError(f"device {str(device)!r} is unknown: give auto, cpu or cuda")
    if kind == "cuda" and not int(number or 0) < torch.cuda.device_count():
        raise UsageError(f"device {str(device)!r} is not in this machine: give auto or cpu")
    if kind == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def whole_number(value: object, name: str, limit: int | None = None, of: str = "") -> int:
    """Return a count of at least 1 and at most ``limit``, or raise UsageError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise UsageError(f"{name} is {value!r}: give a whole number, 1 or more")
    if limit is not None and value > limit:
        raise UsageError(f"{name} is {value} and there are {limit} {of}: lower it to {limit}")
    return int(value)


def _matrix(x: Rows, name: str) -> Array:
    if isinstance(x, UnitRows):
        return x.array
    if isinstance(x, torch.Tensor):
        x = (x.float() if x.dtype == torch.bfloat16 else x).detach().cpu().numpy()
    matrix = np.asarray(x)
    if matrix.ndim != 2 or matrix.dtype.kind not in "biuf" or not matrix.shape[1]:
        given = f"{matrix.dtype} {matrix.shape}"
        raise UsageError(f"{name} are {given}: give real numbers in the shape (rows, features)")
    return matrix


def _normalise(matrix: Array, part: slice, name: str) -> Floats:
    rows = matrix[part]
    unit = np.empty(rows.shape, dtype=np.float32)
    step = max(1, 2**18 // rows.shape[1])  # 1 MiB stays in the cache
    for start in range(0, len(rows), step):
        out, given = unit[start : start + step], rows[start : start + step]
        with np.errstate(over="ignore"):  # float64 outside float32's range is mended below
            out[:] = given
        values = torch.from_numpy(out)
        lengths = torch.linalg.vector_norm(values, dim=1, keepdim=True)
        odd = ~((lengths > SAFE_NORMS[0]) & (lengths < SAFE_NORMS[1])).squeeze(1).numpy()
        values /= lengths
        if odd.any():
            wide = given[odd].astype(np.float64)
            if not np.isfinite(wide).all():
                _refuse_rows(matrix, name)
            wide /= np.maximum(np.abs(wide).max(axis=1, keepdims=True), np.finfo(float).tiny)
            norm = np.linalg.norm(wide, axis=1, keepdims=True)
            out[odd] = wide / np.where(norm == 0, 1, norm)
    return unit


def _refuse_rows(matrix: Array, name: str) -> NoReturn:
    step = max(1, 2**20 // matrix.shape[1])
    blocks = (matrix[start : start + step] for start in range(0, len(matrix), step))
    bad = np.flatnonzero(np.concatenate([~np.isfinite(b).all(axis=1) for b in blocks]))
    raise UsageError(
        f"{len(bad)} of {len(matrix)} rows of {name} hold NaN or infinity, the first is row"
        f" {bad[0]}: leave them out"
    )


def _search(
    queries: Rows,
    bank: Rows,
    k: int,
    engine: _Engine,
    device: torch.device,
    *,
    exclude_self: bool = False,
    block: int = BLOCK,
) -> tuple[Floats, Integers]:
    asked, held = _matrix(queries, "queries"), _matrix(bank, "bank")
    (q, width), (n, d) = asked.shape, held.shape
    block = whole_number(block, "block")
    if width != d:
        raise UsageError(f"queries have {width} features and the bank {d}: use the same features")
    if exclude_self and q != n:
        raise UsageError(f"exclude_self with {q} queries and {n} bank rows: give the bank twice")
    kept = whole_number(k, "k", n - exclude_self, "rows to choose from") + exclude_self
    best = torch.full((q, kept), -torch.inf, device=device)
    rows = torch.full((q, kept), -1, device=device)
    step = max(block, CHUNK_FLOATS // d)
    for start in range(0, n, step):
        search = engine(_unit(bank, held, slice(start, start + step), "bank"), device, block)
        for first in range(0, q, block):
            part = slice(first, first + block)
            near, where = search(_unit(queries, asked, part, "queries"), min(kept, n - start, step))
            where = where + start
            if start:
                near, where = _merge((best[part], rows[part]), (near, where), kept)
            best[part, : near.shape[1]], rows[part, : near.shape[1]] = near, where
    similarities, indices = np.empty((q, k), np.float32), np.empty((q, k), np.int64)
    for first in range(0, q, block):
        part = slice(first, first + block)
        found = best[part].cpu().numpy().clip(-1, 1), rows[part].cpu().numpy()
        similarities[part], indices[part] = _in_order(*found, first if exclude_self else None)
    return similarities, indices


def _unit(x: Rows, matrix: Array, part: slice, name: str) -> Floats:
    return x.array[part] if isinstance(x, UnitRows) else _normalise(matrix, part, name)


def _merge(one: _Found, other: _Found, k: int) -> _Found:
    near, where = (torch.cat(pair, dim=1) for pair in zip(one, other, strict=True))
    near, order = near.sort(dim=1, descending=True, stable=True)
    return near[:, :k], where.gather(1, order[:, :k])


def _in_order(near: Floats, where: Integers, first: int | None) -> tuple[Floats, Integers]:
    """Sort ties by row; drop each query itself, which is row ``first``, ``first + 1``, … ."""
    tied = (near[:, 1:] == near[:, :-1]).any(axis=1)
    order = np.lexsort((where[tied], -near[tied]), axis=1)
    where[tied] = np.take_along_axis(where[tied], order, axis=1)  # similarities stay: they decrease
    if first is None:
        return near, where
    drop = where == first + np.arange(len(where))[:, None]
    drop[~drop.any(axis=1), -1] = True  # crowded out by copies: drop the last instead
    return near[~drop].reshape(len(near), -1), where[~drop].reshape(len(where), -1)


@contextmanager
def _settings(holder: Any, **wanted: object) -> Iterator[None]:
    """Hold settings that belong to the whole process, and put the old ones back."""
    with _LOCK:
        before = {name: getattr(holder, name) for name in wanted}
        try:
            for name, value in wanted.items():
                setattr(holder, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(holder, name, value)


def _faiss_engine(bank: Floats, _: torch.device, block: int) -> _Search:
    import faiss

    def search(queries: Floats, k: int) -> _Found:
        with _settings(
            faiss.cvar,
            distance_compute_blas_threshold=1,  # a matrix product for the fewest queries, too
            distance_compute_blas_query_bs=max(1, min(block, KEPT // k)),
            distance_compute_blas_database_bs=block,
        ):
            threads = faiss.omp_get_max_threads()
            faiss.omp_set_num_threads(torch.get_num_threads())
            try:
                near, where = faiss.knn(queries, bank, k, metric=faiss.METRIC_INNER_PRODUCT)
            finally:
                faiss.omp_set_num_threads(threads)
        return torch.from_numpy(near), torch.from_numpy(where)

    return search


def _torch_engine(bank: Floats, device: torch.device, block: int) -> _Search:
    held = torch.tensor(bank, device=device)
    matmul = torch.backends.cuda.matmul  # TF32 has too few digits; its switch has two names
    exact = (
        {"fp32_precision": "ieee"} if hasattr(matmul, "fp32_precision") else {"allow_tf32": False}
    )

    def search(queries: Floats, k: int) -> _Found:
        asked = torch.tensor(queries, device=device)
        found = asked.new_empty(len(asked), 0), asked.new_empty(len(asked), 0, dtype=torch.int64)
        with _settings(matmul, **exact), torch.autocast(device.type, enabled=False):
            for start in range(0, len(held), block):
                product = asked @ held[start : start + block].T
                near, where = product.topk(min(k, product.shape[1]), dim=1)
                found = _merge(found, (near, where + start), k)
        return found

    return search
