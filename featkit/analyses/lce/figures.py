"""The pictures of the thesis: figures 3.1, 3.4, 3.6 and A.1."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

from featkit.analyses.base import Figure
from featkit.analyses.lce.profiles import Concept

_LARGEST = 20
"""Loadings that a picture has room for."""


def embedding_figures(shares: Sequence[float], spreads: bool) -> Iterator[Figure]:
    """Yield the models along every two components, and along all three.

    Args:
        shares: Of the variance, that each component explains.
        spreads: Whether the table has standard deviations.
    """
    names = [f"pc{i + 1}" for i in range(len(shares))]
    told = [f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True)]
    if len(names) == 3:
        x, y, z = names
        yield Figure(
            "embedding-3d", "scatter3d", "embedding", "Learned concepts: " + ", ".join(told), x, y,
            z=z, hue="group", names="model",
        )  # fmt: skip
    for i, j in itertools.combinations(range(len(names)), 2):
        x, y = names[i], names[j]
        yield Figure(
            f"embedding-{x}-{y}", "scatter", "embedding",
            f"Learned concepts: {told[i]}, {told[j]} of the variance", x, y,
            hue="group", names="model",
            spreads={name: f"{name}_sd" for name in (x, y)} if spreads else None,
        )  # fmt: skip


def loading_figures(count: int) -> Iterator[Figure]:
    """Yield the largest coefficients of each of so many components."""
    for i in range(1, count + 1):
        yield Figure(
            f"loadings-pc{i}", "bar", "loadings", f"Loadings of pc{i}, the {_LARGEST} largest",
            "label", f"pc{i}", hue="category", most=_LARGEST,
        )  # fmt: skip


def abstracted_figures() -> Iterator[Figure]:
    """Yield the profiles by category."""
    for column, title in (
        ("units", "Units that detect a concept, by category"),
        ("unique", "Unique concepts, by category"),
        ("ratio", "Unique concepts a unit that detects one, by category"),
    ):
        yield Figure(
            f"abstracted-{column}", "bar", "abstracted", title, "model", column, hue="category"
        )


def concept_figure(concept: Concept, label: str, component: str) -> Figure:
    """Return the units of a concept against a component."""
    stem = re.sub(r"[^\w.]+", "-", label).strip("-")
    title = f"Units of {label} against {component}"
    return Figure(
        f"concept-{stem}", "scatter", "concepts", title, component, "units", hue="group",
        names="model",
        where={"concept": concept.name, "category": concept.category},
    )  # fmt: skip
