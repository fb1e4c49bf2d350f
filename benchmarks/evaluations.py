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


def by_features(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return rows by the table that they are of."""
    return {row["features"]: row for row in rows}


def main() -> None:
    """Judge every backbone, correlate, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path, metavar="TRAIN", help="store with labels")
    parser.add_argument("test", type=Path, metavar="TEST", help="store with labels")
    parser.add_argument("--models", required=True, help="backbones, with commas between")
    given = parser.parse_args()
    stores = featkit.open_store(given.train), featkit.open_store(given.test)
    sides: dict[str, list[FeatureTable]] = {
        side: [table for name in given.models.split(",") for table in store.select(name)]
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
    measures = {
        **{name: [spectrum[table][name] for table in spectrum] for name in LABEL_FREE},
        "diversity": [-energy[table]["mean_energy"] for table in spectrum],
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
    found = {}
    for what, judged, column in (("the probe", probe, "top1"), ("neighbours", knn, "top1")):
        accuracy = [judged[name][column] for name in spectrum]
        for measure, values in measures.items():
            ranked = rank_correlation(values, accuracy)
            found[f"{measure}, {what}"] = ranked
            claims.append(
                {
                    "what": f"rank correlation of {measure.replace('_', ' ')} with {what}",
                    "measured": f"{ranked.rho:+.2f} ({ranked.low:+.2f} to {ranked.high:+.2f})",
                    "target": "—",
                    "met": None,
                    "sized": f"{ranked.n} models, p = {ranked.p:.2g}",
                }
            )
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
