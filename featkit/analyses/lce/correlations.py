"""What the components go with: profiles by category, single concepts, scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featkit.analyses.base import Figure, Result
from featkit.ops.correlation import adjust_for_many, correlate, varies

Doubles: TypeAlias = NDArray[np.float64]
Families: TypeAlias = Mapping[str, Mapping[str, Doubles]]
"""Quantities (m) by name, by the family of tests that they belong to."""

_COEFFICIENTS = {"pearson": "Pearson's r", "spearman": "Spearman's ρ"}

_FEW = 8
"""Models up to which a correlation is said to stand on few."""

_LEVEL = 0.05
"""Of the corrected p-values that are marked in figures."""


def correlate_components(
    result: Result, places: Doubles, families: Families, models: list[str], seed: int
) -> None:
    """Add the correlations of every component with every quantity.

    Table ``correlations`` (family, quantity, component, n; for each coefficient its value, p of a
    permutation test, and Holm's p over all tests of that coefficient in the family; None where a
    quantity does not vary or fewer than three models have one), arrays
    ``correlations/FAMILY/COEFFICIENT`` and ``…/significant`` (quantities, components) and
    ``correlations/FAMILY/quantities``, and heat maps of them.

    Args:
        result: It has the array ``components``, their names.
        places: float64 (m, k).
        families: Quantities; NaN for models without one.
        models: Their names, (m).
        seed: Of the permutations.
    """
    rows: list[dict[str, Any]] = []
    for family, quantities in families.items():
        tests = [
            _row(family, name, component, places[:, at], values, seed)
            for name, values in quantities.items()
            for at, component in enumerate(result.arrays["components"].tolist())
        ]
        for coefficient in _COEFFICIENTS:
            _correct(tests, coefficient)
        rows += tests
        result.notes += _notes(family, quantities, models)
        _draw(result, family, list(quantities), tests)
    result.tables["correlations"] = rows
    most = max((row["n"] for row in rows), default=0)
    if 3 <= most <= _FEW:
        result.notes.append(
            f"correlations stand on {most} models: look at the p of Holm before the coefficients"
        )


def _row(
    family: str, name: str, component: str, places: Doubles, values: Doubles, seed: int
) -> dict[str, Any]:
    there = np.isfinite(values)
    x, y = places[there], values[there]
    row: dict[str, Any] = {"family": family, "quantity": name, "component": component, "n": len(x)}
    row |= {f"{c}{what}": None for c in _COEFFICIENTS for what in ("", "_p", "_holm")}
    if len(x) >= 3 and varies(x) and varies(y):
        found = asdict(correlate(x, y, seed))
        row |= {name: value for name, value in found.items() if name in row}
    return row


def _correct(tests: list[dict[str, Any]], coefficient: str) -> None:
    made = [row for row in tests if row[f"{coefficient}_p"] is not None]
    corrected = adjust_for_many([row[f"{coefficient}_p"] for row in made])
    for row, p in zip(made, corrected.tolist(), strict=True):
        row[f"{coefficient}_holm"] = p


def _notes(family: str, quantities: Mapping[str, Doubles], models: list[str]) -> list[str]:
    """Say what is missing, and what cannot be correlated."""
    notes = []
    for name, values in quantities.items():
        there = np.isfinite(values)
        lack = [model for model, known in zip(models, there, strict=True) if not known]
        if lack:
            notes.append(f"{family}: {name} is not known of {', '.join(lack)}")
        if there.sum() < 3:
            notes.append(f"{family}: {name} of {there.sum()} models cannot be correlated: 3 can")
        elif not varies(values[there]):
            notes.append(f"{family}: {name} is the same in all models and correlates with nothing")
    return notes


def _draw(result: Result, family: str, quantities: list[str], tests: list[dict[str, Any]]) -> None:
    start = f"correlations/{family}"
    shape = len(quantities), len(result.arrays["components"])
    result.arrays[f"{start}/quantities"] = np.array(quantities)
    for coefficient, name in _COEFFICIENTS.items():
        values = np.array([row[coefficient] for row in tests], float).reshape(shape)
        corrected = np.array([row[f"{coefficient}_holm"] for row in tests], float).reshape(shape)
        result.arrays[f"{start}/{coefficient}"] = values
        result.arrays[f"{start}/{coefficient}_significant"] = corrected < _LEVEL
        if np.isfinite(values).any():
            result.figures.append(
                Figure(
                    f"correlations-{family}-{coefficient}", "heatmap", f"{start}/{coefficient}",
                    f"{name} of components and {family} (*: p < {_LEVEL:g}, Holm)", "", "",
                    labels=f"{start}/quantities", columns="components", limits=(-1.0, 1.0),
                    mark=f"{start}/{coefficient}_significant",
                )
            )  # fmt: skip
