"""Which layer is the most diverse, and does error go with diversity: both poolings, s = 0, 1, 2.

Over images, units and filters; with how alike the units of each layer are.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import featkit
from benchmarks.harness import RESULTS, command_line, save
from featkit.analyses.diversity.analysis import Diversity
from featkit.analyses.diversity.config import DiversityConfig
from featkit.report.figures import draw_figures

Row = dict[str, Any]

FAMILIES = {"CIFAR ResNets": "resnet", "EfficientNet-Lites": "efficientnet"}

FIGURES = {
    "layers-samples-avg",
    "layers-samples-flatten",
    "error-samples-avg",
    "diversity-parameters-samples-avg",
}

ERRORS_APART = {"CIFAR ResNets": {"error-parameters"}}
"""Drawn where errors differ by more than the images that they are measured on explain."""

DERIVED = ("space", "kernel", "energy", "diversity", "mean_diversity", "error")
"""Columns of energies that are the same everywhere, or follow from the others."""


def most_diverse(name: str, rows: list[Row]) -> list[Row]:
    """Return a claim for each kind of point, pooling and power."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["over"], row["pooling"], row["power"]), []).append(row)
    claims = []
    for (over, pooling, power), members in groups.items():
        counts = Counter(
            "not told apart" if row["apart"] is False else row["layer"] for row in members
        )
        claims.append(
            {
                "what": f"most diverse layer, {name}: {over}, s = {power:g}"
                if over == "weights"
                else f"most diverse layer, {name}: {over}, {pooling}, s = {power:g}",
                "over": over,
                "measured": ", ".join(f"{layer} in {n}" for layer, n in counts.most_common())
                + f" of {len(members)}",
                "target": "—",
                "met": None,
                "sized": "before "
                + ", ".join(f"{n} ({c})" for n, c in Counter(r["next"] for r in members).items())
                + ahead(members),
            }
        )
    return claims


def ahead(members: list[Row]) -> str:
    """Say how far the most diverse layers are ahead, where they are told apart."""
    apart = [row["spreads_apart"] for row in members if row["apart"]]
    if not apart:
        return ""
    whose = "" if len(apart) == len(members) else f" in the {len(apart)} told apart"
    return f"; by {min(apart):.1f} standard deviations of their difference or more{whose}"


def of_units(name: str, rows: list[Row]) -> list[Row]:
    """Return a claim for each layer and pooling: how alike units are, and how even."""
    groups: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        if row["over"] != "weights":
            of_layer = groups.setdefault((row["layer"], row["pooling"]), {})
            of_layer[row["backbone"]] = row  # the same for each kind of point and power
    return [
        {
            "what": f"mean absolute correlation of units, spectral evenness, {name}: {layer}, "
            f"{pooling}",
            "measured": ", ".join(
                span([row[column] for row in of_layer.values()])
                for column in ("correlation", "evenness")
            ),
            "target": "—",
            "met": None,
            "sized": f"least to most of {len(of_layer)} models",
        }
        for (layer, pooling), of_layer in groups.items()
    ]


def of_filters(name: str, rows: list[Row]) -> list[Row]:
    """Return a claim for each layer: the energies of its modules' filters at s = 1."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["over"] == "weights" and row["power"] == 1:
            groups.setdefault(row["layer"], []).append(row)
    claims = []
    for layer, of_layer in groups.items():
        ends = (pick(of_layer, key=lambda row: row["mean_energy"]) for pick in (min, max))
        claims.append(
            {
                "what": f"mean energy of filters, {name}: {layer}, s = 1",
                "over": "weights",
                "measured": " to ".join(
                    dict.fromkeys(f"{row['mean_energy']:.3f} ({row['tap']})" for row in ends)
                ),
                "target": "—",
                "met": None,
                "sized": f"least to most of {len(of_layer)} modules of "
                f"{len({row['backbone'] for row in of_layer})} models; "
                f"{span([row['n'] for row in of_layer], ',d')} filters of "
                f"{span([row['d'] for row in of_layer], ',d')} numbers",
            }
        )
    return claims


def span(values: list[float], form: str = ".2f") -> str:
    """Return the least and the most of some numbers, one where they are written alike."""
    return "–".join(dict.fromkeys(format(value, form) for value in (min(values), max(values))))


def correlations(name: str, rows: list[Row]) -> list[Row]:
    """Return a claim for each layer at s = 1."""
    return [
        {
            "what": f"rank correlation of error and diversity, {name}: {row['layer']}, "
            f"{row['over']}, {row['pooling']}, s = 1",
            "measured": f"{row['rho']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})",
            "target": "—",
            "met": None,
            "sized": f"{row['n']} models, p = {row['p']:.2g}",
        }
        for row in rows
        if row["power"] == 1 and row["over"] == "samples"
    ]


def main() -> None:
    """Measure both families and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, metavar="STORE", help="maps of every layer, test set")
    parser.add_argument("train", type=Path, metavar="TRAIN", help="last features, training set")
    given = parser.parse_args()
    store, train = featkit.open_store(given.store), featkit.open_store(given.train)
    config = DiversityConfig(power=(0.0, 1.0, 2.0), over=("samples", "units", "weights"))
    claims: list[Row] = []
    details = {}
    for name, prefix in FAMILIES.items():
        tables = [table for table in store.tables() if table.backbone.startswith(prefix)]
        known = [table for table in train.tables() if table.backbone.startswith(prefix)]
        result = Diversity(config).run({"store": tables, "train": known})
        found = [row for row in result.tables["most_diverse"] if row["next"] is not None]
        energy = result.tables["energy"]
        claims += most_diverse(name, found) + of_filters(name, energy) + of_units(name, energy)
        found = [row for row in result.tables["correlations"] if row["over"] != "weights"]
        claims += correlations(name, found)
        saved = ("energy", "family", "most_diverse", "correlations")
        details[name] = {table: result.tables[table] for table in saved} | {"notes": result.notes}
        details[name]["correlations"] = found
        details[name]["energy"] = [
            {column: value for column, value in row.items() if column not in DERIVED}
            for row in energy
        ]
        drawn = FIGURES | ERRORS_APART.get(name, set())
        result.figures = [figure for figure in result.figures if figure.name in drawn]
        with tempfile.TemporaryDirectory() as folder:
            for path in draw_figures(result, folder):
                shutil.move(path, RESULTS / f"diversity_{prefix}_{path.name}")
    images = f"{config.samples} of {len(store):,} images, {config.repeats} times"
    for claim in claims:
        if claim.pop("over", None) == "weights":
            continue
        claim["sized"] = f"{images}; {claim['sized']}" if claim["sized"] else images
    save("diversity", command_line(parser, given), claims, **details)


if __name__ == "__main__":
    main()
