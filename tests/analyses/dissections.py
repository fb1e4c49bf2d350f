"""Results of dissections, written from what their format says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Detected = Mapping[str, int]
"""Units of a model by ``category/concept``."""


def unit_rows(detected: Detected, units: int) -> list[dict[str, Any]]:
    """One row a unit; those that detect nothing come first."""
    names = [name for name, count in detected.items() for _ in range(count)]
    silent = units - len(names)
    rows = []
    for unit in range(units):
        category, concept = names[unit - silent].split("/") if unit >= silent else ("color", "red")
        rows.append(
            {
                "unit": unit,
                "concept": concept,
                "category": category,
                "iou": 0.01 if unit < silent else 0.05 + unit / 10_000,
                "threshold": 1.5,
                "detector": unit >= silent,
            }
        )
    return rows


def write_dissection(
    folder: Path,
    detected: Detected,
    *,
    backbone: str | None = None,
    weights: str | None = None,
    units: int = 64,
    images: int = 101,
    draws: list[Detected] | None = None,
    **config: Any,
) -> Path:
    """Write the result of a backbone, called like its folder if it has no name of its own."""
    name = backbone or folder.name
    tables = {"units": unit_rows(detected, units)}
    if draws is not None:
        tables["bootstrap"] = [
            {
                "draw": number,
                "concept": name.partition("/")[2],
                "category": name.partition("/")[0],
                "units": count,
            }
            for number, draw in enumerate(draws)
            for name, count in (draw or {"": 0}).items()
        ]
    content = {
        "analysis": "dissect",
        "featkit": "0.1.0",
        "config": {"concepts": ["masks:labels", "color"], "tap": "layer4", "variant": "dissect"}
        | config,
        "scalars": {"units": units, "images": images},
        "tables": tables,
        "provenance": {
            "backbone": {
                "name": name,
                "architecture": f"cifar_{name}",
                "weights": weights or f"weights of {name}",
            }
        },
        "notes": [],
    }
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(content))
    return folder


MODELS: dict[str, Detected] = {
    "ant": {
        "object/car": 9,
        "object/road": 3,
        "part/car-top": 4,
        "material/food": 6,
        "color/red": 2,
    },
    "bee": {
        "object/car": 1,
        "object/road": 8,
        "part/car-top": 1,
        "part/car-left": 2,
        "color/red": 5,
    },
    "cow": {"object/sky": 6, "object/food": 2, "material/food": 9, "color/red": 3, "color/blue": 1},
    "dog": {"object/car": 5, "object/sky": 7, "part/car-left": 8, "material/food": 1},
    "elk": {"object/road": 2, "part/car-top": 6, "part/car-left": 1, "material/wood": 4},
    "fox": {},
}
CONCEPTS = [
    "object/car", "object/food", "object/road", "object/sky", "part/car-left", "part/car-top",
    "material/food", "material/wood", "color/blue", "color/red",
]  # fmt: skip
SIZES = {"object": 4, "part": 2, "material": 2, "color": 2}


def write_models(root: Path, models: Mapping[str, Detected] = MODELS, **options: Any) -> list[Path]:
    """Write the results of several models side by side."""
    return [write_dissection(root / name, found, **options) for name, found in models.items()]
