"""Which layer is the most diverse, and does error go with diversity: both poolings, s = 0, 1, 2."""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import featkit
from benchmarks.harness import RESULTS, command_line, save
from featkit.analyses.diversity.analysis import Diversity
from featkit.analyses.diversity.config import DiversityConfig
from featkit.report.figures import draw_figures

Row = dict[str, Any]


def most_diverse(name: str, rows: list[Row]) -> list[Row]:
    """Return a claim for each kind of point, pooling and power."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["over"], row["pooling"], row["power"]), []).append(row)
    claims = []
    for (over, pooling, power), members in groups.items():
        counts = Counter(row["layer"] if row["apart"] else "not told apart" for row in members)
        ahead = min(row["spreads_apart"] for row in members)
        claims.append(
            {
                "what": f"most diverse layer, {name}: {over}, {pooling}, s = {power:g}",
                "measured": ", ".join(f"{layer} in {n}" for layer, n in counts.most_common())
                + f" of {len(members)}",
                "target": "—",
                "met": None,
                "sized": "before "
                + ", ".join(f"{n} ({c})" for n, c in Counter(r["next"] for r in members).items())
                + f"; by {ahead:.1f} standard deviations of their difference or more",
            }
        )
    return claims


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
    config = DiversityConfig(power=(0.0, 1.0, 2.0))
    claims: list[Row] = []
    details = {}
    for name, prefix in (("CIFAR ResNets", "resnet"), ("EfficientNet-Lites", "efficientnet")):
        tables = [table for table in store.tables() if table.backbone.startswith(prefix)]
        known = [table for table in train.tables() if table.backbone.startswith(prefix)]
        result = Diversity(config).run({"store": tables, "train": known})
        found = [row for row in result.tables["most_diverse"] if row["next"] is not None]
        claims += most_diverse(name, found) + correlations(name, result.tables["correlations"])
        saved = ("energy", "family", "most_diverse", "correlations")
        details[name] = {table: result.tables[table] for table in saved} | {"notes": result.notes}
        kept = {"layers-samples-avg", "layers-samples-flatten", "error-samples-avg"}
        result.figures = [figure for figure in result.figures if figure.name in kept]
        for path in draw_figures(result, given.store / ".drawn"):
            shutil.move(path, RESULTS / f"diversity_{prefix}_{path.name}")
    images = f"{config.samples} of {len(store):,} images, {config.repeats} times"
    for claim in claims:
        claim["sized"] = f"{images}; {claim['sized']}" if claim["sized"] else images
    save("diversity", command_line(parser, given), claims, **details)


if __name__ == "__main__":
    main()
