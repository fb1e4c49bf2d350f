"""What is shown of leaves: pictures in rows and columns, a column an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featkit.analyses.base import Figure, Result
from featkit.analyses.saliency.categories import CATEGORIES
from featkit.analyses.saliency.config import COLOURS
from featkit.analyses.saliency.images import DrawnImages
from featkit.analyses.saliency.pictures import Pixels, glow, overlay

MOST_ROWS = 12
"""Leaves in the picture of leaves."""


def add_pictures(
    result: Result,
    images: DrawnImages,
    maps: NDArray[np.float32],
    order: Sequence[int],
    asked: Sequence[int],
) -> None:
    """Add leaves by category before the same images, and some of them over each other.

    Args:
        result: With its table ``leaves``.
        images: Of which the first are shown.
        maps: Of these, (s, m, h, w).
        order: In which they are shown.
        asked: Leaves that are laid over each other; none for the three that are right most often.
    """
    rows = result.tables["leaves"]
    best = sorted(rows, key=lambda row: -row.get("accuracy", 0))
    chosen = list(asked) or [row["leaf"] for row in best[: len(COLOURS)]]
    maps, pixels = maps[order], images.pixels[order].numpy()
    result.arrays |= {"pixels": pixels, "maps": maps}
    result.arrays["shown"] = np.array([images.titles(len(order))[i] for i in order])
    picked = _picked(rows)
    told = [f"leaf {row['leaf']}" + f"\n{row.get('category', '')}".rstrip() for row in picked]
    by_leaf = glow(maps[:, [row["leaf"] for row in picked]]).swapaxes(0, 1)
    add_picture(result, "leaves", "What leaves look at", [pixels, *by_leaf], ["image", *told])
    named = [f"{colour}: leaf {leaf}" for colour, leaf in zip(COLOURS, chosen, strict=False)]
    if len(chosen) > 1:
        over = [pixels, overlay(maps[:, chosen])]
        title = "Leaves, laid over each other"
        add_picture(result, "overlay", title, over, ["image", "\n".join(named)])


def _picked(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return up to 12 leaves, as many of each category as there are, the best of each first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: -row.get("accuracy", 0)):
        groups.setdefault(row.get("category", ""), []).append(row)
    ranked = [(rank, row["leaf"]) for own in groups.values() for rank, row in enumerate(own)]
    kept = {leaf for _, leaf in sorted(ranked)[:MOST_ROWS]}
    ordered = [row for name in ("", *CATEGORIES) for row in groups.get(name, [])]
    return [row for row in ordered if row["leaf"] in kept]


def add_picture(
    result: Result, name: str, title: str, rows: Sequence[Pixels], told: Sequence[str]
) -> None:
    """Add rows of pictures, (s, h, w, 3) each, with what is told of each row."""
    result.arrays |= {f"{name}_picture": np.stack(rows), f"{name}_rows": np.array(told)}
    figure = Figure(
        name, "pictures", f"{name}_picture", title, "", "", labels=f"{name}_rows", columns="shown"
    )
    result.figures.append(figure)
