"""How good are features: the accuracy of their nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from featkit.analyses.base import (
    Figure,
    Input,
    Result,
    check_requirements,
    describe_run,
    option,
    short_names,
)
from featkit.analyses.best_layer import pick_layers, with_taps
from featkit.analyses.kept_index import StoredRows, open_index
from featkit.analyses.sides import (
    Split,
    check_classes,
    pair_tables,
    split_samples,
)
from featkit.errors import UsageError
from featkit.ops.approximate import ApproximateNeighbors, Kind
from featkit.ops.combine import Combination
from featkit.ops.neighbors import check_search, neighbor_blocks, resolve_device
from featkit.ops.recall import Recall
from featkit.ops.votes import dino_vote, majority_vote
from featkit.store.reader import FeatureTable

Vote = Literal["majority", "dino"]


@dataclass(frozen=True)
class KNNConfig:
    """Options of :class:`KNN`."""

    k: tuple[int, ...] = option((20,), "Numbers of neighbours, one search for all.")
    vote: Vote = option("majority", "One vote a neighbour, or exp(cosine / temperature).")
    temperature: float = option(0.07, "Of the dino vote.", "Caron et al. 2021, arXiv:2104.14294")
    combine: tuple[Combination, ...] = option(
        (), "Also judge all models together: average, concat, or both, each model L2-normalised."
    )
    taps: tuple[str, ...] = option(
        (),
        "Choose one layer a backbone among these by leave-one-out on TRAIN, and ask TEST of it "
        "alone; all for every layer, maps averaged.",
    )
    device: str = option("auto", "auto, cpu or cuda.")
    approximate: Kind | None = option(
        None,
        "Look for most of the neighbours only, by an index that TRAIN's store keeps: ivf (lists of "
        "near rows, for banks of any size) or hnsw (a graph, in memory).",
    )
    recall: float = option(0.95, "Share of the nearest that --approximate is to find.")

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if not self.k or min(self.k) < 1:
            raise UsageError(
                f"k is {','.join(map(str, self.k)) or 'empty'}: give whole numbers, at least 1"
            )
        if self.vote not in get_args(Vote):
            raise UsageError(f"vote {self.vote!r}: use {' or '.join(get_args(Vote))}")
        for how in self.combine:
            if how not in get_args(Combination):
                raise UsageError(f"combine {how!r}: use {' or '.join(get_args(Combination))}")
        if self.approximate not in (None, *get_args(Kind)):
            raise UsageError(f"approximate {self.approximate!r}: use {' or '.join(get_args(Kind))}")
        if not 0 < self.recall <= 1:
            raise UsageError(f"recall is {self.recall}: give a share above 0, up to 1")


@dataclass(frozen=True)
class _Features:
    """One representation of both sides."""

    name: str
    bank: StoredRows
    queries: StoredRows


_CHOSEN_BY = "layers were chosen by approximate neighbours"


class KNN:
    """Accuracy of a nearest-neighbour vote, by cosine similarity.

    Queries of TEST are classified by their neighbours in TRAIN; where both are the same store, by
    all other samples (leave-one-out). Rows of unreadable images are left out of both. Tables may be
    larger than memory: they are read block by block.
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
            Tables ``accuracy`` (features, vote, k, top1), ``per_class`` (features, vote, k,
            class, n, accuracy) and, where ``taps`` are given, ``layers`` (features, backbone,
            score, chosen), the score being the leave-one-out accuracy on TRAIN, the mean over k;
            arrays ``confusion/FEATURES/kK`` (classes, classes), rows the true class, of which the
            figure is that of the features and k that are best on TEST; scalars
            ``bank``, ``queries``, ``classes``, ``unreadable``, ``in_both`` (queries whose very
            image is in the bank too) and ``leave_one_out``. Where neighbours are approximate, table
            ``recall`` (features, k: the largest, recall: share of the exact neighbours that were
            found for queries of TEST, low, high: its 95 % interval, compared: queries that were,
            effort: lists looked through or candidates kept), and scalar ``recall``, the least.

        Raises:
            UsageError: The two sides do not belong together.
        """
        inputs = with_taps(inputs, self.config.taps)
        check_requirements(self.requires, inputs)
        pairs = pair_tables(inputs["train"], inputs["test"])
        split = split_samples(pairs)
        check_classes(split)
        tried: list[dict[str, Any]] = []
        notes: list[str] = []
        if self.config.taps:
            pairs, tried = pick_layers(
                pairs, lambda table: self._leave_one_out(table, split, notes)
            )
        self._check_combinations(pairs)
        config, provenance = describe_run(self.config, inputs, ("faiss-cpu", "torch"))
        provenance["metric"] = "cosine"
        provenance["device"] = str(resolve_device(self.config.device))
        counted: dict[str, float | int | str] = {
            "bank": int(split.bank_rows.sum()),
            "queries": int(split.query_rows.sum()),
            "classes": len(split.classes),
            "unreadable": int((~split.query_rows).sum()),
            "in_both": split.in_both,
            "leave_one_out": "yes" if split.leave_one_out else "no",
        }
        result = Result("knn", config, counted, {"accuracy": [], "per_class": []})
        result.provenance = provenance
        result.notes += notes
        if tried:
            result.tables["layers"] = tried
            result.shown = {"layers": (), "accuracy": ()}
        result.arrays["classes"] = np.array(split.classes)
        for features in self._features(pairs, split):
            self._judge(features, split, result)
        if self.config.approximate:
            result.scalars["recall"] = min(row["recall"] for row in result.tables["recall"])
        _add_figures(result)
        return result

    def _check_combinations(self, pairs: Sequence[tuple[FeatureTable, FeatureTable]]) -> None:
        if self.config.combine and len(pairs) < 2:
            raise UsageError("combine needs the tables of two models or more")
        widths = sorted({train.shape[1] for train, _ in pairs})
        if "average" in self.config.combine and len(widths) > 1:
            raise UsageError(f"average: the tables have different widths, {widths}; use concat")

    def _features(
        self, pairs: Sequence[tuple[FeatureTable, FeatureTable]], split: Split
    ) -> Iterator[_Features]:
        """Yield every table, then the combinations."""
        banks, asked = zip(*pairs, strict=True)
        for name, bank, queries in zip(short_names(banks), banks, asked, strict=True):
            yield _Features(
                name,
                StoredRows((bank,), split.bank_rows),
                StoredRows((queries,), split.query_rows),
            )
        for how in dict.fromkeys(self.config.combine):
            bank_of_all = StoredRows(banks, split.bank_rows, how)
            of_all = StoredRows(asked, split.query_rows, how)
            yield _Features(how, bank_of_all, bank_of_all if split.leave_one_out else of_all)

    def _leave_one_out(self, table: FeatureTable, split: Split, notes: list[str]) -> float:
        """Return the accuracy of a bank's rows among each other, the mean over k."""
        bank = StoredRows((table,), split.bank_rows)
        votes, index, odd = self._vote(_Features(table.name, bank, bank), split, leave_one_out=True)
        notes += [f"{table.name}: {note}" for note in odd]
        if index is not None and _CHOSEN_BY not in notes:
            notes.append(_CHOSEN_BY)
        return float(np.mean([(found == split.bank_labels).mean() for found in votes.values()]))

    def _vote(
        self, features: _Features, split: Split, leave_one_out: bool
    ) -> tuple[dict[int, NDArray[np.int64]], ApproximateNeighbors | None, list[str]]:
        """Return the class of each query for each k, the index that was used, and notes."""
        config, bank, queries = self.config, features.bank.rows(), features.queries.rows()
        k, count = max(config.k), len(split.classes)
        own = np.arange(bank.shape[0]) if leave_one_out else None
        notes: list[str] = []
        index = None
        if config.approximate:
            check_search(queries, bank, k, own)  # before an index is made
            index = ApproximateNeighbors(k, config.approximate, config.recall, config.device)
            notes = open_index(features.bank, index)
            found = index.blocks(queries, k, own=own)
        else:
            found = neighbor_blocks(queries, bank, k, own=own, device=config.device)
        votes = {k: np.empty(queries.shape[0], np.int64) for k in config.k}
        for part, similarities, rows in found:
            voters = split.bank_labels[rows]
            if config.vote == "majority":
                voted = majority_vote(similarities, voters, count, config.k)
            else:
                voted = dino_vote(
                    similarities, voters, count, config.k, temperature=config.temperature
                )
            for k, winners in voted.items():
                votes[k][part] = winners
        return votes, index, notes

    def _judge(self, features: _Features, split: Split, result: Result) -> None:
        config, name, count = self.config, features.name, len(split.classes)
        votes, index, notes = self._vote(features, split, split.leave_one_out)
        result.notes += [f"{name}: {note}" for note in notes]
        if index is not None:
            queries = features.queries.rows()
            own = np.arange(queries.shape[0]) if split.leave_one_out else None
            _tell_recall(result, config, name, index, index.measure(queries, own=own))
        for k in dict.fromkeys(config.k):
            confusion = np.zeros((count, count), np.int64)
            np.add.at(confusion, (split.query_labels, votes[k]), 1)
            right, asked = confusion.diagonal(), confusion.sum(1)
            result.tables["accuracy"].append(
                {"features": name, "vote": config.vote, "k": k, "top1": right.sum() / asked.sum()}
            )
            result.tables["per_class"] += [
                {
                    "features": name,
                    "vote": config.vote,
                    "k": k,
                    "class": split.classes[c],
                    "n": int(asked[c]),
                    "accuracy": right[c] / asked[c] if asked[c] else None,
                }
                for c in range(count)
            ]
            result.arrays[f"confusion/{name}/k{k}"] = confusion


def _tell_recall(
    result: Result, config: KNNConfig, name: str, index: ApproximateNeighbors, found: Recall
) -> None:
    k = max(config.k)
    result.tables.setdefault("recall", []).append(
        {
            "features": name,
            "k": k,
            "recall": found.share,
            "low": found.low,
            "high": found.high,
            "compared": found.queries,
            "effort": index.effort_,
        }
    )
    what = "lists looked through" if config.approximate == "ivf" else "candidates kept"
    short = f", less than the {config.recall:.1%} asked for" if found.high < config.recall else ""
    result.notes.append(
        f"{name}: accuracy of approximate neighbours "
        f"({config.approximate}, {index.effort_:,} {what}): "
        f"{found.share:.1%} of the {k} nearest are found (95 % interval {found.low:.1%} to "
        f"{found.high:.1%}, {found.queries:,} queries compared with an exact search){short}"
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
    best_of = " (best on TEST)" if len(rows) > 1 else ""
    result.figures.append(
        Figure(
            "confusion",
            "heatmap",
            f"confusion/{best['features']}/k{best['k']}",
            f"Confusion of {best['features']}, k = {best['k']}" + best_of,
            "predicted",
            "true",
            labels="classes",
        )
    )
