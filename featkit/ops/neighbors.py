"""Exact nearest neighbours by cosine similarity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from featkit.errors import UsageError
from featkit.ops.row_sources import RowSource
from featkit.ops.search_engines import (
    Engine,
    Neighbors,
    faiss_engine,
    merged,
    torch_engine,
)

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float32]
Integers: TypeAlias = npt.NDArray[np.int64]
Found: TypeAlias = tuple[slice, Floats, Integers]  # queries, their similarities and rows

BLOCK = 4096  # rows of each side in one matrix product: 64 MiB of similarities
CHUNK_FLOATS = 2**25  # floats of bank normalised at once: 128 MiB
FOUND = 2**24  # neighbours held at once: 400 MiB with what sorts them
SAFE_NORMS = (1e-12, 1e18)  # lengths whose squares float32 holds with all its digits


@dataclass(frozen=True, slots=True)
class UnitRows:
    """Rows that are normalised already, so that many searches need not do it again.

    Args:
        array: float32 (n, d), C-contiguous, each row of length 1 or 0: :func:`unit_rows` makes it.
    """

    array: Floats


Rows: TypeAlias = npt.ArrayLike | torch.Tensor | UnitRows | RowSource


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
    matrix = as_rows(x, name)
    return UnitRows(normalised(matrix, slice(0, matrix.shape[0]), name))


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
        queries: (q, d), any real dtype, finite. Memory-mapped arrays, and other sources of rows
            (:class:`featkit.ops.row_sources.RowSource`), are read block by block.
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

    Cost: 2·q·n·d operations; the bank is read once for 2²⁴ neighbours (of k = 20: 800,000 queries).
    Memory: 12·q·k bytes for the answer, up to 400 MiB to find it, 4·block² for a product, up to
    200 MiB for candidates and some 128 MiB for the part of the bank at work; never q·n.

    Example:
        >>> bank = [[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]
        >>> similarities, rows = nearest_neighbors([[3.0, 1.0]], bank, k=2, device="cpu")
        >>> rows
        array([[0, 1]])
        >>> similarities.round(3)
        array([[0.949, 0.894]], dtype=float32)
    """
    asked, held = as_rows(queries, "queries"), as_rows(bank, "bank")
    q, n = asked.shape[0], held.shape[0]
    if exclude_self and q != n and asked.shape[1] == held.shape[1]:
        raise UsageError(f"exclude_self with {q} queries and {n} bank rows: give the bank twice")
    own = np.arange(n) if exclude_self else None
    check_search(asked, held, k, own)
    similarities, rows = np.empty((q, k), np.float32), np.empty((q, k), np.int64)
    for part, near, where in neighbor_blocks(queries, bank, k, own=own, device=device, block=block):
        similarities[part], rows[part] = near, where
    return similarities, rows


def neighbor_blocks(
    queries: Rows,
    bank: Rows,
    k: int,
    *,
    own: Integers | None = None,
    device: str | torch.device = "auto",
    block: int = BLOCK,
) -> Iterator[Found]:
    """Yield what :func:`nearest_neighbors` finds, some queries at a time.

    Args:
        queries: As there, (q, d).
        bank: Likewise, (n, d).
        k: Likewise.
        own: The row of the bank that each query is, (q) in [0, n), which is then not its neighbour.
        device: As there.
        block: Likewise.

    Yields:
        Which queries, as a slice, their similarities and their rows of the bank.

    Raises:
        UsageError: As there, when the first is asked for.

    Cost: as there, without the answer.
    """
    where = resolve_device(device)
    engine = torch_engine if where.type == "cuda" else faiss_engine
    return _search_blocks(queries, bank, k, engine, where, own=own, block=block)


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


def as_rows(x: Rows, name: str) -> RowSource:
    """Return a matrix of real numbers whose rows can be read; nothing is read yet.

    Args:
        x: Anything of the kind. What has rows that can be sliced stays what it is.
        name: What the rows are, for messages.

    Raises:
        UsageError: It is something else.
    """
    if isinstance(x, UnitRows):
        return x.array
    if isinstance(x, torch.Tensor):
        x = (x.float() if x.dtype == torch.bfloat16 else x).detach().cpu().numpy()
    is_source = isinstance(x, RowSource) and not isinstance(x, np.ndarray)
    matrix: Any = x if is_source else np.asarray(x)
    shape, dtype = matrix.shape, np.dtype(matrix.dtype)
    if len(shape) != 2 or dtype.kind not in "biuf" or not shape[1]:
        raise UsageError(
            f"{name} are {dtype} {shape}: give real numbers in the shape (rows, features)"
        )
    rows: RowSource = matrix
    return rows


def normalised(matrix: RowSource, part: slice | Integers, name: str) -> Floats:
    """Read some rows of a matrix, a few at a time, and divide each by its length.

    Args:
        matrix: (n, d), from :func:`as_rows`.
        part: A slice with a start, or row numbers that increase; of m rows.
        name: What they are, for messages.

    Returns:
        float32 (m, d).

    Raises:
        UsageError: A row is not finite.
    """
    places = part if isinstance(part, np.ndarray) else range(matrix.shape[0])[part]
    unit = np.empty((len(places), matrix.shape[1]), dtype=np.float32)
    step = max(1, 2**18 // matrix.shape[1])  # 1 MiB stays in the cache
    for start in range(0, len(unit), step):
        some = places[start : start + step]
        given = matrix[slice(some.start, some.stop) if isinstance(some, range) else some]
        _normalise(np.asarray(given), unit[start : start + step], matrix, name)
    return unit


def _normalise(given: Array, out: Floats, matrix: RowSource, name: str) -> None:
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


def check_finite(matrix: RowSource, name: str) -> None:
    """Read all rows once; UsageError if numbers among them are not finite."""
    step = max(1, 2**20 // matrix.shape[1])
    for start in range(0, matrix.shape[0], step):
        if not np.isfinite(matrix[start : start + step]).all():
            _refuse_rows(matrix, name)


def _refuse_rows(matrix: RowSource, name: str) -> NoReturn:
    n, step = matrix.shape[0], max(1, 2**20 // matrix.shape[1])
    blocks = (np.asarray(matrix[start : start + step]) for start in range(0, n, step))
    bad = np.flatnonzero(np.concatenate([~np.isfinite(b).all(axis=1) for b in blocks]))
    raise UsageError(
        f"{len(bad)} of {n} rows of {name} hold NaN or infinity, the first is row"
        f" {bad[0]}: leave them out"
    )


def check_search(queries: RowSource, bank: RowSource, k: int, own: Integers | None) -> int:
    """Return k, and one more for a row itself; UsageError if there are no such neighbours."""
    width, (n, d) = queries.shape[1], bank.shape
    if width != d:
        raise UsageError(f"queries have {width} features and the bank {d}: use the same features")
    alone = own is not None
    return whole_number(k, "k", n - alone, "rows to choose from") + alone


def _search_blocks(
    queries: Rows,
    bank: Rows,
    k: int,
    engine: Engine,
    device: torch.device,
    *,
    own: Integers | None = None,
    block: int = BLOCK,
) -> Iterator[Found]:
    asked, held = as_rows(queries, "queries"), as_rows(bank, "bank")
    block = whole_number(block, "block")
    kept = check_search(asked, held, k, own)
    most = max(1, FOUND // kept // block) * block
    for start in range(0, asked.shape[0], most):
        part = slice(start, min(start + most, asked.shape[0]))
        best, rows = _best(part, (queries, asked), (bank, held), kept, engine, device, block)
        for first in range(0, len(best), block):
            some = slice(first, first + block)
            found = best[some].cpu().numpy().clip(-1, 1), rows[some].cpu().numpy()
            place = slice(start + first, start + first + len(found[0]))
            yield place, *in_order(*found, None if own is None else own[place])


def _best(
    part: slice,
    queries: tuple[Rows, RowSource],
    bank: tuple[Rows, RowSource],
    kept: int,
    engine: Engine,
    device: torch.device,
    block: int,
) -> Neighbors:
    (n, d), count = bank[1].shape, part.stop - part.start
    best = torch.full((count, kept), -torch.inf, device=device)
    rows = torch.full((count, kept), -1, device=device)
    step = max(block, CHUNK_FLOATS // d)
    for start in range(0, n, step):
        search = engine(unit(*bank, slice(start, min(start + step, n)), "bank"), device, block)
        for first in range(0, count, block):
            some = slice(first, min(first + block, count))
            asked = slice(part.start + some.start, part.start + some.stop)
            near, where = search(unit(*queries, asked, "queries"), min(kept, n - start, step))
            where = where + start
            if start:
                near, where = merged((best[some], rows[some]), (near, where), kept)
            best[some, : near.shape[1]], rows[some, : near.shape[1]] = near, where
    return best, rows


def unit(x: Rows, matrix: RowSource, part: slice | Integers, name: str) -> Floats:
    """Return some rows of what a caller gave, and :func:`as_rows` made of it, at length 1."""
    return x.array[part] if isinstance(x, UnitRows) else normalised(matrix, part, name)


def in_order(near: Floats, where: Integers, own: Integers | None) -> tuple[Floats, Integers]:
    """Sort ties by row; drop of each query, where these are given, the row that it is itself."""
    tied = (near[:, 1:] == near[:, :-1]).any(axis=1)
    order = np.lexsort((where[tied], -near[tied]), axis=1)
    where[tied] = np.take_along_axis(where[tied], order, axis=1)  # similarities stay: they decrease
    if own is None:
        return near, where
    drop = where == own[:, None]
    drop[~drop.any(axis=1), -1] = True  # crowded out by copies: drop the last instead
    return near[~drop].reshape(len(near), -1), where[~drop].reshape(len(where), -1)
