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
from featkit.analyses.sides import (
    Split,
    check_classes,
    kept_rows,
    pair_tables,
    split_samples,
)
from featkit.errors import UsageError
from featkit.ops.combine import Combination, combine
from featkit.ops.neighbors import nearest_neighbors, resolve_device
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
            Tables ``accuracy`` (features, vote, k, top1), ``per_class`` (features, vote, k,
            class, n, accuracy) and, where ``taps`` are given, ``layers`` (features, backbone,
            score, chosen), the score being the leave-one-out accuracy on TRAIN, the mean over k;
            arrays ``confusion/FEATURES/kK`` (classes, classes), rows the true class, of which the
            figure is that of the features and k that are best on TEST; scalars
            ``bank``, ``queries``, ``classes``, ``unreadable``, ``in_both`` (queries whose very
            image is in the bank too) and ``leave_one_out``.

        Raises:
            UsageError: The two sides do not belong together.
        """
        inputs = with_taps(inputs, self.config.taps)
        check_requirements(self.requires, inputs)
        pairs = pair_tables(inputs["train"], inputs["test"])
        split = split_samples(pairs)
        check_classes(split)
        tried: list[dict[str, Any]] = []
        if self.config.taps:
            pairs, tried = pick_layers(pairs, lambda table: self._leave_one_out(table, split))
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
        if tried:
            result.tables["layers"] = tried
            result.shown = {"layers": (), "accuracy": ()}
        result.arrays["classes"] = np.array(split.classes)
        for name, bank, queries in self._features(pairs, split):
            self._judge(name, bank, queries, split, result)
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
    ) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
        """Yield name, bank and queries of every table, then of the combinations."""
        names = short_names([train for train, _ in pairs])
        for name, (train, test) in zip(names, pairs, strict=True):
            yield name, kept_rows(train, split.bank_rows), kept_rows(test, split.query_rows)
        for how in dict.fromkeys(self.config.combine):
            bank = combine([kept_rows(train, split.bank_rows) for train, _ in pairs], how)
            if split.leave_one_out:
                yield how, bank, bank
            else:
                yield (
                    how,
                    bank,
                    combine([kept_rows(test, split.query_rows) for _, test in pairs], how),
                )

    def _leave_one_out(self, table: FeatureTable, split: Split) -> float:
        """Return the accuracy of a bank's rows among each other, the mean over k."""
        bank = kept_rows(table, split.bank_rows)
        votes = self._vote(bank, bank, split, exclude_self=True)
        return float(np.mean([(found == split.bank_labels).mean() for found in votes.values()]))

    def _vote(
        self, bank: NDArray[Any], queries: NDArray[Any], split: Split, exclude_self: bool
    ) -> dict[int, NDArray[np.int64]]:
        """Return the class of each query for each k."""
        config = self.config
        similarities, rows = nearest_neighbors(
            queries, bank, max(config.k), exclude_self=exclude_self, device=config.device
        )
        voters, count = split.bank_labels[rows], len(split.classes)
        if config.vote == "majority":
            return majority_vote(similarities, voters, count, config.k)
        return dino_vote(similarities, voters, count, config.k, temperature=config.temperature)

    def _judge(
        self,
        name: str,
        bank: NDArray[Any],
        queries: NDArray[Any],
        split: Split,
        result: Result,
    ) -> None:
        config, count = self.config, len(split.classes)
        votes = self._vote(bank, queries, split, split.leave_one_out)
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
