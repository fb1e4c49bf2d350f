"""The error of each model, by a linear probe on its last features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featkit.analyses.diversity.layers import last_features
from featkit.analyses.sides import pair_tables, split_samples
from featkit.errors import UsageError
from featkit.ops.linear_probe import LinearProbe
from featkit.ops.proportions import proportion_interval
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


@dataclass(frozen=True)
class ProbeError:
    """The share of wrong answers of a probe.

    Attributes:
        error: In [0, 1].
        low: Lower end of its 95 % interval,
            :func:`~featkit.ops.proportions.proportion_interval`.
        high: Upper end.
        converged: Whether the probe reached its optimum.
    """

    error: float
    low: float
    high: float
    converged: bool


def probe_errors(
    backbones: Sequence[str],
    tables: Sequence[FeatureTable],
    train: Sequence[FeatureTable],
    seed: int,
    notes: list[str],
) -> dict[str, ProbeError]:
    """Return the error of a probe for each backbone that has what it takes.

    It learns from the tables of ``train`` and is asked those of the same name. Without ``train``,
    it learns from four fifths of the labelled images, drawn at random, and is asked the others.

    Args:
        backbones: That have no error yet.
        tables: Of the images that are asked.
        train: Of other images, seen by :func:`check_train`; or none.
        seed: Of the drawing, and of the images on which a probe chooses its penalty.
        notes: Is told what could not be measured, and which probes have not converged.
    """
    found: dict[str, ProbeError] = {}
    for backbone in backbones:
        table = last_features([table for table in tables if table.backbone == backbone])
        try:
            found[backbone] = _error(table, train, seed)
        except _NoError as reason:
            notes.append(f"{backbone}: no error, since {reason}")
            continue
        if not found[backbone].converged:
            notes.append(f"{backbone}: error of a probe that did not reach its optimum")
    if found and not train:
        notes.append("error: of a fifth of STORE, learned from the rest of it; see --train")
    return found


class _NoError(Exception):
    """Why there is no error."""


def _error(table: FeatureTable | None, train: Sequence[FeatureTable], seed: int) -> ProbeError:
    if table is None:
        raise _NoError("there is no table of its last features")
    same = [other for other in train if other.name == table.name]
    for side in (table, *same):
        if side.labels is None or side.labels.ndim > 1:
            how = "no labels" if side.labels is None else "several labels each"
            raise _NoError(f"the images of {side.path.parent.parent} have {how}")
    labels, probe = table.labels, LinearProbe(random_state=seed)
    assert labels is not None  # noqa: S101 - seen above
    try:
        if same:
            split = split_samples(pair_tables(same, [table]))
            learned, asked = np.flatnonzero(split.bank_rows), np.flatnonzero(split.query_rows)
            probe.fit(same[0].numpy(), split.bank_labels, learned)
            wanted = split.query_labels
        else:
            rows = np.random.default_rng(seed).permutation(np.flatnonzero(table.valid))
            asked, learned = np.split(rows, [round(_HELD_OUT * len(rows))])
            learned.sort()
            probe.fit(table.numpy(), labels[learned], learned)
            wanted = labels[asked]
        answers = probe.classes_[probe.logits(table.numpy(), asked).argmax(1)]
        wrong = int((answers != wanted).sum())
        low, high = proportion_interval(wrong, len(asked))
    except UsageError as error:
        raise _NoError(f"a probe cannot be learned ({error})") from error
    return ProbeError(wrong / len(asked), low, high, probe.converged_)
