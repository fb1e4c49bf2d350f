"""The best layer of each backbone, chosen without the images that judge it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featkit.analyses.base import short_names
from featkit.errors import UsageError
from featkit.registry import did_you_mean
from featkit.store.reader import FeatureTable

ALL = "all"

Pair = tuple[FeatureTable, FeatureTable]


class AveragedTable(FeatureTable):
    """A table of maps or tokens, averaged over positions whenever its rows are asked for.

    Args:
        source: Rows (t, d) or (c, h, w); of tokens all are averaged, a class token among them.

    Attributes:
        tap: With `` (avg)`` behind it.
        name: That of the table itself, by which a selector finds it.
        shape: (n, d) or (n, c).
    """

    def __init__(self, source: FeatureTable) -> None:
        vars(self).update(vars(source))
        self._source = source
        self._axes = (1,) if len(source.shape) == 3 else (2, 3)
        width = source.shape[2 if len(source.shape) == 3 else 1]
        self.tap = f"{source.tap} (avg)"
        self.shape = (len(source), width)
        self.dtype = np.dtype(np.float32)

    @property
    def name(self) -> str:
        """``backbone/tap.pooling`` of the table that is averaged."""
        return self._source.name

    def __getitem__(self, rows: slice | NDArray[Any]) -> NDArray[Any]:
        """Return the averages of some rows, (m, d)."""
        averages: NDArray[Any] = self._source[rows].mean(self._axes, dtype=np.float32)
        return averages

    @property
    def _mapped(self) -> NDArray[Any]:  # nothing is kept in memory
        rows = np.empty(self.shape, self.dtype)
        for block, maps in self._source.blocks():
            maps.mean(self._axes, dtype=np.float32, out=rows[block])
        return rows

    def _changeable(self) -> NDArray[Any]:
        return self._mapped


def with_taps(
    inputs: Mapping[str, Sequence[FeatureTable]], taps: Sequence[str]
) -> dict[str, Sequence[FeatureTable]]:
    """Return the tables of some taps, maps and tokens averaged over positions.

    Args:
        inputs: Tables of each side.
        taps: Names of taps; ``all`` for all there are; none for the tables as they are.

    Returns:
        The tables in their order. Those of maps of a tap that has its average too are left out.

    Raises:
        UsageError: A backbone has no such tap.
    """
    if not taps:
        return dict(inputs)
    return {side: _chosen(tables, taps) for side, tables in inputs.items()}


def _chosen(tables: Sequence[FeatureTable], taps: Sequence[str]) -> list[FeatureTable]:
    there: dict[str, list[str]] = {}
    for table in tables:
        there.setdefault(table.backbone, []).append(table.tap)
    for backbone, own in there.items():
        known = list(dict.fromkeys(own))
        lacking = [tap for tap in taps if tap not in {*known, ALL}]
        if lacking:
            hint = did_you_mean(lacking[0], known)
            alike = f"{hint} " if hint.startswith("did you mean") else ""
            raise UsageError(
                f"{backbone} has no tap {lacking[0]} among the tables: {alike}it has "
                f"{', '.join(known)}; give some of these, or all"
            )
    averages = {(table.backbone, table.tap) for table in tables if table.pooling == "avg"}
    chosen = []
    for table in tables:
        if ALL not in taps and table.tap not in taps:
            continue
        if len(table.shape) == 2:
            chosen.append(table)
        elif (table.backbone, table.tap) not in averages:
            chosen.append(AveragedTable(table))
    return chosen


def pick_layers(
    pairs: Sequence[Pair], score: Callable[[FeatureTable], float]
) -> tuple[list[Pair], list[dict[str, Any]]]:
    """Keep the layer of each backbone that scores best on TRAIN.

    Args:
        pairs: Tables of TRAIN and TEST, of the taps to choose among.
        score: Judges a table of TRAIN; the higher, the better. Of equal ones the first is taken.

    Returns:
        The pairs that were chosen, in their order, and a row a table: features, backbone, score,
        chosen (yes or no).

    Raises:
        UsageError: TEST is TRAIN.
    """
    if pairs[0][0].provenance["samples"] == pairs[0][1].provenance["samples"]:
        raise UsageError(
            "taps: TEST has the images of TRAIN, and would judge the layer that it has chosen; "
            "give other images, or leave --taps out to see every layer"
        )
    names = short_names([train for train, _ in pairs])
    by_backbone: dict[str, list[int]] = {}
    for index, (train, _) in enumerate(pairs):
        by_backbone.setdefault(train.backbone, []).append(index)
    chosen, rows = [], []
    for backbone, indices in by_backbone.items():
        scores = {index: score(pairs[index][0]) for index in indices}
        best = max(scores, key=scores.__getitem__)
        chosen.append(best)
        rows += [
            {
                "features": names[index],
                "backbone": backbone,
                "score": scores[index],
                "chosen": "yes" if index == best else "no",
            }
            for index in indices
        ]
    return [pairs[index] for index in sorted(chosen)], rows
