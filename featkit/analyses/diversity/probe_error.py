"""The error of each model, by a linear probe on its last features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featkit.analyses.diversity.family import Model
from featkit.analyses.diversity.layers import ENDS
from featkit.analyses.sides import kept_rows, pair_tables, split_samples
from featkit.errors import UsageError
from featkit.ops.linear_probe import LinearProbe
from featkit.store.reader import FeatureTable

_HELD_OUT = 0.2
"""Share of the images that are asked where no others are given to learn from."""


def probe_errors(
    backbones: Sequence[str],
    tables: Sequence[FeatureTable],
    train: Sequence[FeatureTable],
    notes: list[str],
) -> dict[str, Model]:
    """Return the share of wrong answers of a probe for each backbone that has what it takes.

    It learns from the tables of ``train`` and is asked those of the same name. Without ``train``,
    it learns from four fifths of the labelled images, drawn at random, and is asked the others.

    Args:
        backbones: That have no error yet.
        tables: Of the images that are asked.
        train: Of other images, or none.
        notes: Is told what could not be measured.

    Raises:
        UsageError: Tables of ``train`` are not of the same backbones.
    """
    found: dict[str, Model] = {}
    for backbone in backbones:
        table = _last_features([table for table in tables if table.backbone == backbone])
        if table is None:
            notes.append(f"{backbone}: no error, since there is no table of its last features")
        elif table.labels is None or table.labels.ndim > 1:
            notes.append(f"{backbone}: no error, since its images have no labels")
        else:
            found[backbone] = Model(error=_error(table, train))
    if found and not train:
        notes.append("error: of a fifth of STORE, learned from the rest of it; see --train")
    return found


def _last_features(tables: Sequence[FeatureTable]) -> FeatureTable | None:
    vectors = {table.tap: table for table in tables if len(table.shape) == 2}
    return next((vectors[tap] for tap in ENDS if tap in vectors), None)


def _error(table: FeatureTable, train: Sequence[FeatureTable]) -> float:
    if train:
        same = [other for other in train if other.name == table.name]
        if not same:
            raise UsageError(
                f"--train has no table {table.name}, which {table.path.parent.parent} has: extract "
                f"it, or leave --train out"
            )
        split = split_samples(pair_tables(same, [table]))
        probe = LinearProbe().fit(kept_rows(same[0], split.bank_rows), split.bank_labels)
        right = probe.predict(kept_rows(table, split.query_rows)) == split.query_labels
        return float(1 - right.mean())
    rows = np.random.default_rng(0).permutation(np.flatnonzero(table.valid))
    asked, learned = np.split(rows, [round(_HELD_OUT * len(rows))])
    x, labels = table.numpy(), table.labels
    assert labels is not None  # noqa: S101 - checked by the caller
    probe = LinearProbe().fit(x[np.sort(learned)], labels[np.sort(learned)])
    return float(1 - (probe.predict(x[asked]) == labels[asked]).mean())
