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
Ious: TypeAlias = NDArray[np.float64]  # (units, concepts), or (units)

CHANCE = 0.95  # share of the units of random networks whose IoU is below chance level
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
        tally: Of units and concepts.
    """

    concepts: Sequence[Concept]
    images: int
    levels: Tensor
    tally: ConceptTally


def report(found: Sequence[Dissected], config: Row, provenance: Row) -> Result:
    """Put together what was found of a network, and of its random twins where there are some.

    Args:
        found: Of the network, and of the twins.
        config: Every option with its value.
        provenance: What else decides the numbers.
    """
    own = found[0]
    result = Result("dissect", config, provenance=provenance)
    ious = own.tally.iou()
    random = [twin.tally.iou().numpy() for twin in found[1:]]
    chance = _chance(own.concepts, np.concatenate(random)) if random else None
    passing = _passing(own.concepts, random, config["min_iou"])
    draws = _draws(own, config["min_iou"])
    units = _units(own, ious, config["min_iou"], chance, draws)
    detectors = [row for row in units if row["detector"]]
    concepts = _concepts(own, ious, detectors)
    if chance is not None:
        _add_chance(concepts, own.concepts, np.concatenate(random), detectors)
    result.tables = {
        "units": units,
        "best_units": sorted(units, key=lambda row: -row["iou"])[:BEST],
        "concepts": concepts,
        "categories": _categories(own.concepts, detectors, chance),
        "detected": _detected(concepts),
    }
    if draws is not None:
        result.tables["bootstrap"] = draws.rows
        result.arrays["draws"] = draws.labels
    result.scalars = {
        "images": own.images,
        "units": len(units),
        "detectors": len(detectors),
        "unique_concepts": len({(row["concept"], row["category"]) for row in detectors}),
    }
    if chance is not None:
        result.scalars |= {
            "chance_iou": chance[ANY],
            **_spread(random),
            **({} if passing is None else {"random_above_category_chance": passing}),
            "detectors_above_chance": sum(row["above_chance"] for row in detectors),
            "detectors_above_category_chance": sum(row["above_category"] for row in detectors),
        }
    result.arrays |= {
        "iou": ious.numpy().astype(np.float32),
        "levels": own.levels.numpy(),
        "concept_names": np.array([concept.name for concept in own.concepts]),
        "iou_curve/network": np.sort(ious.amax(1).numpy())[::-1],
    }
    if random:
        curves = np.sort([twin.max(1) for twin in random])[:, ::-1]
        result.arrays["iou_curve/random weights"] = curves.mean(0)
    result.figures = _figures(config["tap"], bool(detectors), chance is not None)
    result.shown = {
        "best_units": ("unit", "concept", "category", "iou", "active", *_optional(units)),
        "categories": (),
    }
    result.notes += _notes(own, units, chance) + _notes_of_chance(found[1:], passing)
    return result


def _chance(concepts: Sequence[Concept], random: Ious) -> dict[str, float]:
    """Return what most units of random networks stay below, with any concept and by category."""
    levels = {ANY: _level(random.max(1))}
    for category in _order(concepts):
        own = np.array([concept.category == category for concept in concepts])
        levels[category] = _level(random[:, own].max(1))
    return levels


def _spread(random: Sequence[Ious]) -> dict[str, float]:
    """Return the least and the largest chance level of the random networks, each alone."""
    levels = [_level(twin.max(1)) for twin in random]
    if len(levels) < 2:
        return {}
    return {"chance_iou_least": min(levels), "chance_iou_largest": max(levels)}


def _passing(concepts: Sequence[Concept], random: Sequence[Ious], min_iou: float) -> float | None:
    """Return the share of what random networks detect that is above its category's chance.

    Chance is that of the other random networks. A unit's best concept is the best of several
    categories, so that more pass than the 5 % of one category. None where nothing can be said.
    """
    passed = []
    for number, twin in enumerate(random if len(random) > 1 else ()):
        others = [other for i, other in enumerate(random) if i != number]
        levels = _chance(concepts, np.concatenate(others))
        wanted = np.array([levels[concept.category] for concept in concepts])
        best = twin.max(1)
        passed.append((best > wanted[twin.argmax(1)])[best > min_iou])
    every = np.concatenate(passed) if passed else np.zeros(0, bool)
    return float(every.mean()) if len(every) else None


def _level(best: Ious) -> float:
    return float(np.quantile(best, CHANCE))


@dataclass(frozen=True)
class _Draws:
    """Of the bootstrap: each unit's concept in each draw, (draws, c), and detectors by concept."""

    labels: NDArray[np.int32]
    rows: list[Row]


def _draws(own: Dissected, min_iou: float) -> _Draws | None:
    labels, rows = [], []
    for draw, ious in enumerate(own.tally.draws()):
        best, which = ious.max(1)
        labels.append(torch.where(best > 0, which, -1).numpy())
        detected = torch.bincount(which[best > min_iou], minlength=len(own.concepts)).tolist()
        counts = [(own.concepts[i], count) for i, count in enumerate(detected) if count]
        rows += [
            {"draw": draw, "concept": concept.name, "category": concept.category, "units": count}
            for concept, count in counts or [(Concept("", ""), 0)]
        ]
    return _Draws(np.array(labels, dtype=np.int32), rows) if labels else None


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
            "active": int(own.tally.active[unit]) / max(1, own.tally.seen),
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


def _concepts(own: Dissected, ious: Tensor, detectors: Sequence[Row]) -> list[Row]:
    """A row a concept, those with most units first."""
    counts = _counted(detectors)
    best, which = (values.tolist() for values in ious.max(0))
    places = own.tally.places().tolist()
    rows = [
        {
            "concept": concept.name,
            "category": concept.category,
            "units": counts[concept],
            "best_unit": which[i] if best[i] > 0 else None,
            "best_iou": best[i],
            "share_of_places": places[i] / max(1, own.tally.seen),
        }
        for i, concept in enumerate(own.concepts)
    ]
    order = {category: i for i, category in enumerate(_order(own.concepts))}
    return sorted(rows, key=lambda row: (order[row["category"]], -row["units"], -row["best_iou"]))


def _add_chance(
    rows: Sequence[Row], concepts: Sequence[Concept], random: Ious, detectors: Sequence[Row]
) -> None:
    """Say of each concept what random units reach, and how many units are above their category."""
    levels = dict(zip(concepts, np.quantile(random, CHANCE, axis=0).tolist(), strict=True))
    above = _counted([row for row in detectors if row["above_category"]])
    for row in rows:
        concept = Concept(row["concept"], row["category"])
        row |= {"chance_iou": levels[concept], "above_category": above[concept]}


def _counted(detectors: Sequence[Row]) -> Counter[Concept]:
    return Counter(Concept(row["concept"], row["category"]) for row in detectors)


def _detected(concepts: Sequence[Row]) -> list[Row]:
    """The concepts that are detected, under names that tell them apart."""
    found = [row for row in concepts if row["units"]]
    counts = Counter(row["concept"] for row in found)
    return [
        {
            "concept": row["concept"]
            if counts[row["concept"]] == 1
            else f"{row['concept']} ({row['category']})",
            **{name: row[name] for name in ("category", "units", "above_category") if name in row},
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
            rows[-1]["above_category"] = sum(row["above_category"] for row in own)
    return rows


def _order(concepts: Sequence[Concept]) -> list[str]:
    """Return the categories as the thesis has them, others behind."""
    have = dict.fromkeys(concept.category for concept in concepts)
    return [name for name in ORDER if name in have] + [name for name in have if name not in ORDER]


def _figures(tap: str, found: bool, chance: bool) -> list[Figure]:
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
        f"What the units of {tap} detect" + "; pale: not above chance" * chance,
        x="concept",
        y="units",
        hue="category",
        solid="above_category" if chance else None,
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
            f"{below} detectors are not above the IoU that {CHANCE:.0%} of the units of random"
            " networks stay below with concepts of the same category"
        )
    return said


def _notes_of_chance(twins: Sequence[Dissected], passing: float | None) -> list[str]:
    said = []
    if passing is not None:
        said.append(
            f"of what a random network detects, {passing:.0%} is above that level of the other"
            " random networks"
        )
    units = sum(len(twin.levels) for twin in twins)
    silent = sum(int((twin.tally.active == 0).sum()) for twin in twins)
    if silent:
        said.append(
            f"{silent} of {units} units of the random networks are active nowhere, which lowers"
            " chance"
        )
    return said
