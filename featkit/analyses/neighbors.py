"""How good are features: the accuracy of their nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from featkit.analyses.base import Figure, Input, Result, describe_run, option, short_names
from featkit.errors import UsageError
from featkit.ops.combine import Combination, combine
from featkit.ops.neighbors import nearest_neighbors
from featkit.ops.votes import dino_vote, majority_vote
from featkit.store.reader import FeatureTable

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class KNNConfig:
    """Options of :class:`KNN`."""

    k: tuple[int, ...] = option((20,), "Numbers of neighbours, one search for all.")
    vote: Literal["majority", "dino"] = option(
        "majority", "One vote a neighbour, or exp(cosine / temperature)."
    )
    temperature: float = option(0.07, "Of the dino vote.", "Caron et al. 2021, arXiv:2104.14294")
    combine: tuple[Combination, ...] = option(
        (), "Also judge all models together: average, concat, or both, each model L2-normalised."
    )
    device: str = option("auto", "auto, cpu or cuda.")


@dataclass(frozen=True)
class _Split:
    """What is classified from what."""

    bank_rows: NDArray[np.bool_]
    query_rows: NDArray[np.bool_]
    bank_labels: Integers
    query_labels: Integers
    classes: tuple[str, ...]
    leave_one_out: bool


class KNN:
    """Accuracy of a nearest-neighbour vote, by cosine similarity.

    Queries of TEST are classified by their neighbours in TRAIN; where both are the same store, by
    all other samples (leave-one-out). Rows of unreadable images are left out of both.
    """

    inputs: ClassVar[tuple[Input, ...]] = (
        Input("TRAIN", "tables of the bank: STORE, STORE:BACKBONE or STORE:BACKBONE/TAP"),
        Input("TEST", "tables of the queries; the same as TRAIN for leave-one-out"),
    )
    requires: ClassVar[frozenset[str]] = frozenset({"labels", "vectors"})
    Config: ClassVar[type[Any]] = KNNConfig

    def __init__(self, config: KNNConfig | None = None) -> None:
        self.config = config or KNNConfig()

    def run(self, inputs: Mapping[str, Sequence[FeatureTable]]) -> Result:
        """Search and vote for every table, and for every combination of all tables.

        Args:
            inputs: ``train`` and ``test``, tables of the same names made by the same backbones.

        Returns:
            Tables ``accuracy`` (features, vote, k, top1) and ``per_class`` (features, k, class, n,
            accuracy); arrays ``confusion/FEATURES/kK`` (classes, classes), rows the true class;
            scalars ``bank``, ``queries``, ``classes``, ``unreadable`` and ``leave_one_out``.

        Raises:
            UsageError: The two sides do not belong together.
        """
        pairs = _pair(inputs["train"], inputs["test"])
        split = _split(*pairs[0])
        config, provenance = describe_run(self.config, inputs, ("faiss-cpu", "torch"))
        counted: dict[str, float | int | str] = {
            "bank": int(split.bank_rows.sum()),
            "queries": int(split.query_rows.sum()),
            "classes": len(split.classes),
            "unreadable": int((~split.query_rows).sum()),
            "leave_one_out": "yes" if split.leave_one_out else "no",
        }
        result = Result("knn", config, counted, {"accuracy": [], "per_class": []})
        result.provenance = provenance
        result.arrays["classes"] = np.array(split.classes)
        for name, bank, queries in self._features(pairs, split):
            self._judge(name, bank, queries, split, result)
        _add_figures(result)
        return result

    def _features(
        self, pairs: Sequence[tuple[FeatureTable, FeatureTable]], split: _Split
    ) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
        """Yield name, bank and queries of every table, then of the combinations."""

        def rows(table: FeatureTable, keep: NDArray[np.bool_]) -> NDArray[Any]:
            return table.numpy() if keep.all() else table.numpy()[keep]

        names = short_names([train for train, _ in pairs])
        for name, (train, test) in zip(names, pairs, strict=True):
            yield name, rows(train, split.bank_rows), rows(test, split.query_rows)
        if self.config.combine and len(pairs) < 2:
            raise UsageError("combine needs the tables of two models or more")
        for how in self.config.combine:
            bank = combine([rows(train, split.bank_rows) for train, _ in pairs], how)
            if split.leave_one_out:
                yield how, bank, bank
            else:
                yield how, bank, combine([rows(test, split.query_rows) for _, test in pairs], how)

    def _judge(
        self,
        name: str,
        bank: NDArray[Any],
        queries: NDArray[Any],
        split: _Split,
        result: Result,
    ) -> None:
        config = self.config
        similarities, rows = nearest_neighbors(
            queries,
            bank,
            max(config.k),
            exclude_self=split.leave_one_out,
            device=config.device,
        )
        voters, count = split.bank_labels[rows], len(split.classes)
        if config.vote == "majority":
            votes = majority_vote(similarities, voters, count, config.k)
        else:
            votes = dino_vote(similarities, voters, count, config.k, temperature=config.temperature)
        for k in config.k:
            confusion = np.zeros((count, count), np.int64)
            np.add.at(confusion, (split.query_labels, votes[k]), 1)
            right, asked = confusion.diagonal(), confusion.sum(1)
            result.tables["accuracy"].append(
                {"features": name, "vote": config.vote, "k": k, "top1": right.sum() / asked.sum()}
            )
            result.tables["per_class"] += [
                {
                    "features": name,
                    "k": k,
                    "class": split.classes[c],
                    "n": int(asked[c]),
                    "accuracy": right[c] / asked[c] if asked[c] else None,
                }
                for c in range(count)
            ]
            result.arrays[f"confusion/{name}/k{k}"] = confusion


def _pair(
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
        for field in ("backbone", "tap", "pooling", "preprocessing"):
            if one.provenance[field] != other.provenance[field]:
                raise UsageError(
                    f"{one.path} and {other.path} cannot be compared: their {field} differs; "
                    f"extract both with the same backbone"
                )
    return pairs


def _split(train: FeatureTable, test: FeatureTable) -> _Split:
    same = train.key == test.key
    classes = train.classes or ()
    # the test set may name its classes in another order, or lack some
    position = {name: index for index, name in enumerate(classes)}
    unknown = [name for name in test.classes or () if name not in position]
    position |= {name: len(classes) + index for index, name in enumerate(unknown)}
    to_bank = np.array([position[name] for name in test.classes or ()], np.int64)
    assert train.labels is not None and test.labels is not None  # noqa: S101, PT018 - requires
    return _Split(
        bank_rows=train.valid,
        query_rows=test.valid,
        bank_labels=train.labels[train.valid],
        query_labels=to_bank[test.labels[test.valid]],
        classes=(*classes, *unknown),
        leave_one_out=same,
    )


def _add_figures(result: Result) -> None:
    rows = result.tables["accuracy"]
    several = len({row["k"] for row in rows}) > 1
    what = "Nearest-neighbour accuracy"
    if several:
        line = Figure("accuracy", "line", "accuracy", what, "k", "top1", hue="features")
        result.figures.append(line)
    else:
        title = f"{what}, k = {rows[0]['k']}"
        result.figures.append(Figure("accuracy", "bar", "accuracy", title, "features", "top1"))
    best = max(rows, key=lambda row: row["top1"])
    result.figures.append(
        Figure(
            "confusion",
            "heatmap",
            f"confusion/{best['features']}/k{best['k']}",
            f"Confusion of {best['features']}, k = {best['k']}",
            "predicted",
            "true",
            labels="classes",
        )
    )
