"""Backbones by every evaluation, and how well what needs no labels ranks them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import featkit
from benchmarks.harness import command_line, save
from featkit.analyses.diversity.analysis import Diversity
from featkit.analyses.diversity.config import DiversityConfig
from featkit.analyses.fewshot import FewShot, FewShotConfig
from featkit.analyses.neighbors import KNN
from featkit.analyses.probe import Probe
from featkit.analyses.similarity import Similarity
from featkit.analyses.spectrum import Spectrum
from featkit.ops.rank_correlation import rank_correlation
from featkit.store.reader import FeatureTable

LABEL_FREE = ("effective_rank", "rank_share", "participation_ratio", "alpha", "uniformity")
"""Columns of the spectrum's table that need no labels."""

MEASURES = (*LABEL_FREE, "distance of alpha from 1", "diversity")


def by_features(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return rows by the table that they are of."""
    return {row["features"]: row for row in rows}


def label_free(row: dict[str, Any], energy: dict[str, Any]) -> dict[str, float]:
    """Return what is known of a backbone without labels."""
    return {
        **{name: row[name] for name in LABEL_FREE},
        "distance of alpha from 1": abs(row["alpha"] - 1),
        "diversity": -energy["mean_energy"],
    }


def correlations(
    families: dict[str, list[str]], known: dict[str, dict[str, float]], judged: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return a claim for each measure, over all backbones and within each family."""
    claims = []
    for measure in MEASURES:
        found = {
            family: rank_correlation(
                [known[name][measure] for name in names], [judged[name]["top1"] for name in names]
            )
            for family, names in families.items()
        }
        whole = found["all"]
        claims.append(
            {
                "what": f"rank correlation of {measure.replace('_', ' ')}",
                "measured": ", ".join(f"{one.rho:+.2f}" for one in found.values()),
                "target": "—",
                "met": None,
                "sized": f"{', '.join(f'{family} ({one.n})' for family, one in found.items())}; "
                f"of all: {whole.low:+.2f} to {whole.high:+.2f}, p = {whole.p:.2g}",
            }
        )
    return claims


def main() -> None:
    """Judge every backbone, correlate, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path, metavar="TRAIN", help="store with labels")
    parser.add_argument("test", type=Path, metavar="TEST", help="store with labels")
    parser.add_argument(
        "--family", required=True, action="append", metavar="NAME=BACKBONE,…", help="repeatable"
    )
    given = parser.parse_args()
    stores = featkit.open_store(given.train), featkit.open_store(given.test)
    members = {
        family: names.split(",") for family, _, names in (f.partition("=") for f in given.family)
    }
    models = [name for names in members.values() for name in names]
    sides: dict[str, list[FeatureTable]] = {
        side: [table for name in models for table in store.select(name)]
        for side, store in zip(("train", "test"), stores, strict=True)
    }
    probe = by_features(Probe().run(sides).tables["accuracy"])
    knn = by_features(KNN().run(sides).tables["accuracy"])
    few = by_features(FewShot(FewShotConfig()).run(sides).tables["accuracy"])
    test = {"store": sides["test"]}
    spectrum = by_features(Spectrum().run(test).tables["spectrum"])
    similarity = Similarity().run(test).tables["similarity"]
    drawn = Diversity(DiversityConfig(probe=False, over=("samples",))).run(test).tables["energy"]
    energy = dict(zip(spectrum, drawn, strict=True))
    known = {name: label_free(spectrum[name], energy[name]) for name in spectrum}
    families = {"all": list(spectrum)} | {
        family: [name for name in spectrum if name.partition("/")[0] in names]
        for family, names in members.items()
    }
    claims = [
        {
            "what": f"{name}: linear probe, 20 neighbours, 5-way 5-shot",
            "measured": f"{probe[name]['top1']:.2%}, {knn[name]['top1']:.2%}, "
            f"{few[name]['accuracy']:.2%} ± {few[name]['ci95']:.2%}",
            "target": "—",
            "met": None,
            "sized": f"λ = {probe[name]['lambda']:.3g}, calibration error "
            f"{probe[name]['ece']:.1%} ({probe[name]['ece_scaled']:.1%} with temperature "
            f"{probe[name]['temperature']:.2f}); effective rank "
            f"{spectrum[name]['effective_rank']:.0f} of {spectrum[name]['d']}, α "
            f"{spectrum[name]['alpha']:.2f}, uniformity {spectrum[name]['uniformity']:.2f}",
        }
        for name in spectrum
    ]
    for what, judged in (("the probe", probe), ("neighbours", knn)):
        claims += [
            claim | {"what": f"{claim['what']} with {what}"}
            for claim in correlations(families, known, judged)
        ]
    save(
        "evaluations",
        command_line(parser, given),
        claims,
        probe=probe,
        knn=knn,
        fewshot=few,
        spectrum=spectrum,
        energy=energy,
        similarity=similarity,
    )


if __name__ == "__main__":
    main()
