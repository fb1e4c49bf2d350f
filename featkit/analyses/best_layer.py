"""The best layer of each backbone, chosen without the images that judge it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from featkit.analyses.base import short_names
from featkit.errors import UsageError
from featkit.store.reader import FeatureTable

ALL = "all"

Pair = tuple[FeatureTable, FeatureTable]


def with_taps(
    inputs: Mapping[str, Sequence[FeatureTable]], taps: Sequence[str]
) -> dict[str, Sequence[FeatureTable]]:
    """Return the tables of some taps; of ``all``, those whose rows are vectors; of none, all."""
    if not taps:
        return dict(inputs)
    return {
        side: [
            table
            for table in tables
            if table.tap in taps or (ALL in taps and len(table.shape) == 2)
        ]
        or tables
        for side, tables in inputs.items()
    }


def pick_layers(
    pairs: Sequence[Pair], taps: Sequence[str], score: Callable[[FeatureTable], float]
) -> tuple[list[Pair], list[dict[str, Any]]]:
    """Keep the layer of each backbone that scores best on TRAIN.

    Args:
        pairs: Tables of TRAIN and TEST.
        taps: Those to choose among; ``all`` for all there are.
        score: Judges a table of TRAIN; the higher, the better. Of equal ones the first is taken.

    Returns:
        The pairs that were chosen, in their order, and a row a table: features, backbone, score,
        chosen (yes or no).

    Raises:
        UsageError: A backbone has no such tap, or TEST is TRAIN.
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
        there = {pairs[index][0].tap for index in indices}
        lacking = [tap for tap in taps if tap not in there | {ALL}]
        if lacking:
            raise UsageError(
                f"{backbone} has no tap {lacking[0]} among the tables; it has "
                f"{', '.join(sorted(there))}, or give all"
            )
        asked = [index for index in indices if ALL in taps or pairs[index][0].tap in taps]
        scores = {index: score(pairs[index][0]) for index in asked}
        best = max(scores, key=scores.__getitem__)
        chosen.append(best)
        rows += [
            {
                "features": names[index],
                "backbone": backbone,
                "score": scores[index],
                "chosen": "yes" if index == best else "no",
            }
            for index in asked
        ]
    return [pairs[index] for index in sorted(chosen)], rows
