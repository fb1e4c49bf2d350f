"""Which images there are, by name and by content."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np

from featkit.data.sources import Source
from featkit.errors import SourceError
from featkit.progress import progress_bar
from featkit.store.samples import Samples, read_samples
from featkit.store.schema import SAMPLES_FILE

HASHED_TOGETHER = 256
"""Samples that one thread hashes before it reports."""


def list_samples(source: Source, store: Path, progress: bool = False) -> Samples:
    """List a source's samples with the hash of their contents.

    Files whose size and time of change are those of the last run are not read again.

    Args:
        source: The images.
        store: The store's folder, which need not exist.
        progress: Whether to draw a progress bar on stderr.

    Raises:
        SourceError: The source is empty, or its names and labels do not fit together.

    Cost: one read of every other file.
    """
    _check_source(source)
    stamps = source.stamps()
    known: dict[tuple[str, int, int], bytes] = {}
    if stamps is not None and (store / SAMPLES_FILE).is_file():
        old = read_samples(store)
        if old.stamps is not None:
            sizes_times = old.stamps.tolist()
            known = {
                (path, size, time): digest.tobytes()
                for path, (size, time), digest in zip(
                    old.paths, sizes_times, old.digests, strict=True
                )
                if time > 0  # else it is not known to be as it was
            }

    def digest(row: int) -> bytes:
        if stamps is not None:
            size, time = stamps[row].tolist()
            found = known.get((source.ids[row], size, time))
            if found is not None:
                return found
        return source.digest(row)

    count = len(source.ids)
    digests = np.empty((count, 32), np.uint8)

    def hash_rows(start: int) -> int:
        rows = range(start, min(start + HASHED_TOGETHER, count))
        digests[rows.start : rows.stop] = [np.frombuffer(digest(row), np.uint8) for row in rows]
        return len(rows)

    with (
        ThreadPoolExecutor() as pool,
        progress_bar(count, "hashing", "img", show=progress, delay=1) as bar,
        closing(pool.map(hash_rows, range(0, count, HASHED_TOGETHER))) as hashed,  # type: ignore[type-var]
    ):
        for done in hashed:  # a stop does not wait for the rest
            bar.update(done)
    return Samples(
        paths=source.ids,
        digests=digests,
        labels=source.labels,
        classes=source.classes,
        source=source.name,
        stamps=stamps,
    )


def _check_source(source: Source) -> None:
    count, labels = len(source.ids), source.labels
    if not count:
        raise SourceError(f"{source.name}: holds no image")
    if len(set(source.ids)) < count:
        raise SourceError(f"{source.name}: two samples have the same name; names must be unique")
    if labels is not None and len(labels) != count:
        raise SourceError(f"{source.name}: {count} samples with {len(labels)} labels")
