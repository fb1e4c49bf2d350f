"""Models held against each other: the figures of the paper, and what goes with what."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from featkit.analyses.base import Figure, Result
from featkit.analyses.diversity.family import Model
from featkit.analyses.diversity.layers import POOLED
from featkit.ops.rank_correlation import rank_correlation

Row: TypeAlias = dict[str, Any]

_FEW = 8
"""Models up to which a rank correlation is said to stand on few."""

_SAME = 1e-6
"""Relative difference of energies up to which two layers are one: rounding."""

_NAMES = 16
"""Layers whose names a picture has room for."""


def compare_models(result: Result, family: Mapping[str, Model], ends: set[tuple[str, str]]) -> None:
    """Add to the result of the energies what the models have in common.

    Tables: ``family`` (a row a backbone), ``most_diverse`` (for each kind of point, pooling, power
    and backbone the layer of least mean energy, the next one, and how many spreads of both lie
    between; layers that are the same, such as the average of the last map, are named together),
    ``models`` (the energies with what is known of the backbone; ``mean_diversity`` is minus the
    energy of a pair; ``least_error`` marks the epoch with the least error among models that differ
    in epochs only) and, where three models or more have an error, ``correlations`` (Spearman's ρ of
    error and diversity for each layer).

    Args:
        result: With the table ``energy``.
        family: What is known of each backbone.
        ends: Backbone and layer of the vectors that no pooling changes: they stand for themselves
            at every pooling.
    """
    stopped = _least_errors(family)
    models = list(_join(result.tables["energy"], family, ends, stopped))
    result.tables["most_diverse"] = list(_most_diverse(models))
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


def _least_errors(family: Mapping[str, Model]) -> set[str]:
    """Return the backbone of least error in each group that differs in epochs only."""
    groups: dict[object, list[str]] = {}
    for name, model in family.items():
        alike = (model.width, model.depth, model.norm, model.method)
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
) -> Iterator[Row]:
    """Yield the energies with their model, by kind of point, pooling, power and layer."""
    poolings = dict.fromkeys(
        row["pooling"]
        for row in rows
        if row["over"] != "weights" and (row["backbone"], row["layer"]) not in ends
    )
    for row in rows:
        is_end = (row["backbone"], row["layer"]) in ends and row["over"] != "weights"
        for pooling in (poolings or ["none"]) if is_end else [row["pooling"]]:
            model = family[row["backbone"]].known()
            yield {
                "over": row["over"],
                "pooling": pooling,
                "power": row["power"],
                "backbone": row["backbone"],
                "layer": row["tap"] if row["over"] == "weights" else row["layer"],
                "mean_energy": row["mean_energy"],
                "mean_diversity": -row["mean_energy"],
                "spread": row["spread"],
                **model,
                "least_error": row["backbone"] in stopped,
            }


def _grouped(rows: Sequence[Row], *names: str) -> Iterator[tuple[Row, list[Row]]]:
    """Yield the values of columns and the rows that have them, in the order of first appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    for values, members in groups.items():
        yield dict(zip(names, values, strict=True)), members


def _most_diverse(models: Sequence[Row]) -> Iterator[Row]:
    for where, rows in _grouped(models, "over", "pooling", "power", "backbone"):
        ranked = sorted(rows, key=lambda row: row["mean_energy"])
        least = ranked[0]["mean_energy"]
        best = [row for row in ranked if row["mean_energy"] - least <= _SAME * abs(least)]
        if len(best) == len(ranked):
            continue
        following = ranked[len(best)]
        spread = math.hypot(best[0]["spread"] or 0, following["spread"] or 0)
        yield where | {
            "layer": " = ".join(row["layer"] for row in best),
            "mean_energy": least,
            "next": following["layer"],
            "next_mean_energy": following["mean_energy"],
            "spreads_apart": (following["mean_energy"] - least) / spread if spread else None,
        }


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


def _figures(models: Sequence[Row]) -> Iterator[Figure]:
    """Yield the figures of the paper for each kind of point and pooling, at s = 1 if asked."""
    powers = [row["power"] for row in models]
    power = 1 if 1 in powers else next(iter(powers), None)
    drawn = False
    several = len({row["backbone"] for row in models}) > 1
    for shown, rows in _grouped(
        [row for row in models if row["power"] == power], "over", "pooling"
    ):
        where = shown | {"power": power}
        over, pooling = shown["over"], shown["pooling"]
        what = (
            f"{over}, {pooling}, s = {power:g}" if pooling in POOLED else f"{over}, s = {power:g}"
        )
        stem = f"{over}-{pooling}"
        layer, y = "layer", "mean_diversity"
        if len({row["layer"] for row in rows}) <= _NAMES:
            yield Figure(
            f"layers-{stem}", "line", "models", f"Diversity by layer: {what}", layer, y,
            hue="backbone", where=where,
        )  # fmt: skip
        known = [row for row in rows if row["error"] is not None]
        if not several or not known or over == "weights":
            continue
        widths = sorted({row["width"] for row in known} - {None})
        for width in widths if len(widths) > 1 else [None]:
            yield Figure(
                f"error-{stem}" + (f"-w{width:g}" if width else ""), "scatter", "models",
                f"Error against diversity: {what}" + (f", width {width:g}" if width else ""),
                y, "error", hue=layer, where=where | ({"width": width} if width else {}),
            )  # fmt: skip
        if len({row["parameters"] for row in known} - {None}) > 1:
            at = where | {"least_error": True}
            yield Figure(
                f"diversity-parameters-{stem}", "scatter", "models",
                f"Diversity against parameters: {what}", "parameters", y, hue=layer, where=at,
                log_x=True,
            )  # fmt: skip
            if not drawn:  # alike for each kind of point
                last = {"layer": known[-1]["layer"]}
                yield Figure(
                    "error-parameters", "scatter", "models", "Error against parameters",
                    "parameters", "error", hue="backbone", where=at | last, log_x=True,
                )  # fmt: skip
                drawn = True
        if len({row["method"] for row in known} - {None}) > 1:
            last = known[-1]["layer"]
            yield Figure(
                f"method-{stem}", "scatter", "models",
                f"Error against diversity of {last} by method: {what}", y, "error", hue="method",
                where=where | {"layer": last, "least_error": True},
            )  # fmt: skip
