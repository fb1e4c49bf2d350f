"""Models held against each other: the figures of the paper, and what goes with what."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featkit.analyses.base import Figure, Result
from featkit.analyses.diversity.family import Model
from featkit.ops.rank_correlation import rank_correlation

Row: TypeAlias = dict[str, Any]

_FEW = 8
"""Models up to which a rank correlation is said to stand on few."""

_SAME = 1e-6
"""Relative difference of energies up to which two layers are one: rounding."""

_APART = 2.0
"""Standard deviations of their difference from which two layers are told apart."""

_TRAINING = ("width", "depth", "norm", "method")
"""Columns that the models of one training have in common: they differ in epochs only."""

_SPREADS = {"mean_diversity": "spread"}
"""What is drawn with its spread over the repeats."""

_NAMES = 16
"""Names that a picture has room for, of layers or beside points."""


def compare_models(result: Result, family: Mapping[str, Model], ends: set[tuple[str, str]]) -> None:
    """Add to the result of the energies what the models have in common.

    Tables: ``family`` (a row a backbone), ``most_diverse`` (for each kind of point, pooling, power
    and backbone the layer of least mean energy, the next one, and ``spreads_apart``, the mean of
    their difference over the repeats in units of its :func:`corrected_spread`: a repeat is the same
    images for both, and what it does to both alike is no uncertainty of which is ahead; ``apart``
    where that is 2 or more: of two layers that are not, neither is said to be the more diverse;
    both None where there is no spread; layers that are the same, such as the average of the last
    map, are named together),
    ``models`` (the energies with what is known of the backbone; ``mean_diversity`` is minus the
    energy of a pair; ``same_as`` is an earlier layer that this one equals in every backbone;
    ``least_test_error`` marks the epoch with the least error among models that differ in epochs
    only: early stopping as in the paper, chosen by the very error that is drawn, on the test
    images, so that it is better than that of an epoch chosen without them) and, where three models
    or more have an error, ``correlations`` (Spearman's ρ of error and diversity for each layer).

    Args:
        result: With the table ``energy``, and the energies of the repeats in ``arrays``.
        family: What is known of each backbone.
        ends: Backbone and layer of the vectors that no pooling changes: they stand for themselves
            at every pooling.
    """
    stopped = _least_errors(family)
    joined = list(_join(result.tables["energy"], family, ends, stopped))
    models = [model for model, _ in joined]
    _mark_copies(models)
    drawn = [
        model | {"repeats": result.arrays.get(repeats_name(row)), "share": row["share"]}
        for model, row in joined
    ]
    result.tables["most_diverse"] = list(_most_diverse(drawn))
    result.tables["family"] = [{"backbone": name} | m.known() for name, m in family.items()]
    result.tables["models"] = models
    correlations = list(_correlations(models))
    if correlations:
        result.tables["correlations"] = correlations
        most = max(row["n"] for row in correlations)
        if most <= _FEW:
            result.notes.append(
                f"rank correlations stand on {most} models: look at low, high and p before rho"
            )
    result.figures += _figures(models)


def repeats_name(row: Row) -> str:
    """Return the name of the array of energies in each repeat, of a row of the table ``energy``.

    Example:
        >>> row = {"backbone": "net", "tap": "conv1", "pooling": "avg", "over": "units", "power": 1}
        >>> repeats_name(row)
        'mean_energy/net/conv1/avg/units/1'
    """
    where = (row["backbone"], row["tap"], row["pooling"], row["over"])
    return "/".join(("mean_energy", *where, f"{row['power']:g}"))


def corrected_spread(values: NDArray[np.float64], share: float) -> float:
    """Return the standard deviation that draws from images without end would have.

    ``s / √(1 - share)``: draws without replacement from the same images have some of them in
    common, and are the closer the more each takes. What is drawn is to first order a mean over
    images (energies of pairs by Hoeffding's projection), and its variance has the factor 1 - share.

    Args:
        values: (r), one of each draw, two or more.
        share: Of the images in each draw, below 1.

    Source: Cochran 1977, Sampling Techniques, 3rd ed., sec. 2.6, the finite population correction.

    Example:
        >>> corrected_spread(np.array([1.0, 3.0, 5.0]), share=0.75)
        4.0
    """
    return float(values.std(ddof=1)) / math.sqrt(1 - share)


def _least_errors(family: Mapping[str, Model]) -> set[str]:
    """Return the backbone of least error in each group that differs in epochs only."""
    groups: dict[object, list[str]] = {}
    for name, model in family.items():
        alike = tuple(model.known()[column] for column in _TRAINING)
        # without epochs, models are not stages of one training
        groups.setdefault(alike if model.epochs is not None else name, []).append(name)
    errors = {name: model.error for name, model in family.items() if model.error is not None}
    known = ([name for name in names if name in errors] for names in groups.values())
    return {min(names, key=lambda name: errors[name]) for names in known if names}


def _join(
    rows: Sequence[Row],
    family: Mapping[str, Model],
    ends: set[tuple[str, str]],
    stopped: set[str],
) -> Iterator[tuple[Row, Row]]:
    """Yield the energies with their model, and the row that they are from.

    The end of a network stands at every pooling; one that itself was pooled in several ways stands
    at its own only, so that no layer comes twice. Weights stand for their layer, such as ``head``
    whatever a network calls it; those of a layer of several modules for these.
    """
    views: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        if row["over"] != "weights":
            views.setdefault((row["backbone"], row["layer"]), set()).add(row["pooling"])
    ends = {end for end in ends if len(views.get(end, ())) == 1}
    modules: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        if row["over"] == "weights":
            modules.setdefault((row["backbone"], row["layer"]), set()).add(row["tap"])
    blocks = {layer for (_, layer), own in modules.items() if len(own) > 1}
    poolings = dict.fromkeys(
        row["pooling"]
        for row in rows
        if row["over"] != "weights" and (row["backbone"], row["layer"]) not in ends
    )
    for row in rows:
        is_end = (row["backbone"], row["layer"]) in ends and row["over"] != "weights"
        parted = blocks if row["over"] == "weights" else ()
        for pooling in (poolings or ["none"]) if is_end else [row["pooling"]]:
            model = family[row["backbone"]].known()
            joined = {
                "over": row["over"],
                "pooling": pooling,
                "power": row["power"],
                "backbone": row["backbone"],
                "layer": row["tap"] if row["layer"] in parted else row["layer"],
                "mean_energy": row["mean_energy"],
                "mean_diversity": -row["mean_energy"],
                "spread": row["spread"],
                **model,
                "least_test_error": row["backbone"] in stopped,
            }
            yield joined, row


def _mark_copies(models: Sequence[Row]) -> None:
    """Name the first layer that another one equals in each backbone that has it: no news."""
    for _, rows in _grouped(models, "over", "pooling", "power"):
        energies = {
            where["layer"]: {row["backbone"]: row["mean_energy"] for row in members}
            for where, members in _grouped(rows, "layer")
        }
        firsts: dict[str, str | None] = {}
        for layer, own in energies.items():
            alike = (first for first in firsts if _are_same(own, energies[first]))
            firsts[layer] = next((first for first in alike if firsts[first] is None), None)
        for row in rows:
            row["same_as"] = firsts[row["layer"]]


def _are_same(own: Mapping[str, float], others: Mapping[str, float]) -> bool:
    """Return whether a layer has the energy of another in each backbone."""
    return all(
        name in others and abs(others[name] - energy) <= _SAME * abs(energy)
        for name, energy in own.items()
    )


def _grouped(rows: Sequence[Row], *names: str) -> Iterator[tuple[Row, list[Row]]]:
    """Yield the values of columns and the rows that have them, in the order of first appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    for values, members in groups.items():
        yield dict(zip(names, values, strict=True)), members


def _most_diverse(drawn: Sequence[Row]) -> Iterator[Row]:
    for where, rows in _grouped(drawn, "over", "pooling", "power", "backbone"):
        ranked = sorted(rows, key=lambda row: row["mean_energy"])
        best = _first(ranked)
        following = _first(ranked[len(best) :])
        if not following:
            continue
        apart = _spreads_apart(best[0], following[0])
        yield where | {
            "layer": " = ".join(row["layer"] for row in best),
            "mean_energy": best[0]["mean_energy"],
            "next": " = ".join(row["layer"] for row in following),
            "next_mean_energy": following[0]["mean_energy"],
            "spreads_apart": apart,
            "apart": None if apart is None else apart >= _APART,
        }


def _first(ranked: Sequence[Row]) -> list[Row]:
    """Return the first of rows in the order of their energies, and those that are the same."""
    least = ranked[0]["mean_energy"] if ranked else 0.0
    return [row for row in ranked if row["mean_energy"] - least <= _SAME * abs(least)]


def _spreads_apart(best: Row, following: Row) -> float | None:
    """Return the mean difference in units of its spread, None where it has none."""
    if best["repeats"] is None or following["repeats"] is None:
        return None
    differences = following["repeats"] - best["repeats"]
    spread = corrected_spread(differences, best["share"])
    return float(differences.mean()) / spread if spread else None


def _correlations(models: Sequence[Row]) -> Iterator[Row]:
    for where, rows in _grouped(models, "over", "pooling", "power", "layer"):
        known = [row for row in rows if row["error"] is not None]
        errors, diversities = ([row[name] for row in known] for name in ("error", "mean_diversity"))
        if len(set(errors)) < 2 or len(set(diversities)) < 2 or len(known) < 3:
            continue
        found = rank_correlation(diversities, errors)
        yield where | {
            "n": found.n,
            "rho": found.rho,
            "low": found.low,
            "high": found.high,
            "p": found.p,
        }


def _trainings(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield what the models of each training with several epochs, and no others, have in common."""
    stages = [row for row in rows if row["epochs"] is not None]
    differing = [name for name in _TRAINING if len({row[name] for row in stages}) > 1]
    for training, members in _grouped(stages, *_TRAINING):
        if len({row["epochs"] for row in members}) > 1:
            yield {name: training[name] for name in differing}


def _named(training: Row) -> str:
    """Return what tells a training from the others: ``width 2, SimCLR``."""
    said = []
    for name, value in training.items():
        number = f"{name} {value:g}" if isinstance(value, int | float) else value
        said.append(number or f"no {name}")
    return ", ".join(said)


def _only_size(rows: Sequence[Row]) -> str | None:
    """Return the width or depth, if models differ in it and in nothing else."""
    values = {name: {row[name] for row in rows} for name in _TRAINING}
    differing = [name for name in _TRAINING if len(values[name]) > 1]
    is_size = differing in (["width"], ["depth"]) and None not in values[differing[0]]
    return differing[0] if is_size else None


def _figures(models: Sequence[Row]) -> Iterator[Figure]:
    """Yield the figures of the paper for each kind of point and pooling, at s = 1 if asked."""
    powers = [row["power"] for row in models]
    power = 1 if 1 in powers else next(iter(powers), None)
    drawn = [row for row in models if row["power"] == power and row["same_as"] is None]
    for where, rows in _grouped(drawn, "over", "pooling", "power", "same_as"):
        over, pooling = where["over"], where["pooling"]
        seen_as = [] if pooling in ("none", "cls") else [pooling]
        what = ", ".join([over, *seen_as, f"s = {power:g}"])
        stem = f"{over}-{pooling}"
        known = [row for row in rows if row["error"] is not None]
        trainings = list(_trainings(known))
        if len({row["layer"] for row in rows}) <= _NAMES:
            yield Figure(
                f"layers-{stem}", "line", "models", f"Diversity by layer: {what}", "layer",
                "mean_diversity", hue="backbone", spreads=_SPREADS,
                where=where | ({"least_test_error": True} if trainings else {}),
            )  # fmt: skip
        if over == "weights":
            continue
        for training in trainings:
            name = _named(training)
            yield Figure(
                f"error-{stem}-" + (re.sub(r"[^\w.]+", "-", name) or "epochs"), "scatter", "models",
                f"Error against diversity: {what}" + (f", {name}" if name else ""),
                "mean_diversity", "error", hue="layer", where=where | training, spreads=_SPREADS,
                path="epochs", mark="least_test_error",
            )  # fmt: skip
        stopped = [row for row in known if row["least_test_error"]]
        if len({row["backbone"] for row in stopped}) > 1:
            yield from _stopped_figures(stopped, where | {"least_test_error": True}, what, stem)
    yield from _error_by_parameters(drawn)


def _stopped_figures(rows: Sequence[Row], where: Row, what: str, stem: str) -> Iterator[Figure]:
    """Yield the figures of models at the epoch of least test error."""
    y = "mean_diversity"
    points = {(row["backbone"], row["layer"]) for row in rows}
    names = "backbone" if len(points) <= _NAMES else None
    yield Figure(
        f"error-{stem}", "scatter", "models", f"Error against diversity: {what}", y, "error",
        hue="layer", where=where, spreads=_SPREADS, path=_only_size(rows), names=names,
    )  # fmt: skip
    if len({row["parameters"] for row in rows} - {None}) > 1:
        yield Figure(
            f"diversity-parameters-{stem}", "scatter", "models",
            f"Diversity against parameters: {what}", "parameters", y, hue="layer", where=where,
            log_x=True, spreads=_SPREADS, names=names,
        )  # fmt: skip
    last = rows[-1]["layer"]
    for of_width, members in _grouped(rows, "width"):
        if len({row["method"] for row in members} - {None}) < 2:
            continue
        name = _named(of_width) if len({row["width"] for row in rows}) > 1 else ""
        yield Figure(
            f"method-{stem}" + (f"-{name}" if name else "").replace(" ", "-"), "scatter", "models",
            f"Error against diversity of {last} by method: {what}" + (f", {name}" if name else ""),
            y, "error", hue="method", where=where | of_width | {"layer": last}, spreads=_SPREADS,
            names="backbone",
        )  # fmt: skip


def _error_by_parameters(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yield the figure that is alike for each kind of point."""
    stopped = [row for row in rows if row["least_test_error"] and row["over"] != "weights"]
    if len({row["parameters"] for row in stopped} - {None}) > 1:
        one = {name: stopped[-1][name] for name in ("over", "pooling", "power", "layer")}
        yield Figure(
            "error-parameters", "scatter", "models", "Error against parameters", "parameters",
            "error", where=one | {"least_test_error": True}, log_x=True, names="backbone",
        )  # fmt: skip
