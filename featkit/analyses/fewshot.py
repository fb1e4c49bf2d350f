"""How good are features where labels are few: the accuracy of class means of some images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

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
from featkit.analyses.sides import Integers, Split, check_classes, pair_tables, split_samples
from featkit.errors import UsageError
from featkit.ops.few_shot import (
    Doubles,
    Rows,
    StackedRows,
    mean_interval,
    prototype_accuracy,
    sample_episodes,
)
from featkit.store.reader import FeatureTable

_SOURCE = "Ericsson et al. 2021, arXiv:2011.13377"


@dataclass(frozen=True)
class FewShotConfig:
    """Options of :class:`FewShot`."""

    ways: int = option(5, "Classes in an episode.", _SOURCE)
    shots: tuple[int, ...] = option((5,), "Images of each class that are known.", _SOURCE)
    queries: int = option(15, "Images of each class that are asked for.", _SOURCE)
    episodes: int = option(600, "Random problems.", _SOURCE)
    seed: int = option(0, "Of the episodes; all tables see the same.")
    merge: bool = option(
        False, "Draw support and queries, disjoint, from the images of both sides.", _SOURCE
    )

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if not self.shots or min(self.shots) < 1:
            raise UsageError(
                f"shots is {','.join(map(str, self.shots)) or 'empty'}: give whole numbers, at"
                " least 1"
            )
        for name, least in (("ways", 2), ("queries", 1), ("episodes", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise UsageError(
                    f"{name} is {getattr(self, name)}: give a whole number, at least {least}"
                )


class FewShot:
    """Accuracy of the nearest class mean, of a few images a class.

    Each episode takes some classes and for each the mean of some images of TRAIN, and classifies
    images of TEST by the nearest mean: Euclidean distance of the features as they are. Where both
    are the same store, and with ``merge``, both are drawn from all images, disjoint; of images with
    the same content only the first takes part then. Unreadable images are left out.
    """

    inputs: ClassVar[tuple[Input, ...]] = (
        Input("TRAIN", "tables of the support: STORE, STORE:BACKBONE or STORE:BACKBONE/TAP"),
        Input("TEST", "tables of the queries; the same as TRAIN to draw both from it, disjoint"),
    )
    requires: ClassVar[frozenset[str]] = frozenset({"labels", "vectors"})
    Config: ClassVar[type[Any]] = FewShotConfig

    def __init__(self, config: FewShotConfig | None = None) -> None:
        self.config = config or FewShotConfig()

    def run(self, inputs: Mapping[str, Sequence[FeatureTable]]) -> Result:
        """Draw episodes, and judge every table by the same.

        Episodes of fewer shots are those of more shots with less support.

        Args:
            inputs: ``train`` and ``test``, tables of the same names made by the same backbones.

        Returns:
            Table ``accuracy`` (features, ways, shots, queries, episodes, accuracy, ci95: half-width
            of its 95 % interval over episodes, low, high: the interval within [0, 1]; with several
            tables also behind: how far the accuracy is below the best of as many shots, and
            behind_ci95 of this paired difference, None for the best). Arrays
            ``episodes/FEATURES/sSHOTS``, the accuracy in each episode. Scalars ``accuracy`` and
            ``ci95`` of the row, or of several rows ``test_best`` (the FEATURES/sSHOTS that TEST
            itself likes best), ``test_best_accuracy`` and ``test_best_ci95``; ``classes``,
            ``support_images`` and ``query_images`` that can be drawn, ``unreadable``, ``in_both``
            (images of TEST that are in TRAIN too), ``merged``, and where they are merged
            ``repeated`` (images left out since others have their content).

        Raises:
            UsageError: The two sides do not belong together, or a class has too few images.
        """
        check_requirements(self.requires, inputs)
        pairs = pair_tables(inputs["train"], inputs["test"])
        split = split_samples(pairs)
        if not self.config.merge:
            check_classes(split)
        config, provenance = describe_run(self.config, inputs, ("numpy",))
        provenance |= {"metric": "euclidean", "seed": self.config.seed}
        support, queries = self._labels(pairs[0], split)
        shots = sorted(set(self.config.shots))
        episodes = sample_episodes(
            support,
            queries,
            ways=self.config.ways,
            shots=shots[-1],
            queries=self.config.queries,
            episodes=self.config.episodes,
            generator=self.config.seed,
            names=split.classes,
        )
        found: dict[tuple[str, int], Doubles] = {}
        for name, pair in zip(short_names([train for train, _ in pairs]), pairs, strict=True):
            train, test = self._features(pair, split)
            for s in shots:
                found[name, s] = prototype_accuracy(train, test, episodes.with_shots(s))
        result = Result("fewshot", config, provenance=provenance)
        self._tell_accuracy(result, found)
        _tell_images(result, split, support, queries)
        return result

    def _labels(
        self, pair: tuple[FeatureTable, FeatureTable], split: Split
    ) -> tuple[Integers, Integers | None]:
        """Return the class of every row of each side, -1 for none; None where they are merged."""
        train, test = pair
        support = _spread(split.bank_labels, split.bank_rows)
        if split.leave_one_out:
            return _first_of_content(support, train.digests), None
        queries = _spread(split.query_labels, split.query_rows)
        if self.config.merge:
            digests = np.concatenate([train.digests, test.digests])
            return _first_of_content(np.concatenate([support, queries]), digests), None
        return support, queries

    def _features(self, pair: tuple[FeatureTable, FeatureTable], split: Split) -> tuple[Rows, Rows]:
        """Return the rows that support and queries count in, mapped into memory."""
        train, test = (table.numpy() for table in pair)
        if self.config.merge and not split.leave_one_out:
            both = StackedRows((train, test))
            return both, both
        return train, test

    def _tell_accuracy(self, result: Result, found: Mapping[tuple[str, int], Doubles]) -> None:
        names, shots = (list(dict.fromkeys(part)) for part in zip(*found, strict=True))
        rows = result.tables["accuracy"] = []
        for (name, s), accuracies in found.items():
            mean, ci95 = mean_interval(accuracies)
            row = {
                "features": name,
                "ways": self.config.ways,
                "shots": s,
                "queries": self.config.queries,
                "episodes": self.config.episodes,
                "accuracy": mean,
                "ci95": ci95,
                "low": max(mean - ci95, 0.0),
                "high": min(mean + ci95, 1.0),
            }
            if len(names) > 1:
                best = max((found[other, s] for other in names), key=np.mean)
                behind = (None, None) if best is accuracies else mean_interval(best - accuracies)
                row["behind"], row["behind_ci95"] = behind
            rows.append(row)
            result.arrays[f"episodes/{name}/s{s}"] = accuracies
        result.shown = {"accuracy": tuple(name for name in rows[0] if name not in ("low", "high"))}
        top, start = max(rows, key=lambda row: row["accuracy"]), ""
        if len(rows) > 1:
            start = "test_best_"
            result.scalars["test_best"] = f"{top['features']}/s{top['shots']}"
        result.scalars |= {f"{start}{name}": top[name] for name in ("accuracy", "ci95")}
        what, interval = f"Nearest class mean, {self.config.ways}-way", ("low", "high")
        if len(shots) == 1:
            what += f" {shots[0]}-shot"
            figure = Figure(
                "accuracy", "bar", "accuracy", what, "features", "accuracy", interval=interval
            )
        else:
            figure = Figure(
                "accuracy",
                "line",
                "accuracy",
                what,
                "shots",
                "accuracy",
                hue="features",
                interval=interval,
                log_x=True,
            )
        result.figures.append(figure)


def _spread(labels: Integers, rows: NDArray[np.bool_]) -> Integers:
    spread = np.full(len(rows), -1)
    spread[rows] = labels
    return spread


def _first_of_content(labels: Integers, digests: NDArray[np.uint8]) -> Integers:
    """Take out the copies of an image, or one could be support while another is the query."""
    rows = np.flatnonzero(labels >= 0)
    contents = digests[rows].view(f"V{digests.shape[1]}")[:, 0]
    _, first = np.unique(contents, return_index=True)
    once = np.full_like(labels, -1)
    once[rows[first]] = labels[rows[first]]
    return once


def _tell_images(result: Result, split: Split, support: Integers, queries: Integers | None) -> None:
    """Say what was drawn from, and what the reader must know of it."""
    sides = [side[side >= 0] for side in (support, queries) if side is not None]
    classes = [set(np.unique(side).tolist()) for side in sides]
    read = [split.bank_rows] if split.leave_one_out else [split.bank_rows, split.query_rows]
    result.scalars |= {
        "classes": len(set.intersection(*classes)),
        "support_images": len(sides[0]),
        "query_images": len(sides[-1]),
        "unreadable": sum(int((~rows).sum()) for rows in read),
        "in_both": split.in_both,
        "merged": "yes" if queries is None else "no",
    }
    if queries is None:
        repeated = sum(int(rows.sum()) for rows in read) - len(sides[0])
        result.scalars["repeated"] = repeated
        if repeated:
            result.notes.append(
                f"{repeated} of the images have the content of another one and are left out, so"
                " that no image is support and query at once"
            )
    elif split.in_both:
        result.notes.append(
            f"{split.in_both} images of TEST are in TRAIN too (same content), and one may be"
            " support and query at once; --merge takes each once"
        )
    apart = set.union(*classes) - set.intersection(*classes)
    if apart:
        names = [split.classes[c] for c in sorted(apart)]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        result.notes.append(f"classes on one side only take no part: {', '.join(names[:5])}{more}")
