"""What a dissection found, in tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featkit.analyses.base import Figure, Result
from featkit.data.concepts.base import Concept
from featkit.ops.concept_tally import ConceptTally

Row: TypeAlias = dict[str, Any]

CHANCE = 0.95  # share of the units of a random network whose IoU is below chance level
ORDER = ("object", "part", "material", "color", "texture")
ANY = ""  # whatever the category
BEST = 5  # units that the terminal and the thesis show


@dataclass(frozen=True)
class Dissected:
    """Counts of one network.

    Attributes:
        concepts: Names and categories, k.
        images: How many were read.
        levels: Of each unit, float32 (c).
        active: Places at which each unit was active, int64 (c).
        tally: Of units and concepts.
    """

    concepts: Sequence[Concept]
    images: int
    levels: Tensor
    active: Tensor
    tally: ConceptTally


def report(found: Sequence[Dissected], config: Row, provenance: Row) -> Result:
    """Put together what was found of a network, and of its random twin where there is one.

    Args:
        found: Of the network, and of the twin.
        config: Every option with its value.
        provenance: What else decides the numbers.
    """
    own = found[0]
    result = Result("dissect", config, provenance=provenance)
    ious = own.tally.iou()
    random = found[1].tally.iou() if len(found) > 1 else None
    chance = None if random is None else _chance(own.concepts, random)
    draws = _draws(own, config["min_iou"])
    units = _units(own, ious, config["min_iou"], chance, draws)
    detectors = [row for row in units if row["detector"]]
    concepts = _concepts(own, ious, detectors, random)
    result.tables = {
        "units": units,
        "best_units": sorted(units, key=lambda row: -row["iou"])[:BEST],
        "concepts": concepts,
        "categories": _categories(own.concepts, detectors, chance),
        "detected": _detected(concepts),
    }
    if draws is not None:
        result.tables["bootstrap"] = draws.rows
    result.scalars = {
        "images": own.images,
        "units": len(units),
        "detectors": len(detectors),
        "unique_concepts": len({(row["concept"], row["category"]) for row in detectors}),
    }
    if chance is not None:
        result.scalars |= {
            "chance_iou": chance[ANY],
            "detectors_above_chance": sum(row["above_chance"] for row in detectors),
            "detectors_above_category_chance": sum(row["above_category"] for row in detectors),
        }
    result.arrays |= {
        "iou": ious.numpy().astype(np.float32),
        "levels": own.levels.numpy(),
        "concept_names": np.array([concept.name for concept in own.concepts]),
        "iou_curve/network": np.sort(ious.amax(1).numpy())[::-1],
    }
    if random is not None:
        result.arrays["iou_curve/random weights"] = np.sort(random.amax(1).numpy())[::-1]
    result.figures = _figures(config["tap"], bool(detectors))
    result.shown = {
        "best_units": ("unit", "concept", "category", "iou", "active", *_optional(units)),
        "categories": (),
    }
    result.notes += _notes(own, units, chance)
    return result


def _chance(concepts: Sequence[Concept], random: Tensor) -> dict[str, float]:
    """Return what most units of a random network stay below, with any concept and by category."""
    levels = {ANY: float(random.amax(1).quantile(CHANCE))}
    for category in _order(concepts):
        own = torch.tensor([concept.category == category for concept in concepts])
        levels[category] = float(random[:, own].amax(1).quantile(CHANCE))
    return levels


@dataclass(frozen=True)
class _Draws:
    """Of the bootstrap: the label of each unit in each draw, (draws, c), and rows of detectors."""

    labels: NDArray[np.int64]
    rows: list[Row]


def _draws(own: Dissected, min_iou: float) -> _Draws | None:
    labels, rows = [], []
    for draw, ious in enumerate(own.tally.draws()):
        best, which = ious.max(1)
        labels.append(torch.where(best > 0, which, -1).numpy())
        detecting = torch.nonzero(best > min_iou).squeeze(1).tolist()
        for unit in detecting or [int(best.argmax())]:
            concept = own.concepts[int(which[unit])]
            rows.append(
                {
                    "draw": draw,
                    "unit": unit,
                    "concept": concept.name,
                    "category": concept.category,
                    "iou": round(float(best[unit]), 6),
                    "detector": bool(best[unit] > min_iou),
                }
            )
    return _Draws(np.array(labels), rows) if labels else None


def _units(
    own: Dissected,
    ious: Tensor,
    min_iou: float,
    chance: Mapping[str, float] | None,
    draws: _Draws | None,
) -> list[Row]:
    rows = []
    for unit, (iou, which) in enumerate(zip(*(v.tolist() for v in ious.max(1)), strict=True)):
        concept = own.concepts[which] if iou > 0 else Concept("", "")
        row = {
            "unit": unit,
            "concept": concept.name,
            "category": concept.category,
            "iou": iou,
            "threshold": float(own.levels[unit]),
            "active": int(own.active[unit]) / max(1, own.tally.seen),
            "detector": iou > min_iou,
        }
        if draws is not None:
            row["confidence"] = float((draws.labels[:, unit] == which).mean()) if iou > 0 else None
        if chance is not None:
            row["above_chance"] = iou > chance[ANY]
            row["above_category"] = iou > chance.get(concept.category, 0.0)
        rows.append(row)
    return rows


def _optional(units: Sequence[Row]) -> tuple[str, ...]:
    names = ("confidence", "above_chance", "above_category")
    return tuple(name for name in names if name in units[0])


def _concepts(
    own: Dissected, ious: Tensor, detectors: Sequence[Row], random: Tensor | None
) -> list[Row]:
    """A row a concept, those with most units first."""
    chance = None if random is None else random.quantile(CHANCE, dim=0).tolist()
    counts = Counter((row["concept"], row["category"]) for row in detectors)
    above = Counter(
        (row["concept"], row["category"]) for row in detectors if row.get("above_category")
    )
    best, which = (values.tolist() for values in ious.max(0))
    places = own.tally.places().tolist()
    rows = [
        {
            "concept": concept.name,
            "category": concept.category,
            "units": counts[concept.name, concept.category],
            "best_unit": which[i] if best[i] > 0 else None,
            "best_iou": best[i],
            "share_of_places": places[i] / max(1, own.tally.seen),
            **(
                {}
                if chance is None
                else {
                    "chance_iou": chance[i],
                    "above_chance": above[concept.name, concept.category],
                }
            ),
        }
        for i, concept in enumerate(own.concepts)
    ]
    order = {category: i for i, category in enumerate(_order(own.concepts))}
    return sorted(rows, key=lambda row: (order[row["category"]], -row["units"], -row["best_iou"]))


def _detected(concepts: Sequence[Row]) -> list[Row]:
    """The concepts that are detected, under names that tell them apart."""
    found = [row for row in concepts if row["units"]]
    counts = Counter(row["concept"] for row in found)
    return [
        {
            "concept": row["concept"]
            if counts[row["concept"]] == 1
            else f"{row['concept']} ({row['category']})",
            "category": row["category"],
            "units": row["units"],
        }
        for row in found
    ]


def _categories(
    concepts: Sequence[Concept], detectors: Sequence[Row], chance: Mapping[str, float] | None
) -> list[Row]:
    """Units, concepts found and their ratio by category (thesis, Fig. 3.4)."""
    rows = []
    for category in _order(concepts):
        own = [row for row in detectors if row["category"] == category]
        unique = len({row["concept"] for row in own})
        rows.append(
            {
                "category": category,
                "units": len(own),
                "unique": unique,
                "unique_over_units": unique / len(own) if own else None,
                "of_concepts": sum(concept.category == category for concept in concepts),
            }
        )
        if chance is not None:
            rows[-1]["chance_iou"] = chance[category]
            rows[-1]["above_chance"] = sum(row["above_category"] for row in own)
    return rows


def _order(concepts: Sequence[Concept]) -> list[str]:
    """Return the categories as the thesis has them, others behind."""
    have = dict.fromkeys(concept.category for concept in concepts)
    return [name for name in ORDER if name in have] + [name for name in have if name not in ORDER]


def _figures(tap: str, found: bool) -> list[Figure]:
    curves = Figure(
        "iou",
        "curves",
        "iou_curve",
        f"IoU of the units of {tap}, largest first",
        x="rank",
        y="IoU with the best concept",
    )
    bars = Figure(
        "concepts",
        "bar",
        "detected",
        f"What the units of {tap} detect",
        x="concept",
        y="units",
        hue="category",
    )
    return [bars, curves] if found else [curves]


def _notes(own: Dissected, units: Sequence[Row], chance: Mapping[str, float] | None) -> list[str]:
    said = []
    silent = sum(not row["active"] for row in units)
    if silent:
        said.append(f"{silent} of {len(units)} units are active nowhere: their IoU is 0")
    places = own.tally.places()
    absent = int((places == 0).sum())
    if absent:
        said.append(f"{absent} of {len(places)} concepts occur in no image: their IoU is 0")
    below = sum(row["detector"] and not row.get("above_category", True) for row in units)
    if chance is not None and below:
        said.append(
            f"{below} detectors are not above the IoU that {CHANCE:.0%} of the units of a random"
            " network stay below with concepts of the same category"
        )
    return said
