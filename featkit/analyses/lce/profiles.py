"""From dissected models to one matrix of models and concepts."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featkit.analyses.base import Result
from featkit.errors import UsageError
from featkit.registry import did_you_mean

Row: TypeAlias = Mapping[str, Any]
Counts: TypeAlias = NDArray[np.int64]

_ORDER = ("object", "part", "material", "color", "texture")
"""Of categories, as they are listed; others come after them."""

_AGREE = ("variant", "parts", "quantile", "threshold", "min_iou", "iou_threshold")
"""Options of the dissection that decide what a detector is."""

_OWN = ("tap",)
"""Options in which models are meant to differ."""


class Concept(NamedTuple):
    """A concept; the same name in another category is another one."""

    name: str
    category: str


@dataclass(frozen=True)
class Profiles:
    """How many units of each model detect each concept.

    Attributes:
        models: Names, (m).
        concepts: The super-set: what a unit of any model detects, by category and name, (c).
        counts: D, int64 (m, c).
        units: Units of each model, whether they detect anything or not, int64 (m).
        draws: D of each draw of a bootstrap, int64 (d, c) a model; empty unless all models have it.
        notes: What the reader must know.
    """

    models: list[str]
    concepts: list[Concept]
    counts: Counts
    units: Counts
    draws: list[Counts]
    notes: list[str]

    @property
    def categories(self) -> list[str]:
        """The category of each concept."""
        return [concept.category for concept in self.concepts]

    def labels(self) -> list[str]:
        """The name of each concept, with its category where the name alone does not tell."""
        counts = Counter(concept.name for concept in self.concepts)
        return [
            c.name if counts[c.name] == 1 else f"{c.name} ({c.category})" for c in self.concepts
        ]

    def find(self, asked: Sequence[str]) -> list[int]:
        """Return the columns of the concepts of these names, in any category.

        Raises:
            UsageError: No unit of any model detects it.
        """
        names = [concept.name for concept in self.concepts]
        for name in asked:
            if name not in names:
                raise UsageError(
                    f"concept {name!r}: no unit of any model detects it; "
                    + did_you_mean(name, dict.fromkeys(names))
                )
        return [
            j for name in dict.fromkeys(asked) for j, known in enumerate(names) if known == name
        ]


def read_profiles(results: Sequence[Result]) -> Profiles:
    """Count the detectors of each concept in the results of dissections.

    Raises:
        UsageError: A result lacks what is needed, two are of one model, they do not belong
            together, or no unit of any detects anything.
    """
    places = [_place(result, index) for index, result in enumerate(results)]
    if len(results) < 2:
        raise UsageError(f"{places[0]} is the only result: give those of two models or more")
    for place, result in zip(places, results, strict=True):
        _check_whole(place, result)
    models = _name_models(places, results)
    notes = _check_together(places, results)
    found = [_detected(result.tables["units"]) for result in results]
    concepts = sorted(set(itertools.chain(*found)), key=_rank)
    if not concepts:
        raise UsageError("no unit of any model detects a concept: there is nothing to compare")
    counts = np.array([_row(one, concepts) for one in found])
    notes += [
        f"{model}: none of its {len(result.tables['units'])} units detects a concept: its profile "
        "is zero"
        for model, result, row in zip(models, results, counts, strict=True)
        if not row.any()
    ]
    units = np.array([len(result.tables["units"]) for result in results])
    draws, said = _draws(models, results, concepts)
    return Profiles(models, concepts, counts, units, draws, notes + said)


def _place(result: Result, index: int) -> str:
    return result.origin.get("result", f"result {index + 1}")


def _rank(concept: Concept) -> tuple[int, str, str]:
    known = concept.category in _ORDER
    place = _ORDER.index(concept.category) if known else len(_ORDER)
    return place, concept.category, concept.name


def _check_whole(place: str, result: Result) -> None:
    """Refuse a result that lacks what every dissection has."""
    try:
        backbone, rows = result.provenance["backbone"], result.tables["units"]
        texts = [result.config["tap"], backbone["name"]]
        whole = bool(rows) and all(isinstance(text, str) for text in texts)
        for row in rows:
            whole = whole and isinstance(row["detector"], bool | np.bool_)
            whole = whole and isinstance(row.get("iou"), int | float | None)
        draws = result.tables.get("bootstrap", [])
        for row in draws:
            whole = whole and all(isinstance(row[n], int | np.integer) for n in ("draw", "units"))
            whole = whole and 0 <= row["units"] <= len(rows)
        for row in [*(row for row in rows if row["detector"]), *draws]:
            whole = whole and all(isinstance(row[n], str) for n in ("concept", "category"))
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise UsageError(
            f"{place}: its result lacks what a dissection has (a backbone, a tap, units with "
            "concept, category and detector): make it again with featkit dissect"
        )


def _name_models(places: Sequence[str], results: Sequence[Result]) -> list[str]:
    """Name models by their backbone, with the tap where one backbone comes twice."""
    backbones = [result.provenance["backbone"] for result in results]
    counts = Counter(backbone["name"] for backbone in backbones)
    names = [
        f"{b['name']}/{r.config['tap']}" if counts[b["name"]] > 1 else b["name"]
        for b, r in zip(backbones, results, strict=True)
    ]
    for i, j in itertools.combinations(range(len(results)), 2):
        if names[i] == names[j]:
            raise UsageError(
                f"{places[i]} and {places[j]} are both of {names[i]}: give each model once, or "
                "dissect one under another name, -b NAME=BACKBONE"
            )
        seen = [{k: v for k, v in backbones[n].items() if k != "name"} for n in (i, j)]
        if seen[0] and seen[0] == seen[1] and results[i].config == results[j].config:
            raise UsageError(
                f"{places[i]} and {places[j]} are of the same network ({names[i]}, {names[j]}) and "
                "the same tap: give each model once"
            )
    return names


def _check_together(places: Sequence[str], results: Sequence[Result]) -> list[str]:
    """Refuse results that count different things; return what else differs."""
    first, where = results[0], places[0]
    notes: dict[str, None] = {}
    for place, result in zip(places[1:], results[1:], strict=True):
        _check_concepts(where, first.config, place, result.config)
        differing = [
            name
            for name in first.config
            if name not in (*_OWN, "concepts") and first.config[name] != result.config.get(name)
        ]
        for name in differing:
            said = f"{first.config[name]} in {where}, {result.config.get(name)} in {place}"
            if name in _AGREE and name in result.config:
                raise UsageError(f"{name}: {said}: dissect all models in one way")
            notes[f"{name} differs between the dissections: {said}"] = None
        images = [one.scalars.get("images") for one in (first, result)]
        if images[0] != images[1]:
            raise UsageError(
                f"{where} is of {images[0]} images and {place} of {images[1]}: dissect all models "
                "over the same"
            )
    _check_thresholds(places, results)
    return list(notes)


def _check_concepts(where: str, one: Row, place: str, other: Row) -> None:
    sources = [list(config.get("concepts") or ()) for config in (one, other)]
    if sorted(map(str, sources[0])) == sorted(map(str, sources[1])):
        return
    told = [
        f"{name} has " + (", ".join(map(str, own)) or "none")
        for name, own in zip((where, place), sources, strict=True)
    ]
    raise UsageError(
        f"concepts: {', and '.join(told)}: dissect all models with the same sources of concepts"
    )


def _check_thresholds(places: Sequence[str], results: Sequence[Result]) -> None:
    """Refuse results of which one counts as a detector what another does not."""
    least: list[tuple[float, str]] = []
    most: list[tuple[float, str]] = []
    for place, result in zip(places, results, strict=True):
        for row in result.tables["units"]:
            if row.get("iou") is not None:
                (least if row["detector"] else most).append((row["iou"], place))
    if least and most and min(least) < max(most):
        (low, here), (high, there) = min(least), max(most)
        raise UsageError(
            f"{here} takes a unit of IoU {low:.3g} for a detector, and {there} not one of "
            f"{high:.3g}: dissect all models with one threshold"
        )


def _detected(rows: Sequence[Row]) -> Counter[Concept]:
    return Counter(Concept(row["concept"], row["category"]) for row in rows if row["detector"])


def _row(found: Counter[Concept], concepts: Sequence[Concept]) -> list[int]:
    return [found[concept] for concept in concepts]


def _draws(
    models: Sequence[str], results: Sequence[Result], concepts: Sequence[Concept]
) -> tuple[list[Counts], list[str]]:
    """Return the profiles of each draw, and what the reader must know of them."""
    tables = [_by_draw(result.tables.get("bootstrap", ())) for result in results]
    have = [model for model, draws in zip(models, tables, strict=True) if len(draws) > 1]
    if len(have) < len(models):
        lack = ", ".join(model for model in models if model not in have)
        return [], [f"no regions: {lack}: no bootstrap of two draws or more"] if have else []
    found = [list(draws.values()) for draws in tables]
    known = set(concepts)
    counted = Counter(
        concept in known for one in found for draw in one for concept in draw.elements()
    )
    said = []
    if counted[False]:
        share = counted[False] / counted.total()
        said.append(
            f"{share:.2%} of the detectors in the bootstrap are of concepts that no unit detects "
            "over all images; they are left out of the regions"
        )
    return [np.array([_row(draw, concepts) for draw in one]) for one in found], said


def _by_draw(rows: Sequence[Row]) -> dict[int, Counter[Concept]]:
    """Return how many units detect each concept, by draw."""
    draws: dict[int, Counter[Concept]] = {}
    for row in rows:
        counts = draws.setdefault(row["draw"], Counter())
        counts[Concept(row["concept"], row["category"])] += row["units"]
    return draws
