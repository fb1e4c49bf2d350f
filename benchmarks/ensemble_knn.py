"""Neighbours of learned ensembles, of their models, and of average and concatenation.

Each fit is what ``featkit ensemble-fit`` does, and is kept in a folder, so that a run which was
stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import featkit
from benchmarks.harness import command_line, save
from featkit.analyses.ensemble.run import fit_ensemble
from featkit.analyses.ensemble.study import StudyConfig
from featkit.report.figures import draw_figures

Rows = list[dict[str, Any]]


def fitted(given: argparse.Namespace, preset: str, seed: int) -> dict[str, Any]:
    """Return the result of one ensemble, fitted unless it was."""
    name = f"{given.name}-{preset}-{seed}"
    folder = given.work / name
    if not (folder / "result.json").exists():
        ensemble = featkit.EnsembleRepresentation.from_preset(
            preset, random_state=seed, precision=given.precision, verbose=True
        )
        result = fit_ensemble(
            featkit.open_store(given.train),
            folder,
            ensemble,
            test=featkit.open_store(given.test),
            features=given.models.split(","),
            name=name,
            config=StudyConfig(linear=given.linear and seed == 0),
            overwrite=True,
        )
        draw_figures(result, folder)
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def by_features(rows: Rows) -> dict[str, Rows]:
    """Group rows of the table ``knn``; k increases in each."""
    groups: dict[str, Rows] = {}
    for row in sorted(rows, key=lambda row: row["k"]):
        groups.setdefault(row["features"], []).append(row)
    return groups


def claim(what: str, rows: Rows, sized: str) -> dict[str, Any]:
    """Return a row of the table of benchmarks."""
    shown = ", ".join(f"{row['top1']:.2%}" for row in rows)
    ks = ", ".join(str(row["k"]) for row in rows)
    return {
        "what": f"neighbours of {what}",
        "measured": shown,
        "target": "—",
        "met": None,
        "sized": f"k = {ks}; {sized}",
    }


def linear_claims(name: str, preset: str, rows: Rows, first: bool) -> Rows:
    """Return rows for the linear classifiers; those of the baselines once."""
    return [
        {
            "what": f"linear classifier of {name}: {row['features']}"
            + (f" ({preset}, seed 0)" if row["features"] == "ensemble" else ""),
            "measured": f"{row['top1']:.2%}",
            "target": "—",
            "met": None,
            "sized": f"weight decay {row['weight_decay']:g}, 95 %: {row['low']:.2%} to "
            f"{row['high']:.2%}" + (f", p {row['p']:.1g}" if row["p"] is not None else ""),
        }
        for row in rows
        if first or row["features"] == "ensemble"
    ]


def learned(result: dict[str, Any], groups: dict[str, Rows]) -> str:
    """Say how well the models are recovered, how far ψ moved, and against whom it wins."""
    stages = [
        sum(row[stage] for row in result["tables"]["recovery"]) / len(result["tables"]["recovery"])
        for stage in ("after_warmup", "final", "inference")
    ]
    text = "recovery after warm-up, at the end, of queries: " + ", ".join(
        f"{x:.3f}" for x in stages
    )
    text += f"; moved by {result['scalars']['moved']:.0%}"
    for other in ("average", "concat"):
        if other in groups:
            p = ", ".join(f"{row['p']:.1g}" for row in groups[other])
            text += f"; p against the {other}: {p}"
    return text


def main() -> None:
    """Fit, judge and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of the models together, as in results/ensemble_knn_NAME.json")
    parser.add_argument("train", type=Path, metavar="TRAIN", help="store with labels")
    parser.add_argument("test", type=Path, metavar="TEST", help="store with labels")
    parser.add_argument("--models", required=True)
    parser.add_argument("--work", type=Path, metavar="WORK", required=True, help="keeps the fits")
    parser.add_argument("--presets", default="paper-stable,best")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--linear", action="store_true", help="linear classifiers for one seed too")
    given = parser.parse_args()
    bank, queries = (len(featkit.open_store(path)) for path in (given.train, given.test))
    sized = f"{bank:,} bank, {queries:,} queries"
    claims: Rows = []
    details: Rows = []
    for preset in given.presets.split(","):
        for seed in range(given.seeds):
            result = fitted(given, preset, seed)
            print(f"{given.name} {preset} {seed} done", file=sys.stderr)
            groups = by_features(result["tables"]["knn"])
            if not claims:
                claims = [
                    claim(f"{given.name}: {features}", rows, sized)
                    for features, rows in groups.items()
                    if features != "ensemble"
                ]
            claims.append(
                claim(
                    f"{given.name}: ensemble ({preset}, {given.precision}, seed {seed})",
                    groups["ensemble"],
                    f"{sized}; {learned(result, groups)}",
                )
            )
            if seed == 0:
                linear = result["tables"].get("linear", [])
                claims += linear_claims(given.name, preset, linear, first=not details)
            details.append(
                {"preset": preset, "seed": seed}
                | {name: result[name] for name in ("config", "scalars", "notes")}
                | {name: result["tables"].get(name) for name in ("knn", "recovery", "linear")}
            )
    save(
        f"ensemble_knn_{given.name}",
        command_line(parser, given),
        claims,
        models=given.models.split(","),
        fits=details,
    )


if __name__ == "__main__":
    main()
