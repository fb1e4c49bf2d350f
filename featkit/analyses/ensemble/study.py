"""What an ensemble is worth: ψ against its models, their average and their concatenation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featkit.analyses.base import Figure, Result, option
from featkit.analyses.ensemble.representation import EnsembleRepresentation
from featkit.analyses.sides import Split
from featkit.errors import UsageError
from featkit.ops.combine import Combination, CombinedRows
from featkit.ops.linear_classifier import LinearEvaluation
from featkit.ops.neighbors import BLOCK, Floats, nearest_neighbors, unit_rows
from featkit.ops.proportions import paired_test, proportion_interval
from featkit.ops.row_sources import RowSource
from featkit.ops.similarity import (
    changed_neighbors,
    mean_pairwise_similarity,
    normalised_maximum_similarity,
)
from featkit.ops.spectrum import singular_values
from featkit.ops.votes import majority_vote

Right: TypeAlias = Mapping[int, NDArray[np.bool_]]
"""Whether each query was classified right, by k."""

MOVED = 0.01
"""Share of its length that ψ must move; an ensemble that moved less has not run."""

_NEIGHBORS = 20
_LOOKED_AT = 10_000
"""Images among which neighbours before and after are compared."""

_ROUNDING = 1e-7
"""Of the largest singular value; what is less is rounding of float32."""


@dataclass(frozen=True)
class StudyConfig:
    """Options of :func:`study`."""

    k: tuple[int, ...] = option((1, 5, 20, 200), "Numbers of neighbours, one search for all.")
    linear: bool = option(
        False, "Also train the paper's linear classifiers on all features; minutes.", "appendix"
    )

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if not self.k or min(self.k) < 1:
            raise UsageError(
                f"k is {','.join(map(str, self.k)) or 'empty'}: give whole numbers, at least 1"
            )

    def check(self, most: int, has_labels: bool) -> None:
        """Refuse numbers of neighbours that a bank of ``most`` others has not.

        Raises:
            UsageError: No k is among them.
        """
        if has_labels and min(self.k) > most:
            raise UsageError(f"k is {min(self.k)} and there are {most} images to find: lower it")


@dataclass(frozen=True)
class Images:
    """Features of the same images by several models.

    Attributes:
        models: m matrices (n, d_j), finite.
        psi: What was learned of them, (n, w).
    """

    models: Sequence[RowSource]
    psi: Floats


def study(
    ensemble: EnsembleRepresentation,
    names: Sequence[str],
    bank: Images,
    queries: Images | None,
    split: Split | None,
    config: StudyConfig,
) -> Result:
    """Hold ψ against what it was learned from.

    Args:
        ensemble: Fitted on the bank.
        names: Of the models.
        bank: The images of ``fit``.
        queries: Other images, with what ``transform`` found; None for none.
        split: Labels of both; without queries, of the bank as its own queries (leave-one-out);
            None where there are none.
        config: Options.

    Returns:
        Tables ``knn`` (features, k, top1 by majority vote, low, high: its 95 % interval, p: of the
        exact paired test against ψ), ``recovery`` (model, and its mean cosine after_warmup, final,
        inference), ``stages`` (the same, a number a row), ``linear`` (features, weight_decay, top1,
        low, high, p). Arrays ``moved`` (‖ψ - ψ0‖ / ‖ψ0‖ of the images of the bank whose ψ0 is not
        0), ``changed_neighbors`` (share of the 20 nearest, for 10,000 images of the bank),
        ``singular_values/…`` and ``maximum_similarity/…`` of ψ and the start; the latter not where
        ψ starts from principal components, whose mean similarity is 0. Scalars: median of
        ``moved``, mean of ``changed_neighbors``, medians of ``maximum_similarity``, and
        ``mean_similarity_…`` over pairs of the bank.

    """
    result = Result("ensemble-fit", {})
    result.tables["knn"] = []
    start = ensemble.start(bank.models)
    if split is None:
        result.notes.append("not one label a sample: neighbours are not judged")
    else:
        _judge_neighbors(result, _features(names, bank, queries), split, config)
        if config.linear:
            _judge_linear(result, _features(names, bank, queries), split)
    _tell_recovery(result, names, ensemble)
    _tell_movement(result, start, bank.psi)
    _tell_shape(result, ensemble, (start, bank), queries)
    return result


def _features(
    names: Sequence[str], bank: Images, queries: Images | None
) -> Iterator[tuple[str, RowSource, RowSource]]:
    """Yield name, bank and queries of all that is compared, ψ last."""
    asked = queries or bank
    for name, x, y in zip(names, bank.models, asked.models, strict=True):
        yield f"individual:{name}", x, y
    widths = {x.shape[1] for x in bank.models}
    kinds: list[Combination] = ["average", "concat"] if len(widths) == 1 else ["concat"]
    for how in kinds if len(names) > 1 else []:
        yield how, CombinedRows(bank.models, how), CombinedRows(asked.models, how)
    yield "ensemble", bank.psi, asked.psi


def _judge_neighbors(
    result: Result,
    features: Iterator[tuple[str, RowSource, RowSource]],
    split: Split,
    config: StudyConfig,
) -> None:
    most = len(split.bank_labels) - split.leave_one_out
    ks = [k for k in dict.fromkeys(config.k) if k <= most]
    if len(ks) < len(set(config.k)):
        result.notes.append(f"k above {most} is left out: the bank has no more images")
    right: dict[str, Right] = {}
    for name, bank, queries in features:
        similarities, rows = nearest_neighbors(
            queries, bank, max(ks), exclude_self=split.leave_one_out
        )
        votes = majority_vote(similarities, split.bank_labels[rows], len(split.classes), ks)
        right[name] = {k: votes[k] == split.query_labels for k in ks}
    result.tables["knn"] = [
        {"features": name, "k": k} | _share(found[k], right["ensemble"][k], name)
        for name, found in right.items()
        for k in ks
    ]
    interval, what = ("low", "high"), "Nearest-neighbour accuracy"
    if len(ks) == 1:
        title = f"{what}, k = {ks[0]}"
        picture = Figure("knn", "bar", "knn", title, "features", "top1", interval=interval)
    else:
        picture = Figure(
            "knn", "line", "knn", what, "k", "top1", "features", interval=interval, log_x=True
        )
    result.figures.append(picture)


def _share(right: NDArray[np.bool_], ours: NDArray[np.bool_], name: str) -> dict[str, Any]:
    low, high = proportion_interval(int(right.sum()), len(right))
    p = None if name == "ensemble" else paired_test(right, ours)
    return {"top1": float(right.mean()), "low": low, "high": high, "p": p}


def _judge_linear(
    result: Result, features: Iterator[tuple[str, RowSource, RowSource]], split: Split
) -> None:
    if split.leave_one_out:
        result.notes.append("no other images: no linear classifier can be judged")
        return
    right, decays = {}, {}
    for name, bank, queries in features:
        classifier = LinearEvaluation().fit(unit_rows(bank).array, split.bank_labels)
        right[name] = classifier.predict(unit_rows(queries).array) == split.query_labels
        decays[name] = classifier.weight_decay_
    result.tables["linear"] = [
        {"features": name, "weight_decay": decays[name]} | _share(found, right["ensemble"], name)
        for name, found in right.items()
    ]
    result.figures.append(
        Figure(
            "linear",
            "bar",
            "linear",
            "Accuracy of a linear classifier",
            "features",
            "top1",
            interval=("low", "high"),
        )
    )


def _tell_recovery(result: Result, names: Sequence[str], ensemble: EnsembleRepresentation) -> None:
    stages = {
        stage: ensemble.recovery_.get(stage, [None] * len(names))
        for stage in ("after_warmup", "final", "inference")
    }
    result.tables["recovery"] = [
        {"model": name} | {stage: found[j] for stage, found in stages.items()}
        for j, name in enumerate(names)
    ]
    result.tables["stages"] = [
        {"model": name, "stage": stage, "cosine": found[j]}
        for stage, found in stages.items()
        for j, name in enumerate(names)
    ]
    what = "How well each model is recovered"
    result.figures.append(Figure("recovery", "bar", "stages", what, "model", "cosine", hue="stage"))


def _tell_movement(result: Result, start: Floats, psi: Floats) -> None:
    lengths, moved = np.empty(len(psi), np.float32), np.empty(len(psi), np.float32)
    for first in range(0, len(psi), BLOCK):  # both may be larger than the memory
        part = slice(first, first + BLOCK)
        lengths[part] = np.linalg.norm(start[part], axis=1)
        moved[part] = np.linalg.norm(psi[part] - start[part], axis=1)
    moved = moved[lengths > 0] / lengths[lengths > 0]
    result.arrays["moved"] = moved
    typical = float(np.median(moved)) if len(moved) else 0.0
    result.scalars["moved"] = typical
    if typical < MOVED:
        result.notes.append(
            f"ψ moved by {typical:.2%} of its length: it is still where it started, and "
            f"stands for nothing new (more epochs, a higher lr, or a narrower width)"
        )
    if len(psi) < 3:
        return
    rows = np.sort(np.random.default_rng(0).permutation(len(psi))[:_LOOKED_AT])
    changed = changed_neighbors(start[rows], psi[rows], min(_NEIGHBORS, len(rows) - 1))
    result.arrays["changed_neighbors"] = changed
    result.scalars["changed_neighbors"] = float(changed.mean())


def _tell_shape(
    result: Result,
    ensemble: EnsembleRepresentation,
    bank: tuple[Floats, Images],
    queries: Images | None,
) -> None:
    """Spectrum and similarities of ψ beside those of its start."""
    start, learned = bank
    for name, x in ((ensemble.init_, start), ("ensemble", learned.psi)):
        values = singular_values(x)
        result.arrays[f"singular_values/{name}"] = np.where(
            values > _ROUNDING * values[0], values, 0
        )
        if len(x) > 1:
            result.scalars[f"mean_similarity_{name}"] = mean_pairwise_similarity(x)
    kept = "ψ restricted to 0 and above" if ensemble.non_negative else "ψ unrestricted"
    result.figures.append(
        Figure(
            "singular_values",
            "curves",
            "singular_values",
            f"Singular values, {kept}",
            "rank",
            "singular value",
        )
    )
    if queries is None or ensemble.init_ == "pca":
        return
    asked = ensemble.start(queries.models)
    for name, x, y in ((ensemble.init_, start, asked), ("ensemble", learned.psi, queries.psi)):
        try:
            found = normalised_maximum_similarity(y, x)
        except UsageError as error:
            result.notes.append(f"{name}: {error}")
            return
        result.arrays[f"maximum_similarity/{name}"] = found
        result.scalars[f"maximum_similarity_{name}"] = float(np.median(found))
    result.figures.append(
        Figure(
            "maximum_similarity",
            "histogram",
            "maximum_similarity",
            "Similarity to the nearest image, by the mean one",
            "max cosine / mean cosine",
            "images",
        )
    )
