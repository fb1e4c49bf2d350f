"""The products behind an exact search: faiss on the CPU, torch on other devices."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

Floats: TypeAlias = npt.NDArray[np.float32]
Neighbors: TypeAlias = tuple[torch.Tensor, torch.Tensor]  # similarities and rows, best first
Search: TypeAlias = Callable[[Floats, int], Neighbors]  # queries and k to what was found
Engine: TypeAlias = Callable[[Floats, torch.device, int], Search]  # opens rows of the bank

KEPT = 2**23  # candidates that faiss may hold at once

_LOCK = threading.RLock()  # faiss and torch keep the settings changed below per process


def merged(one: Neighbors, other: Neighbors, k: int) -> Neighbors:
    """Return the k best of two lists of neighbours of each query, those of the first first."""
    near, where = (torch.cat(pair, dim=1) for pair in zip(one, other, strict=True))
    near, order = near.sort(dim=1, descending=True, stable=True)
    return near[:, :k], where.gather(1, order[:, :k])


@contextmanager
def settings(holder: Any, **wanted: object) -> Iterator[None]:
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


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Let torch multiply float32 with all its digits, whatever the process has set."""
    matmul = torch.backends.cuda.matmul  # TF32 has too few digits; its switch has two names
    exact = (
        {"fp32_precision": "ieee"} if hasattr(matmul, "fp32_precision") else {"allow_tf32": False}
    )
    with settings(matmul, **exact), torch.autocast(device.type, enabled=False):
        yield


@contextmanager
def faiss_threads() -> Iterator[None]:
    """Let faiss run in as many threads as torch; the old number is put back."""
    import faiss

    with _LOCK:
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(torch.get_num_threads())
        try:
            yield
        finally:
            faiss.omp_set_num_threads(threads)


def faiss_engine(bank: Floats, _: torch.device, block: int) -> Search:
    """Search rows of length 1, (n, d), by faiss' products of ``block`` rows of each side."""
    import faiss

    def search(queries: Floats, k: int) -> Neighbors:
        products = {
            "distance_compute_blas_threshold": 1,  # a matrix product for the fewest queries, too
            "distance_compute_blas_query_bs": max(1, min(block, KEPT // k)),
            "distance_compute_blas_database_bs": block,
        }
        with settings(faiss.cvar, **products), faiss_threads():
            near, where = faiss.knn(queries, bank, k, metric=faiss.METRIC_INNER_PRODUCT)
        return torch.from_numpy(near), torch.from_numpy(where)

    return search


def torch_engine(bank: Floats, device: torch.device, block: int) -> Search:
    """Do the same by torch, on any device."""
    held = torch.tensor(bank, device=device)

    def search(queries: Floats, k: int) -> Neighbors:
        asked = torch.tensor(queries, device=device)
        found = asked.new_empty(len(asked), 0), asked.new_empty(len(asked), 0, dtype=torch.int64)
        with full_precision(device):
            for start in range(0, len(held), block):
                product = asked @ held[start : start + block].T
                near, where = product.topk(min(k, product.shape[1]), dim=1)
                found = merged(found, (near, where + start), k)
        return found

    return search
