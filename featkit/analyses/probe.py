"""How good are features: the accuracy of a linear classifier trained on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

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
    check_several_classes,
    occurring,
    pair_tables,
    split_samples,
)
from featkit.errors import UsageError
from featkit.ops.average_precision import eleven_point_average_precision
from featkit.ops.calibration import Reliability, confidence_at, reliability
from featkit.ops.logistic_rows import held_floats
from featkit.ops.probe_protocols import HELD_OUT, LearnedProbe, Protocol, learn_probe
from featkit.ops.proportions import proportion_interval
from featkit.store.reader import FeatureTable

_SAME = frozenset({"protocol", "n_train", "n_test"})
"""Columns that are the same in every row, which a terminal has no room for."""


@dataclass(frozen=True)
class ProbeConfig:
    """Options of :class:`Probe`."""

    protocol: Protocol = option(
        "logistic",
        "logistic: the best of 45 penalties, features as stored; unregularised: none; sgd: the best"
        " of 5 weight decays, features L2-normalised (arXiv:2110.10293, appendix A.2).",
        "Ericsson et al. 2021, arXiv:2011.13377",
    )
    seed: int = option(0, "Draws the images that are held out.", "as Ericsson et al.")
    max_memory: float | None = option(
        None,
        "GB that learning may take beside labels; what does not fit is read from the store in every"
        " pass. Default: 10 at most. Not for sgd.",
    )
    taps: tuple[str, ...] = option(
        (),
        "Choose one layer a backbone among these by the images held out, and ask TEST of it alone; "
        "all for every layer, maps averaged.",
    )

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.protocol not in get_args(Protocol):
            raise UsageError(f"protocol {self.protocol!r}: use {' or '.join(get_args(Protocol))}")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed is {self.seed}: give a whole number from 0 to 2^32 - 1")
        held_floats(self.max_memory)
        if self.max_memory is not None and self.protocol == "sgd":
            raise UsageError(
                "max_memory: sgd holds all rows; use another protocol, or leave it out"
            )


class Probe:
    """Accuracy of a linear classifier trained on TRAIN.

    The penalty, and the temperature of the probabilities, are chosen on images of TRAIN that are
    held out; TEST is only judged. Rows of unreadable images are left out of both.
    """

    inputs: ClassVar[tuple[Input, ...]] = (
        Input("TRAIN", "tables to train on: STORE, STORE:BACKBONE or STORE:BACKBONE/TAP"),
        Input("TEST", "tables of other images, made by the same backbones"),
    )
    requires: ClassVar[frozenset[str]] = frozenset({"any labels", "vectors"})
    Config: ClassVar[type[Any]] = ProbeConfig

    def __init__(self, config: ProbeConfig | None = None) -> None:
        self.config = config or ProbeConfig()

    def run(self, inputs: Mapping[str, Sequence[FeatureTable]]) -> Result:
        """Train a classifier on every table, and judge it on the other images.

        What is chosen (λ, the temperature, the best table) is chosen on images that are held out of
        TRAIN, as :func:`featkit.ops.probe_protocols.learn_probe` says, before TEST is read.

        Args:
            inputs: ``train`` and ``test``, tables of the same names made by the same backbones.

        Returns:
            Table ``accuracy``: features, protocol, lambda, validation (accuracy on the images held
            out), top1, low, high (its 95 % interval), mean_per_class (over the classes of TEST),
            ece, temperature (not there where it is infinite), ece_scaled (expected calibration
            error, before and after division of the logits by the temperature), n_train, n_test.
            Table ``per_class``: features, class,
            n, accuracy. Table ``path``: features, lambda, log10_lambda, validation. Table
            ``reliability``: probabilities, confidence, accuracy, low, high, n; the bins of the best
            table, and the diagonal. Table ``layers``, where ``taps`` are given: features, backbone,
            score (on the images held out), chosen. Arrays ``confusion/FEATURES`` (classes,
            classes), rows the true class, and ``classes``.

            Scalars ``top1``, ``mean_per_class`` and ``lambda``; of several tables those of the
            ``best`` by validation, and its name. ``classes``, ``unreadable``, ``in_both`` (images
            of TEST whose very content is in TRAIN too).

            Where images can have several labels, there is one classifier a class: ``accuracy`` and
            the scalars have ``map`` (11-point, the mean over the classes of TEST) in place of top1
            to ece_scaled, ``per_class`` has average_precision, validation is a mean average
            precision, and there is neither confusion nor reliability.

        Raises:
            UsageError: The two sides do not belong together, or TRAIN is too small.
        """
        inputs = with_taps(inputs, self.config.taps)
        check_requirements(self.requires, inputs)
        pairs = pair_tables(inputs["train"], inputs["test"])
        split = split_samples(pairs)
        _check(split)
        tables = [train for train, _ in pairs]
        called = dict(zip([t.name for t in tables], short_names(tables), strict=True))
        probes: dict[str, LearnedProbe] = {}

        def learn(table: FeatureTable) -> float:
            """Return the score on the images of TRAIN that are held out."""
            probe = learn_probe(
                table.numpy(),
                split.bank_labels,
                self.config.protocol,
                self.config.seed,
                rows=np.flatnonzero(split.bank_rows),
                max_memory=self.config.max_memory,
            )
            probes[table.name] = probe
            return probe.validation

        tried: list[dict[str, Any]] = []
        if self.config.taps:
            pairs, tried = pick_layers(pairs, learn)
        else:
            for table in tables:
                learn(table)
        learned = {called[train.name]: probes[train.name] for train, _ in pairs}
        best = max(learned, key=lambda name: learned[name].validation)
        result = self._begin(inputs, split)
        for (name, probe), (_, test) in zip(learned.items(), pairs, strict=True):
            if probe.converged is False:
                why = "" if probe.penalty else ": classes that hyperplanes part have none"
                result.notes.append(f"{name}: the optimum was not reached{why}")
            logits = probe.logits(test.numpy(), np.flatnonzero(split.query_rows))
            if split.query_labels.ndim == 1:
                row = _judge(name, probe, logits, split, result, drawn=name == best)
            else:
                row = _judge_several(name, probe, logits, split, result)
            result.tables["accuracy"].append(row)
        told = max(result.tables["accuracy"], key=len)  # one may lack a temperature
        shown = [name for name in told if name not in _SAME]
        result.shown = {"accuracy": tuple(shown)}
        if tried:
            result.tables["layers"] = tried
            result.shown = {"layers": (), **result.shown}
        _conclude(best, result)
        _tell_paths(learned, result)
        return result

    def _begin(self, inputs: Mapping[str, Sequence[FeatureTable]], split: Split) -> Result:
        config, provenance = describe_run(self.config, inputs, ("torch", "scikit-learn", "scipy"))
        provenance |= {
            "seed": self.config.seed,
            "held_out": HELD_OUT[self.config.protocol],
            "features": "L2-normalised" if self.config.protocol == "sgd" else "as stored",
        }
        result = Result("probe", config, provenance=provenance)
        result.tables = {"accuracy": [], "per_class": []}
        result.arrays["classes"] = np.array(split.classes)
        result.scalars = {
            "classes": len(split.classes),
            "unreadable": int((~split.bank_rows).sum() + (~split.query_rows).sum()),
            "in_both": split.in_both,
        }
        asked, known = occurring(split.query_labels), occurring(split.bank_labels)
        strange = [split.classes[c] for c in sorted(asked - known)]
        if strange:
            judged = "always wrong" if split.bank_labels.ndim == 1 else "as good as chance"
            named = ", ".join(strange[:5]) + (", …" if len(strange) > 5 else "")
            result.notes.append(f"TRAIN has no image of class {named}: {judged} there")
        return result


def _check(split: Split) -> None:
    """Refuse, before hours of work, what cannot be learned or judged."""
    if split.leave_one_out:
        raise UsageError(
            "TRAIN and TEST are the same images, and a probe cannot leave one out: "
            "give a store of other images as TEST"
        )
    check_several_classes(split)
    if split.bank_labels.ndim == 2 and not split.query_labels.any():
        raise UsageError("TEST: none of its images has a label: nothing can be judged")
    check_classes(split)


def _judge(
    name: str,
    probe: LearnedProbe,
    logits: NDArray[Any],
    split: Split,
    result: Result,
    *,
    drawn: bool,
) -> dict[str, Any]:
    predicted, count = probe.classes[logits.argmax(1)], len(split.classes)
    confusion = np.zeros((count, count), np.int64)
    np.add.at(confusion, (split.query_labels, predicted), 1)
    result.arrays[f"confusion/{name}"] = confusion
    hits, asked = confusion.diagonal(), confusion.sum(1)
    result.tables["per_class"] += [
        {
            "features": name,
            "class": split.classes[c],
            "n": int(asked[c]),
            "accuracy": hits[c] / asked[c] if asked[c] else None,
        }
        for c in range(count)
    ]
    right = predicted == split.query_labels
    low, high = proportion_interval(int(right.sum()), len(right))
    temperature = probe.temperature
    assert temperature is not None  # noqa: S101 - one label a sample
    if temperature == math.inf:
        result.notes.append(
            f"{name}: classifies the images held out as by chance: their best temperature is "
            "infinite, at which all classes are equally likely; it has no temperature in the table"
        )
    elif not temperature:
        result.notes.append(
            f"{name}: classifies the images held out all of them right: their best temperature is 0"
        )
    bins = {t: reliability(confidence_at(logits, t), right) for t in (1.0, temperature)}
    if drawn:
        result.tables["reliability"] = _diagram(bins)
    finite = {"temperature": temperature} if temperature < math.inf else {}
    return _described(name, probe) | {
        "top1": float(right.mean()),
        "low": low,
        "high": high,
        "mean_per_class": float((hits[asked > 0] / asked[asked > 0]).mean()),
        "ece": bins[1.0].error,
        **finite,
        "ece_scaled": bins[temperature].error,
        "n_train": len(split.bank_labels),
        "n_test": len(split.query_labels),
    }


def _judge_several(
    name: str, probe: LearnedProbe, logits: NDArray[Any], split: Split, result: Result
) -> dict[str, Any]:
    scores = np.zeros(split.query_labels.shape)  # a class that was not learned ranks no image above
    scores[:, probe.classes] = logits
    found = eleven_point_average_precision(scores, split.query_labels)
    asked = split.query_labels.sum(0, dtype=np.int64)
    result.tables["per_class"] += [
        {
            "features": name,
            "class": split.classes[c],
            "n": int(asked[c]),
            "average_precision": found[c] if asked[c] else None,
        }
        for c in range(len(asked))
    ]
    return _described(name, probe) | {
        "map": float(found[asked > 0].mean()),
        "n_train": len(split.bank_labels),
        "n_test": len(split.query_labels),
    }


def _described(name: str, probe: LearnedProbe) -> dict[str, Any]:
    return {
        "features": name,
        "protocol": probe.protocol,
        "lambda": probe.penalty,
        "validation": probe.validation,
    }


def _conclude(best: str, result: Result) -> None:
    """Put the best table's numbers among the scalars, and draw them."""
    rows = result.tables["accuracy"]
    row = next(row for row in rows if row["features"] == best)
    told = {key: row[key] for key in ("top1", "mean_per_class", "map", "lambda") if key in row}
    result.scalars = ({"best": best} if len(rows) > 1 else {}) | told | result.scalars
    title = f"Linear probe, {row['protocol']}"
    if "map" in row:
        result.figures.append(Figure("accuracy", "bar", "accuracy", title, "features", "map"))
        return
    interval = ("low", "high")
    result.figures += [
        Figure("accuracy", "bar", "accuracy", title, "features", "top1", interval=interval),
        Figure(
            "confusion",
            "heatmap",
            f"confusion/{best}",
            f"Confusion of {best}",
            "predicted",
            "true",
            labels="classes",
        ),
        Figure(
            "reliability",
            "line",
            "reliability",
            f"Reliability of {best}",
            "confidence",
            "accuracy",
            hue="probabilities",
            interval=interval,
        ),
    ]


def _tell_paths(learned: Mapping[str, LearnedProbe], result: Result) -> None:
    rows = [
        {
            "features": name,
            "lambda": penalty,
            "log10_lambda": math.log10(penalty),
            "validation": score,
        }
        for name, probe in learned.items()
        for penalty, score in probe.path
    ]
    if rows:
        title = "Score on the images held out, by penalty"
        result.tables["path"] = rows
        result.figures.append(
            Figure("path", "line", "path", title, "log10_lambda", "validation", hue="features")
        )


def _diagram(bins: Mapping[float, Reliability]) -> list[dict[str, Any]]:
    """Return the rows of a reliability diagram: the bins by temperature, and the diagonal."""
    rows: list[dict[str, Any]] = []
    for temperature, found in bins.items():
        for n, confidence, right in zip(found.n, found.confidence, found.right, strict=True):
            low, high = proportion_interval(int(right), int(n))
            rows.append(
                {
                    "probabilities": f"T = {temperature:.3g}",
                    "confidence": float(confidence),
                    "accuracy": right / n,
                    "low": low,
                    "high": high,
                    "n": int(n),
                }
            )
    ends = {"low": None, "high": None, "n": None}
    return rows + [
        {"probabilities": "calibrated", "confidence": end, "accuracy": end} | ends
        for end in (0.0, 1.0)
    ]
