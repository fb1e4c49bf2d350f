"""The two sides of an evaluation: what is known, and what is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featkit.errors import UsageError
from featkit.store.reader import FeatureTable

Integers = NDArray[np.int64]

IDENTITY = ("backbone", "tap", "pooling", "preprocessing")
"""What must be alike in the provenance of tables that are compared."""


@dataclass(frozen=True)
class Split:
    """What is classified from what.

    Attributes:
        bank_rows: Rows of TRAIN that take part, (n) bool.
        query_rows: Rows of TEST that take part.
        bank_labels: Class of each of those, (b) int64; or whether it is of each class, (b, k)
            uint8, where a sample can have several.
        query_labels: Likewise, (q) or (q, k), among the same classes.
        classes: Their names.
        leave_one_out: Whether both sides are the same images.
        in_both: Queries whose very image is in the bank too.
    """

    bank_rows: NDArray[np.bool_]
    query_rows: NDArray[np.bool_]
    bank_labels: NDArray[Any]
    query_labels: NDArray[Any]
    classes: tuple[str, ...]
    leave_one_out: bool
    in_both: int


def pair_tables(
    train: Sequence[FeatureTable], test: Sequence[FeatureTable]
) -> list[tuple[FeatureTable, FeatureTable]]:
    """Match the tables of both sides by name.

    Raises:
        UsageError: A table has no counterpart, or one that something else has made.
    """
    if len(train) == len(test) == 1:
        pairs = [(train[0], test[0])]
    else:
        by_name = {table.name: table for table in test}
        lacking = [table.name for table in train if table.name not in by_name]
        lacking += sorted(by_name.keys() - {table.name for table in train})
        if lacking:
            raise UsageError(
                f"TRAIN and TEST have different tables ({', '.join(lacking[:4])} only on one "
                f"side); extract what is missing, or select as in STORE:{train[0].name}"
            )
        pairs = [(table, by_name[table.name]) for table in train]
    for one, other in pairs:
        for field in IDENTITY:
            if one.provenance[field] != other.provenance[field]:
                raise UsageError(
                    f"{one.path} and {other.path} cannot be compared: their {field} differs; "
                    f"extract both with the same backbone"
                )
    return pairs


def split_samples(pairs: Sequence[tuple[FeatureTable, FeatureTable]]) -> Split:
    """Choose rows and classes; an image that some table lacks takes no part in any.

    Args:
        pairs: Tables with labels, from :func:`pair_tables`.

    Raises:
        UsageError: A side has no image that could be read, or one has one label a sample and the
            other several.
    """
    train, test = pairs[0]
    assert train.labels is not None and test.labels is not None  # noqa: S101, PT018 - requires
    if train.labels.ndim != test.labels.ndim:
        counts = {1: "one label", 2: "several labels"}
        raise UsageError(
            f"TRAIN has {counts[train.labels.ndim]} a sample and TEST {counts[test.labels.ndim]}: "
            f"extract both with labels of one kind"
        )
    bank_rows = np.logical_and.reduce([one.valid for one, _ in pairs])
    query_rows = np.logical_and.reduce([other.valid for _, other in pairs])
    for side, rows in (("TRAIN", bank_rows), ("TEST", query_rows)):
        if not rows.any():
            raise UsageError(f"{side}: none of its {len(rows)} images could be read")
    same = train.provenance["samples"] == test.provenance["samples"]
    if same:
        bank_rows = query_rows = bank_rows & query_rows
    classes = train.classes or ()
    # the test set may name its classes in another order, or lack some
    position = {name: index for index, name in enumerate(classes)}
    unknown = [name for name in test.classes or () if name not in position]
    position |= {name: len(classes) + index for index, name in enumerate(unknown)}
    to_bank = np.array([position[name] for name in test.classes or ()], np.int64)
    bank_labels, query_labels = train.labels[bank_rows], test.labels[query_rows]
    if train.labels.ndim == 1:
        query_labels = to_bank[query_labels]
    else:
        bank_labels = _spread(bank_labels, np.arange(len(classes)), len(position))
        query_labels = _spread(query_labels, to_bank, len(position))
    return Split(
        bank_rows=bank_rows,
        query_rows=query_rows,
        bank_labels=bank_labels,
        query_labels=query_labels,
        classes=(*classes, *unknown),
        leave_one_out=same,
        in_both=0 if same else _shared(train.digests[bank_rows], test.digests[query_rows]),
    )


def occurring(labels: NDArray[Any]) -> set[int]:
    """Return the classes that some sample has, of labels as in :class:`Split`."""
    return set((np.unique(labels) if labels.ndim == 1 else np.flatnonzero(labels.any(0))).tolist())


def check_several_classes(split: Split) -> None:
    """Refuse images to learn from that have one label each, and all the same.

    Raises:
        UsageError: They have.
    """
    labels = split.bank_labels
    if labels.ndim == 1 and (labels == labels[0]).all():
        name = split.classes[labels[0]]
        raise UsageError(f"TRAIN has images of one class, {name}: give images of two or more")


def check_classes(split: Split) -> None:
    """Refuse sides without a common class: each answer would be wrong.

    Raises:
        UsageError: No class of the queries is one of the bank.
    """
    known, asked = occurring(split.bank_labels), occurring(split.query_labels)
    if not known & asked:
        named = [
            ", ".join([split.classes[c] for c in sorted(side)][:5]) + ", …" * (len(side) > 5)
            for side in (known, asked)
        ]
        raise UsageError(
            f"TRAIN has classes {named[0] or 'none'} and TEST {named[1] or 'none'}, and none is in "
            "both: give sets of the same classes"
        )


def _spread(members: NDArray[np.uint8], places: Integers, count: int) -> NDArray[np.uint8]:
    """Return the table of memberships with its columns at their places among all classes."""
    spread = np.zeros((len(members), count), np.uint8)
    spread[:, places] = members
    return spread


def _shared(bank: NDArray[np.uint8], queries: NDArray[np.uint8]) -> int:
    """Count the queries whose content is in the bank."""
    contents = {row.tobytes() for row in bank}
    return sum(row.tobytes() in contents for row in queries)


def kept_rows(table: FeatureTable, keep: NDArray[np.bool_]) -> NDArray[Any]:
    """Return some rows of a table as an array, mapped into memory where they are all.

    Others are copied; :class:`featkit.ops.row_sources.SelectedRows` copies none.
    """
    return table.numpy() if keep.all() else table.numpy()[keep]
