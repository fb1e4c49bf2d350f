"""The tables of the embedding, and what its components are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featkit.analyses.base import Result
from featkit.analyses.lce.correlations import Families
from featkit.analyses.lce.figures import concept_figure
from featkit.analyses.lce.profiles import Profiles
from featkit.ops.concept_profile import abstract_profiles

Doubles: TypeAlias = NDArray[np.float64]
Row: TypeAlias = dict[str, Any]

COMPONENTS = ("pc1", "pc2", "pc3")


def padded(rows: Doubles) -> list[dict[str, float | None]]:
    """Return the columns pc1, pc2, pc3 of each row, (n, k); None beyond the components there are.

    Example:
        >>> padded(np.array([[2.0, 1.0]]))
        [{'pc1': 2.0, 'pc2': 1.0, 'pc3': None}]
    """
    beyond = [None] * (len(COMPONENTS) - rows.shape[1])
    return [dict(zip(COMPONENTS, [*row, *beyond], strict=True)) for row in rows.tolist()]


def embedding_rows(
    profiles: Profiles, places: Doubles, groups: Sequence[str], spreads: Doubles | None
) -> list[Row]:
    """Return a row a model: its place and group, what it detects, and how sure its place is."""
    unknown = [dict[str, float | None]()] * len(places)
    sds = unknown if spreads is None else padded(spreads)
    columns = zip(
        profiles.models, padded(places), groups, profiles.units.tolist(), profiles.counts, sds,
        strict=True,
    )  # fmt: skip
    return [
        {
            "model": model,
            **place,
            "group": group,
            "units": units,
            "detectors": int(counts.sum()),
            "concepts": int(np.count_nonzero(counts)),
            **{f"{name}_sd": sd for name, sd in spread.items()},
        }
        for model, place, group, units, counts, spread in columns
    ]


def profile_rows(profiles: Profiles) -> list[Row]:
    """Return the units of each model that detect each concept."""
    return [
        {"model": model, "concept": concept.name, "category": concept.category, "units": units}
        for model, row in zip(profiles.models, profiles.counts.tolist(), strict=True)
        for concept, units in zip(profiles.concepts, row, strict=True)
    ]


def abstracted_rows(profiles: Profiles) -> list[Row]:
    """Return units, unique concepts and their ratio of each model in each category."""
    whole = abstract_profiles(profiles.counts, profiles.categories)
    return [
        {
            "model": model,
            "category": category,
            "units": int(units),
            "unique": unique,
            "ratio": unique / units if units else None,
        }
        for model, summed, different in zip(
            profiles.models, whole.units.tolist(), whole.unique.tolist(), strict=True
        )
        for category, units, unique in zip(whole.categories, summed, different, strict=True)
    ]


def loading_rows(profiles: Profiles, loadings: Doubles) -> list[Row]:
    """Return a row a concept: its coefficients, and its units over all models."""
    columns = zip(
        profiles.labels(), profiles.concepts, profiles.counts.sum(0).tolist(), padded(loadings.T),
        strict=True,
    )  # fmt: skip
    return [
        {"label": label, "concept": known.name, "category": known.category, "units": units, **row}
        for label, known, units, row in columns
    ]


def find_families(
    profiles: Profiles, values: Doubles, asked: Sequence[int], scores: Mapping[str, Doubles]
) -> Families:
    """Return the quantities that components are held against, by families of tests.

    Args:
        profiles: The models.
        values: What their profiles hold, units or shares, (m, c).
        asked: Columns of the concepts that were named.
        scores: Numbers of each model.
    """
    whole = abstract_profiles(values, profiles.categories)
    columns = list(enumerate(whole.categories))
    abstracted = {f"units: {name}": whole.units[:, q] for q, name in columns}
    abstracted |= {f"unique: {name}": whole.unique[:, q].astype(float) for q, name in columns}
    labels = profiles.labels()
    families = {
        "profile": abstracted,
        "concepts": {labels[j]: values[:, j] for j in asked},
        "scores": scores,
    }
    return {name: quantities for name, quantities in families.items() if quantities}


def add_concepts(profiles: Profiles, asked: Sequence[int], result: Result) -> None:
    """Add the units of each named concept, against the component that it goes with most.

    Args:
        profiles: The models.
        asked: Columns of the concepts that were named.
        result: It has the tables ``embedding`` and ``correlations``.
    """
    if not asked:
        return
    labels, rows = profiles.labels(), []
    for j in asked:
        concept = profiles.concepts[j]
        found = {
            row["component"]: abs(row["pearson"])
            for row in result.tables["correlations"]
            if (row["family"], row["quantity"]) == ("concepts", labels[j])
            and row["pearson"] is not None
        }
        most = max(found, key=lambda name: found[name]) if found else None
        rows += [
            {
                "concept": concept.name,
                "category": concept.category,
                "model": place["model"],
                "units": units,
                "component": most,
                **{name: place[name] for name in (*COMPONENTS, "group")},
            }
            for place, units in zip(
                result.tables["embedding"], profiles.counts[:, j].tolist(), strict=True
            )
        ]
        if most is not None:
            result.figures.append(concept_figure(concept, labels[j], most))
    result.tables["concepts"] = rows
