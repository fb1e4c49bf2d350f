"""The best tables together: what a concatenation of those that are best alone is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, get_args

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
from featkit.analyses.sides import (
    Integers,
    Split,
    check_classes,
    check_several_classes,
    kept_rows,
    pair_tables,
    split_samples,
)
from featkit.errors import UsageError
from featkit.ops.combine import combine
from featkit.ops.hold_out import hold_out
from featkit.ops.knn_classifier import KNNClassifier
from featkit.ops.linear_probe import LinearProbe
from featkit.ops.neighbors import resolve_device
from featkit.ops.proportions import paired_test, proportion_interval
from featkit.store.reader import FeatureTable

Judge = Literal["knn", "probe"]
Learner: TypeAlias = KNNClassifier | LinearProbe
Part: TypeAlias = Sequence[NDArray[Any]]
"""Rows of the same images in some tables."""

_ALL_SIZES = 8
"""Tables up to which every number of them is tried."""


@dataclass(frozen=True)
class BestSubsetConfig:
    """Options of :class:`BestSubset`."""

    judge: Judge = option(
        "knn",
        "knn: majority vote of neighbours by cosine, each table L2-normalised; probe: logistic "
        "regression, the best of 45 penalties, features as stored.",
        "Grant et al., sec. 3.1, have both",
    )
    k: int = option(20, "Neighbours that vote, of knn.")
    held_out: float = option(0.2, "Share of TRAIN that ranks the tables and chooses their number.")
    seed: int = option(0, "Draws the images that are held out.")

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.judge not in get_args(Judge):
            raise UsageError(f"judge {self.judge!r}: use {' or '.join(get_args(Judge))}")
        if self.k < 1:
            raise UsageError(f"k is {self.k}: give a whole number, at least 1")
        if not 0 < self.held_out < 1:
            raise UsageError(f"held_out is {self.held_out}: give a share between 0 and 1")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed is {self.seed}: give a whole number from 0 to 2^32 - 1")


class BestSubset:
    """Accuracy of the best tables concatenated, their number chosen on a part of TRAIN.

    Tables are ranked by their own accuracy on images of TRAIN that are held out; TEST is only
    judged. Rows of unreadable images are left out of both.
    """

    inputs: ClassVar[tuple[Input, ...]] = (
        Input("TRAIN", "two tables or more: leaves of a tree, layers, backbones"),
        Input("TEST", "tables of other images, made by the same backbones"),
    )
    requires: ClassVar[frozenset[str]] = frozenset({"labels", "vectors"})
    Config: ClassVar[type[Any]] = BestSubsetConfig

    def __init__(self, config: BestSubsetConfig | None = None) -> None:
        self.config = config or BestSubsetConfig()

    def run(self, inputs: Mapping[str, Sequence[FeatureTable]]) -> Result:
        """Rank the tables, concatenate the best of them, and judge the best number on TEST.

        The judge learns from the images of TRAIN that are not held out: from each table alone,
        whose accuracies on the images held out are the ranking (of equal ones the first table
        given), then from the s best concatenated, in the order of the ranking. Up to eight tables,
        every s is tried; of more 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, … and all. The s with the best
        accuracy on the images held out is chosen, of equal ones the least. Only then is TEST read,
        by the best table, the tables chosen and all tables, each learned once more from all of
        TRAIN. Accuracies on the images held out have chosen, and are a little too high.

        Neighbours see each table L2-normalised, as :func:`featkit.ops.combine.combine` concatenates
        them, so that all count alike. The probe sees features as stored; its λ is chosen within the
        images that are not held out, as :class:`~featkit.ops.linear_probe.LinearProbe` does, and
        kept for all of TRAIN.

        Args:
            inputs: ``train`` and ``test``, tables of the same names made by the same backbones.

        Returns:
            Table ``accuracy``: features (best single, best subset, all), tables (their number),
            top1 on TEST, low, high (its 95 % interval), p (of the exact paired test against the
            best subset; None for itself), and of the probe lambda. Table ``individual``, best
            first: features, held_out (accuracy on the images held out), rank, chosen (yes or no).
            Table ``sizes``: tables (number of the best ones), held_out, chosen.

            Scalars ``top1`` of the best subset, ``chosen`` (tables in it), ``tables``, ``n_train``,
            ``n_held_out`` (of these), ``n_test``, ``classes``, ``unreadable``, ``in_both`` (images
            of TEST whose very content is in TRAIN too).

        Raises:
            UsageError: There is one table only, the two sides do not belong together, or TRAIN is
                too small.

        Cost: with m tables of d dimensions, some m + 2 log2(m) times what the judge takes to learn
        and to answer, for concatenations of up to m·d dimensions; memory for about three times
        the features of TRAIN, concatenated, in float32.

        Source: Grant, Dias and Kulkarni, Spontaneous decomposition from grouped network pathways,
        sec. 3.1, "the best subset is selected based on individual classification accuracy". They
        do not say on which images, nor how large it is: here both are chosen without TEST.
        """
        check_requirements(self.requires, inputs)
        if len(inputs["train"]) < 2:
            raise UsageError(
                f"{inputs['train'][0].path} is the only table: give two or more, such as several "
                "taps or backbones of one store"
            )
        pairs = pair_tables(inputs["train"], inputs["test"])
        split = split_samples(pairs)
        _check(split)
        parts = self._hold_out(split.bank_labels)
        banks = [kept_rows(train, split.bank_rows) for train, _ in pairs]
        alone = [self._try([bank], split.bank_labels, parts) for bank in banks]
        ranked = sorted(range(len(pairs)), key=lambda table: -alone[table][0])
        tried = {1: alone[ranked[0]]}
        for size in _sizes(len(pairs))[1:]:
            best = [banks[table] for table in ranked[:size]]
            tried[size] = self._try(best, split.bank_labels, parts)
        chosen = max(tried, key=lambda size: tried[size][0])
        right: dict[int, NDArray[np.bool_]] = {}
        for size in dict.fromkeys((1, chosen, len(pairs))):
            learner = tried[size][1]
            learner.fit(self._joined([banks[table] for table in ranked[:size]]), split.bank_labels)
            tests = [kept_rows(pairs[table][1], split.query_rows) for table in ranked[:size]]
            right[size] = learner.predict(self._joined(tests)) == split.query_labels
        result = self._begin(inputs, split, len(parts[0]))
        _tell_accuracy(result, right, chosen, {size: tried[size][1] for size in right})
        names = short_names([train for train, _ in pairs])
        _tell_individual(result, [(names[table], alone[table][0]) for table in ranked], chosen)
        _tell_sizes(result, {size: accuracy for size, (accuracy, _) in tried.items()}, chosen)
        self._add_figures(result)
        return result

    def _begin(
        self, inputs: Mapping[str, Sequence[FeatureTable]], split: Split, held_out: int
    ) -> Result:
        by_neighbors = self.config.judge == "knn"
        used = ("faiss-cpu", "torch") if by_neighbors else ("torch", "scikit-learn", "scipy")
        config, provenance = describe_run(self.config, inputs, used)
        provenance |= {
            "seed": self.config.seed,
            "held_out": self.config.held_out,
            "features": "L2-normalised" if by_neighbors else "as stored",
        }
        if by_neighbors:
            provenance |= {"metric": "cosine", "device": str(resolve_device("auto"))}
        result = Result("best-subset", config, provenance=provenance)
        result.scalars = {
            "tables": len(inputs["train"]),
            "n_train": len(split.bank_labels),
            "n_held_out": held_out,
            "n_test": len(split.query_labels),
            "classes": len(split.classes),
            "unreadable": int((~split.bank_rows).sum() + (~split.query_rows).sum()),
            "in_both": split.in_both,
        }
        result.shown = {"individual": (), "sizes": (), "accuracy": ()}
        strange = np.setdiff1d(split.query_labels, split.bank_labels)
        if len(strange):
            named = ", ".join(split.classes[c] for c in strange[:5])
            more = ", …" if len(strange) > 5 else ""
            result.notes.append(f"TRAIN has no image of class {named}{more}: always wrong there")
        return result

    def _hold_out(self, labels: Integers) -> tuple[Integers, Integers]:
        """Return the images of TRAIN that are held out, and the others."""
        share = self.config.held_out
        too_few = UsageError(
            f"TRAIN has {len(labels)} images, too few to hold out {share:.0%} and learn their "
            "classes from the rest: give more"
        )
        try:
            held_out, rest = hold_out(len(labels), share, self.config.seed)
        except UsageError:
            raise too_few from None
        known = np.unique(labels[rest])
        if len(known) < 2 or not np.isin(labels[held_out], known).any():
            raise too_few
        return held_out, rest

    def _try(
        self, features: Part, labels: Integers, parts: tuple[Integers, Integers]
    ) -> tuple[float, Learner]:
        """Return the accuracy on the images held out, and the judge, to learn once more."""
        held_out, rest = parts
        known, asked = (self._joined([x[part] for x in features]) for part in (rest, held_out))
        if self.config.judge == "knn":
            neighbors = KNNClassifier(self.config.k).fit(known, labels[rest])
            return neighbors.score(asked, labels[held_out]), KNNClassifier(self.config.k)
        probe = LinearProbe(random_state=self.config.seed).fit(known, labels[rest])
        again = LinearProbe((probe.penalty_,), validation=None)
        return probe.score(asked, labels[held_out]), again

    def _joined(self, features: Part) -> NDArray[Any]:
        """Concatenate some tables as the judge wants them."""
        if self.config.judge == "knn":
            return combine(features, "concat")
        return np.concatenate(features, axis=1)

    def _add_figures(self, result: Result) -> None:
        by = "a linear probe" if self.config.judge == "probe" else f"{self.config.k} neighbours"
        what = f"Accuracy of {by}"
        held_out = f"{what} on the images held out of TRAIN"
        result.figures = [
            Figure(
                "sizes", "line", "sizes", f"{held_out}: the best together", "tables", "held_out"
            ),
            Figure(
                "individual",
                "bar",
                "individual",
                f"{held_out}: each alone",
                "features",
                "held_out",
                hue="chosen",
            ),
            Figure(
                "accuracy",
                "bar",
                "accuracy",
                f"{what} on TEST",
                "features",
                "top1",
                interval=("low", "high"),
            ),
        ]


def _check(split: Split) -> None:
    """Refuse, before the work, what cannot be chosen or judged."""
    if split.leave_one_out:
        raise UsageError(
            "TRAIN and TEST are the same images, which would judge the tables that they have "
            "chosen: give a store of other images as TEST"
        )
    check_several_classes(split)
    check_classes(split)


def _sizes(m: int) -> list[int]:
    """Return how many of m tables are tried together.

    Example:
        >>> _sizes(5), _sizes(20)
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 6, 8, 12, 16, 20])
    """
    if m <= _ALL_SIZES:
        return list(range(1, m + 1))
    steps = {step << times for step in (2, 3) for times in range(m.bit_length())}
    return sorted({1, m} | {step for step in steps if step < m})


def _tell_accuracy(
    result: Result,
    right: Mapping[int, NDArray[np.bool_]],
    chosen: int,
    learners: Mapping[int, Learner],
) -> None:
    """Tell how often each number of tables was right on TEST, and what it was learned by."""
    rows = []
    for name, size in (("best single", 1), ("best subset", chosen), ("all", max(right))):
        hits = right[size]
        low, high = proportion_interval(int(hits.sum()), len(hits))
        p = None if size == chosen else paired_test(hits, right[chosen])
        row = {"features": name, "tables": size, "top1": float(hits.mean())}
        row |= {"low": low, "high": high, "p": p}
        learner = learners[size]
        if isinstance(learner, LinearProbe):
            row["lambda"] = learner.penalties[0]
        rows.append(row)
    for size, learner in learners.items():
        if isinstance(learner, LinearProbe) and not learner.converged_:
            of = f"{size} tables" if size > 1 else "the best table"
            result.notes.append(f"the probe of {of}: the optimum was not reached")
    result.tables["accuracy"] = rows
    result.scalars = {"top1": float(right[chosen].mean()), "chosen": chosen, **result.scalars}


def _tell_individual(result: Result, ranked: Sequence[tuple[str, float]], chosen: int) -> None:
    result.tables["individual"] = [
        {
            "features": name,
            "held_out": accuracy,
            "rank": rank,
            "chosen": "yes" if rank <= chosen else "no",
        }
        for rank, (name, accuracy) in enumerate(ranked, 1)
    ]


def _tell_sizes(result: Result, tried: Mapping[int, float], chosen: int) -> None:
    result.tables["sizes"] = [
        {"tables": size, "held_out": accuracy, "chosen": "yes" if size == chosen else "no"}
        for size, accuracy in tried.items()
    ]
