"""Linear classifiers as papers train them on features, each with a temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.ops.calibration import fit_temperature
from featkit.ops.hold_out import hold_out
from featkit.ops.linear_classifier import LinearEvaluation
from featkit.ops.linear_probe import LinearProbe
from featkit.ops.matrices import row_numbers
from featkit.ops.neighbors import BLOCK, Array, Floats, Integers, unit_rows

Protocol = Literal["logistic", "unregularised", "sgd"]
Learner: TypeAlias = LinearProbe | LinearEvaluation

HELD_OUT = {"logistic": 0.2, "unregularised": 0.2, "sgd": 0.1}
"""Share of the samples on which λ and the temperature are chosen."""


@dataclass(frozen=True)
class LearnedProbe:
    """What :func:`learn_probe` found.

    Attributes:
        protocol: By which it was learned.
        model: The classifier, trained on all samples.
        classes: The label, or the column of labels, that each output stands for, (c), ascending.
        penalty: λ.
        converged: Whether ``model`` is the optimum; None for SGD, which does not know.
        path: Each λ that was tried, and its score on the samples held out.
        validation: The score on these of the λ chosen, in [0, 1]: accuracy, or mean average
            precision where a sample can have several labels.
        temperature: In [0, ∞]; None where a sample can have several labels.
    """

    protocol: Protocol
    model: Learner
    classes: Array
    penalty: float
    converged: bool | None
    path: tuple[tuple[float, float], ...]
    validation: float
    temperature: float | None

    def logits(self, x: npt.ArrayLike, rows: npt.ArrayLike | None = None) -> Array:
        """Return the outputs (m, c) for features (n, d): of some ``rows`` (m), or of all."""
        features = np.asarray(x)
        return _logits(self.model, features, row_numbers(rows, len(features)))


def learn_probe(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    protocol: Protocol = "logistic",
    seed: int = 0,
    rows: npt.ArrayLike | None = None,
    max_memory: float | None = None,
) -> LearnedProbe:
    """Train a linear classifier by a protocol, and find the temperature of its probabilities.

    ``logistic``: :class:`~featkit.ops.linear_probe.LinearProbe` with the best of its 45 penalties;
    ``unregularised``: with none; both on features as they are. ``sgd``:
    :class:`~featkit.ops.linear_classifier.LinearEvaluation` on L2-normalised features.

    The temperature is that of a second classifier, trained with the λ chosen on all but the samples
    held out, at which the labels of these are most likely. They are those that chose λ (which
    Guo et al. allow, sec. 4); their score is ``validation`` where there is no λ to choose.

    Args:
        x: (n, d); the rows that take part are finite. Memory-mapped arrays are read block by block.
        y: Of each row that takes part: its label (m), whole number or string; or 0 and 1, (m, k),
            one classifier a column. Columns that are all 0 or all 1 are not learned.
        protocol: Which; ``sgd`` takes one label a sample.
        seed: Of the split and the training.
        rows: Those of ``x`` that take part, different whole numbers (m); all if None.
        max_memory: GB that a fit may take beside rows and labels; None for up to 10. Not for
            ``sgd``, which holds all rows.

    Returns:
        The classifier, and what was chosen.

    Raises:
        UsageError: There are too few samples or classes; shapes, values or parameters cannot be
            used.

    Cost: that of the classifier; for ``sgd`` once more with one λ, on a copy of the rows kept,
    all of which it holds in memory twice.

    Source: Ericsson et al. 2021, arXiv:2011.13377, sec. 3, and their code (logistic; their
    temperatures are fitted to folds of the test set); Wallace et al. 2021, arXiv:2110.10293,
    appendix A.2 (sgd); Guo et al. 2017, arXiv:1706.04599, sec. 4.2 (temperature).

    Example:
        >>> x, y = [[0.0], [0.3], [0.7], [1.0]] * 10, [0, 0, 1, 1] * 9 + [1, 1, 0, 0]
        >>> found = learn_probe(x, y, "unregularised")
        >>> found.classes[found.logits([[-1.0], [3.0]]).argmax(1)]
        array([0, 1])
        >>> found.validation, found.temperature > 0
        (0.875, True)
    """
    features, labels = np.asarray(x), np.asarray(y)
    if protocol not in get_args(Protocol):
        raise UsageError(f"protocol {protocol!r}: use {' or '.join(get_args(Protocol))}")
    wrong = rows is None and len(features) != len(labels)
    if features.ndim != 2 or labels.ndim not in (1, 2) or wrong:
        raise UsageError(f"x is {features.shape} and y {labels.shape}: give (n, d) and (n)")
    order = row_numbers(rows, len(features))
    if len(order) != len(labels):
        raise UsageError(f"{len(order)} rows and {len(labels)} in y: give one for each")
    if labels.ndim == 2 and protocol == "sgd":
        raise UsageError(
            "sgd learns one label a sample, and these have several: use logistic or unregularised"
        )
    if max_memory is not None and protocol == "sgd":
        raise UsageError(
            "max_memory: sgd holds all rows in memory; use logistic or unregularised, or leave it"
            " out"
        )
    held_out, kept = _hold_out(labels, protocol, seed)
    if protocol == "sgd":
        return _learn_by_sgd(_unit_rows(features, order), labels, held_out, kept, seed)
    model = LinearProbe(validation=HELD_OUT[protocol], random_state=seed, max_memory=max_memory)
    if protocol == "unregularised":
        model.set_params(penalties=(0.0,))
    return _learn_logistic(features, labels, order, protocol, model)


def _learn_logistic(
    x: Array, labels: Array, order: Integers, protocol: Protocol, model: LinearProbe
) -> LearnedProbe:
    several = labels.ndim == 2
    columns = _learnable(labels) if several else None
    model.fit(x, labels if columns is None else labels[:, columns], order)
    scores = model.validation_scores_.tolist()
    path = tuple(zip(model.penalties, scores, strict=True)) if protocol == "logistic" else ()
    temperature = None
    if not several:
        logits, wanted = model.held_out_logits_, labels[model.held_out_]
        temperature = _temperature(logits, wanted, model.classes_)
    classes = model.classes_ if columns is None else columns
    return LearnedProbe(
        protocol, model, classes, model.penalty_, model.converged_, path, max(scores), temperature
    )


def _learn_by_sgd(
    units: Floats, labels: Array, held_out: Integers, kept: Integers, seed: int
) -> LearnedProbe:
    model = LinearEvaluation(validation=HELD_OUT["sgd"], random_state=seed)
    model.fit(units, labels)
    scores = model.validation_accuracy_.tolist()
    path = tuple(zip(model.weight_decays, scores, strict=True))
    penalty = float(model.weight_decay_)
    other = LinearEvaluation(
        weight_decays=(penalty,), validation=HELD_OUT["sgd"], random_state=seed
    ).fit(units[kept], labels[kept])
    logits = np.full((len(held_out), len(model.classes_)), -np.inf)
    logits[:, np.searchsorted(model.classes_, other.classes_)] = _logits(other, units, held_out)
    temperature = _temperature(logits, labels[held_out], model.classes_)
    return LearnedProbe("sgd", model, model.classes_, penalty, None, path, max(scores), temperature)


def _temperature(logits: Array, labels: Array, classes: Array) -> float:
    """Return the temperature from the samples of classes that have logits."""
    known = np.isfinite(logits).all(0)
    seen = np.isin(labels, classes[known])
    wanted = np.searchsorted(classes[known], labels[seen])
    return fit_temperature(logits[seen][:, known], wanted)


def _hold_out(labels: Array, protocol: Protocol, seed: int) -> tuple[Integers, Integers]:
    """Return the samples that the learner holds out and keeps, if these are enough to learn."""
    share, n = HELD_OUT[protocol], len(labels)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise UsageError(f"seed is {seed!r}: give a whole number from 0 to 2^32 - 1")
    too_few = UsageError(
        f"{n} samples to train on are too few to hold out {share:.0%} and learn their classes"
        " from the rest: give more"
    )
    try:
        held_out, kept = hold_out(n, share, seed)
    except UsageError:
        raise too_few from None
    asked, known = _occurring(labels[held_out]), _learnable(labels[kept])
    enough = len(known) > 1 or (labels.ndim == 2 and len(known))
    if not enough or not np.isin(asked, known).any() or round(share * len(kept)) < 1:
        raise too_few
    return held_out, kept


def _occurring(labels: Array) -> Array:
    """Return the labels, or the columns, that some sample has."""
    return np.unique(labels) if labels.ndim == 1 else np.flatnonzero(labels.any(0))


def _learnable(labels: Array) -> Array:
    """Return the labels that some sample has, or the columns that are neither all 0 nor all 1."""
    return np.unique(labels) if labels.ndim == 1 else np.flatnonzero(labels.min(0) < labels.max(0))


def _logits(model: Learner, x: Array, order: Integers) -> Array:
    if isinstance(model, LinearProbe):
        return model.logits(x, order)
    parts = (order[start : start + BLOCK] for start in range(0, len(order), BLOCK))
    return np.concatenate([model.logits(unit_rows(x[part]).array) for part in parts])


def _unit_rows(x: Array, order: Integers) -> Floats:
    """Return some rows, each divided by its length, of which only a block is copied before."""
    units = np.empty((len(order), x.shape[1]), np.float32)
    for start in range(0, len(order), BLOCK):
        part = order[start : start + BLOCK]
        units[start : start + BLOCK] = unit_rows(x[part]).array
    return units
