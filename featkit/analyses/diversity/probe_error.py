"""The error of each model, by a linear probe on its last features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featkit.analyses.diversity.family import Model
from featkit.analyses.diversity.layers import last_features
from featkit.analyses.sides import kept_rows, pair_tables, split_samples
from featkit.errors import UsageError
from featkit.ops.linear_probe import LinearProbe
from featkit.store.reader import FeatureTable

_HELD_OUT = 0.2
"""Share of the images that are asked where no others are given to learn from."""


def check_train(
    backbones: Sequence[str], tables: Sequence[FeatureTable], train: Sequence[FeatureTable]
) -> None:
    """Refuse tables that no probe can learn from, before any work.

    Args:
        backbones: That have no error yet.
        tables: Of the images that are asked.
        train: Of other images, or none.

    Raises:
        UsageError: ``train`` has the same images, or lacks the table of a backbone.
    """
    asked = {table.provenance["samples"] for table in tables}
    if any(table.provenance["samples"] in asked for table in train):
        raise UsageError(
            "--train has the images of STORE, and a probe knows what it has learned: give other "
            "images, or leave --train out"
        )
    names = {table.name for table in train}
    for backbone in backbones if train else ():
        table = last_features([table for table in tables if table.backbone == backbone])
        if table is not None and table.name not in names:
            raise UsageError(
                f"--train has no table {table.name}, which {table.path.parent.parent} has: extract "
                f"it, or leave --train out"
            )


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
        train: Of other images, seen by :func:`check_train`; or none.
        notes: Is told what could not be measured.
    """
    found: dict[str, Model] = {}
    for backbone in backbones:
        table = last_features([table for table in tables if table.backbone == backbone])
        try:
            found[backbone] = Model(error=_error(table, train))
        except _NoError as reason:
            notes.append(f"{backbone}: no error, since {reason}")
    if found and not train:
        notes.append("error: of a fifth of STORE, learned from the rest of it; see --train")
    return found


class _NoError(Exception):
    """Why there is no error."""


def _error(table: FeatureTable | None, train: Sequence[FeatureTable]) -> float:
    if table is None:
        raise _NoError("there is no table of its last features")
    same = [other for other in train if other.name == table.name]
    for side in (table, *same):
        if side.labels is None or side.labels.ndim > 1:
            how = "no labels" if side.labels is None else "several labels each"
            raise _NoError(f"the images of {side.path.parent.parent} have {how}")
    x, labels = table.numpy(), table.labels
    assert labels is not None  # noqa: S101 - seen above
    try:
        if same:
            split = split_samples(pair_tables(same, [table]))
            probe = LinearProbe().fit(kept_rows(same[0], split.bank_rows), split.bank_labels)
            asked, wanted = kept_rows(table, split.query_rows), split.query_labels
        else:
            rows = np.random.default_rng(0).permutation(np.flatnonzero(table.valid))
            held_out, learned = np.split(rows, [round(_HELD_OUT * len(rows))])
            learned.sort()
            probe = LinearProbe().fit(x[learned], labels[learned])
            asked, wanted = x[held_out], labels[held_out]
    except UsageError as error:
        raise _NoError(f"a probe cannot be learned ({error})") from error
    return float(1 - (probe.predict(asked) == wanted).mean())
