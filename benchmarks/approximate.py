"""Approximate neighbours against an exact search, and against faiss' own inverted file.

TRAIN and TEST are stores of one table each, such as

    featkit extract CIFAR10/train -b "offline:efficientnet_lite0?size=64" -o TRAIN
    featkit extract CIFAR10/test -b "offline:efficientnet_lite0?size=64" -o TEST

Beside them stand rows that are made up: around 10,000 centres that lie in a space of 64 dimensions.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from benchmarks.harness import command_line, interleaved, median_ratio, save
from featkit.ops.approximate import ApproximateNeighbors
from featkit.ops.inverted_file import InvertedFile
from featkit.ops.neighbors import Rows, nearest_neighbors, unit_rows
from featkit.ops.row_sources import RowSource, SelectedRows
from featkit.store.files import size_text
from featkit.store.indexes import index_file, read_index, write_index
from featkit.store.reader import open_store

K = 20
CENTRES, SPACE, NOISE = 10_000, 64, 0.7
BLOCK = 2**16


def made_up(path: Path, n: int, width: int, seed: int) -> np.memmap:
    """Write n rows around centres to a file, and return it mapped."""
    draws = np.random.default_rng(7)
    turned = draws.standard_normal((SPACE, width), np.float32) / SPACE**0.5
    centres = draws.standard_normal((CENTRES, SPACE), np.float32) @ turned
    rng = np.random.default_rng(seed)
    with path.open("wb") as out:
        for start in range(0, n, BLOCK):
            size = min(BLOCK, n - start)
            rows = centres[rng.integers(0, CENTRES, size)]
            out.write(rows + NOISE * rng.standard_normal((size, width), np.float32))
    return np.memmap(path, np.float32, "r", shape=(n, width))


def seconds(run: Callable[[], object]) -> float:
    """Return how long something takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def private_memory() -> int:
    """Return the bytes of memory that are this process's alone."""
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def by_faiss(index: InvertedFile, bank: Rows) -> Any:
    """Return faiss' inverted file with the same lists."""
    quantizer = faiss.IndexFlatIP(index.centroids.shape[1])
    quantizer.add(index.centroids)
    peer = faiss.IndexIVFFlat(
        quantizer, index.centroids.shape[1], len(index.centroids), faiss.METRIC_INNER_PRODUCT
    )
    peer.is_trained = True
    peer.add(unit_rows(bank).array)
    return peer


def measured(
    kind: str, bank: RowSource, queries: RowSource, given: argparse.Namespace, peer: bool
) -> dict[str, Any]:
    """Build, keep, load, search, and compare.

    Args:
        kind: ``ivf`` or ``hnsw``.
        bank: Rows to search.
        queries: For how many it is timed.
        given: Options.
        peer: Whether faiss' own inverted file is timed too.
    """
    index, before = ApproximateNeighbors(K, kind, given.recall), private_memory()
    found: dict[str, Any] = {"build": seconds(lambda: index.fit(bank))}
    found["private_bytes"] = private_memory() - before
    provenance = {"tables": [], "kind": kind}
    with tempfile.TemporaryDirectory() as store:
        write_index(Path(store), provenance, index.to_arrays())
        path = index_file(Path(store), provenance)
        found["file_bytes"] = path.stat().st_size
        again = ApproximateNeighbors(K, kind, given.recall)
        found["load"] = seconds(lambda: again.restore(bank, read_index(path)[1]))
    q, few = queries.shape[0], queries[: given.exact]
    found |= {"effort": index.effort_, "recall": vars(again.measure(queries))}
    alternatives = {
        "exact": lambda: seconds(lambda: nearest_neighbors(few, bank, K)) / len(few),
        kind: lambda: seconds(lambda: again.kneighbors(queries)) / q,
    }
    if peer and isinstance(index.index_, InvertedFile):
        other = by_faiss(index.index_, bank)
        other.nprobe = index.effort_
        faiss.omp_set_num_threads(torch.get_num_threads())
        units = unit_rows(few).array
        alternatives["faiss ivf"] = lambda: seconds(lambda: other.search(units, K)) / len(few)
    found["seconds"] = interleaved(alternatives, given.repeats)
    return found


def claims(kind: str, what: str, found: dict[str, Any], sized: str) -> list[dict[str, Any]]:
    """Return the rows of the table for one index."""
    told, times = found["recall"], found["seconds"]
    faster = median_ratio(times["exact"], times[kind])
    rate = {name: 1 / float(np.median(values)) for name, values in times.items()}
    file, held = size_text(found["file_bytes"]), size_text(found["private_bytes"])
    rows = [
        (
            f"recall of {kind} among the {K} nearest, {what}",
            f"{told['share']:.1%} ({told['low']:.1%} to {told['high']:.1%})",
            "95 % asked for",
            bool(told["high"] >= 0.95),
            f"{sized}; {told['queries']:,} queries, effort {found['effort']:,}",
        ),
        (
            f"speed-up of a search by {kind} over an exact one, {what}",
            f"{faster:.1f}× ({rate[kind]:,.0f} to {rate['exact']:,.0f} queries a second)",
            "—",
            None,
            sized,
        ),
        (
            f"seconds to make {kind}, and to take it from the store, {what}",
            f"{found['build']:.0f} and {found['load']:.1f}",
            "—",
            None,
            f"{sized}; file {file}, private memory afterwards {held}",
        ),
    ]
    if "faiss ivf" in times:
        over = median_ratio(times["faiss ivf"], times[kind])
        rows.append(
            (
                f"speed-up of a search by {kind} over faiss' IndexIVFFlat, {what}",
                f"{over:.1f}×",
                "—",
                None,
                f"{sized}; the same lists, as many looked through; faiss holds all rows in memory",
            )
        )
    names = ("what", "measured", "target", "met", "sized")
    return [dict(zip(names, row, strict=True)) for row in rows]


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path, metavar="TRAIN")
    parser.add_argument("test", type=Path, metavar="TEST")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the bank that is made up")
    parser.add_argument("--hnsw-rows", type=int, default=100_000, help="of these, for hnsw")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--exact", type=int, default=500, help="queries of an exact search")
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    found, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        bank = made_up(Path(folder) / "bank", given.rows, given.width, 0)
        queries = made_up(Path(folder) / "queries", given.queries, given.width, 1)
        (train,), (test,) = (open_store(store).tables() for store in (given.train, given.test))
        real = (SelectedRows(train, train.valid), SelectedRows(test, test.valid))
        for kind, what, sides in (
            ("ivf", train.backbone, real),
            ("hnsw", train.backbone, real),
            ("ivf", "made-up rows", (bank, queries)),
            ("hnsw", "made-up rows", (bank[: given.hnsw_rows], queries)),
        ):
            n, d = sides[0].shape
            sized = f"n = {n:,}, d = {d:,}, q = {sides[1].shape[0]:,}, k = {K}"
            sized += f", {torch.get_num_threads()} thread(s), {given.repeats} rounds"
            one = measured(kind, *sides, given, peer=kind == "ivf")
            found[f"{kind}, {what}"] = one
            rows += claims(kind, what, one, sized)
    save("approximate", command_line(parser, given), rows, found=found)


if __name__ == "__main__":
    main()
