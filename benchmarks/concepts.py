"""What the units of seven networks and a random one detect on CamVid, and how they relate."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import featkit
from benchmarks.harness import RESULTS, command_line, save
from featkit.analyses.base import Result
from featkit.analyses.dissect.analysis import dissect
from featkit.analyses.dissect.gallery import Gallery
from featkit.analyses.lce.analysis import LCE
from featkit.analyses.lce.config import LCEConfig
from featkit.analyses.pair_ensemble import PairEnsemble
from featkit.report.dissection import GAP, draw_strip, write_page
from featkit.report.figures import draw_figures

SCENE = 128  # pixels at which the CIFAR networks see the scenes; they were trained at 32
DEPTHS = {20: "12fca82f", 32: "d509ac18", 44: "014dd654", 56: "4bfd9763"}
LITES = (0, 1, 2)
SHOWN = 3  # units in a picture


def networks(weights: Path) -> dict[str, tuple[str, str]]:
    """Return the specification and the tap of each model by its name."""
    found = {}
    for depth, digest in DEPTHS.items():
        file = f"{weights}/resnet{depth}-{digest}.th"
        spec = f"resnet{depth}={file}?arch=cifar_resnet{depth}&size={SCENE}"
        found[f"resnet{depth}"] = (spec, "res4")
    for number in LITES:
        for suffix, tap in (("", "bn2"), ("-middle", "blocks.4")):
            name = f"efficientnet_lite{number}{suffix}"
            found[name] = (f"{name}=offline:efficientnet_lite{number}", tap)
    found["random"] = (f"random=cifar_resnet56?weights=none&size={SCENE}", "res4")
    return found


def dissected(name: str, spec: str, tap: str, given: argparse.Namespace) -> Result:
    """Return the dissection of one model, from its folder where it is there already."""
    folder = given.work / name
    if not (folder / "index.html").exists():
        concepts = [f"masks:{given.labels}", "color", "texture"]
        config = featkit.DissectConfig(parts="quad")
        found = dissect(given.images, spec, tap, concepts, config, device="cpu", progress=True)
        found.result.save(folder)
        draw_figures(found.result, folder)
        write_page(found.result, found.gallery, folder)
        if name in given.pictures:
            best = [r for r in found.result.tables["units"] if r["concept"] == given.concept]
            best.sort(key=lambda row: -row["iou"])
            show(found.gallery, [row["unit"] for row in best[:SHOWN]], name, given.concept)
    return Result.load(folder, "dissect")


def show(gallery: Gallery, units: list[int], name: str, concept: str) -> None:
    """Write the top images of some units, one below the other."""
    strips = [strip for unit in units if (strip := draw_strip(gallery, unit)) is not None]
    if strips:
        gap = np.full((GAP, strips[0].shape[1], 3), 255, np.uint8)
        rows = [part for strip in strips for part in (strip, gap)][:-1]
        picture = Image.fromarray(np.concatenate(rows))
        picture.save(RESULTS / f"concepts_{name}_{concept}.jpg", quality=80)


def claims_of(name: str, tap: str, result: Result) -> dict[str, Any]:
    """Return the claim of one dissection."""
    scalars, best = result.scalars, result.tables["best_units"][0]
    sure = np.mean([row["confidence"] for row in result.tables["units"] if row["detector"]] or [0])
    kinds = ", ".join(
        f"{row['units']} {row['category']} ({row['above_category']} above {row['chance_iou']:.3f})"
        for row in result.tables["categories"]
        if row["units"]
    )
    return {
        "what": f"units of {name}, {tap}, that detect a concept; above chance",
        "measured": f"{scalars['detectors']} of {scalars['units']}, {scalars['unique_concepts']}"
        f" concepts; {scalars['detectors_above_chance']} above {scalars['chance_iou']:.3f}"
        f" ({scalars['chance_iou_least']:.3f} to {scalars['chance_iou_largest']:.3f}),"
        f" {scalars['detectors_above_category_chance']} within their category"
        f" ({scalars['random_above_category_chance']:.0%} of random networks' detectors are)",
        "target": "—",
        "met": None,
        "sized": f"{kinds}; best: unit {best['unit']}, {best['concept']}, IoU {best['iou']:.3f};"
        f" a detector keeps its label in {sure:.0%} of 100 bootstrap draws; input"
        f" {result.config['size'][0]}; chance of {result.config['chance']} random networks, and of"
        " each alone",
    }


def related(results: dict[str, Result], given: argparse.Namespace) -> tuple[Result, list[Any]]:
    """Return the embedding of the models, and its claims."""
    scores = given.work / "scores.csv"
    with scores.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "units", "parameters"])
        for name, (spec, _) in networks(given.weights).items():
            module = featkit.load_backbone(spec).module
            count = sum(parameter.numel() for parameter in module.parameters())
            writer.writerow([name, results[name].scalars["units"], count])
    config = LCEConfig(concept=("car",), scores=str(scores), counted="shares")
    lce = LCE(config).run({"dir": list(results.values())})
    lce.save(given.work / "lce")
    for path in draw_figures(lce, given.work / "lce"):
        if path.stem in {"embedding-3d", "abstracted-units", "loadings-pc1"}:
            path.rename(RESULTS / f"concepts_{path.name}")
    claim = {
        "what": "variance of the profiles that three components explain, and by chance",
        "measured": f"{lce.scalars['explained']:.0%}; {lce.scalars['explained_null_95']:.0%}"
        f" (p = {lce.scalars['explained_p']:.2g})",
        "target": "—",
        "met": None,
        "sized": f"{lce.scalars['models']} models, {lce.scalars['concepts']} concepts, shares of"
        f" units; {lce.scalars['groups']} groups; 95th percentile of 1,000 permutations",
    }
    return lce, [claim]


def paired(lce: Result, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Return what pairs of the seven networks gain on CIFAR-10, by the groups of the embedding."""
    train, test = (featkit.open_store(path) for path in (given.train, given.test))
    names = [f"resnet{depth}" for depth in DEPTHS] + [f"efficientnet_lite{n}" for n in LITES]
    sides = {
        side: [store[name] for name in names] for side, store in (("train", train), ("test", test))
    }
    result = PairEnsemble().run({**sides, "groups": [lce]})
    result.save(given.work / "pairs")
    for path in draw_figures(result, given.work / "pairs"):
        path.rename(RESULTS / f"concepts_pairs-{path.name}")
    rows = sorted(result.tables["pairs"], key=lambda row: -row["gain"])
    return [
        {
            "what": f"gain of a vote of two over the better one, {kind}",
            "measured": f"{row['gain']:+.2%} ({row['low']:+.2%} to {row['high']:+.2%})",
            "target": "—",
            "met": None,
            "sized": f"{row['one']} and {row['other']}, of {len(rows)} pairs; 50,000 and 10,000"
            " images of CIFAR-10, weights as printed",
        }
        for kind, row in (("the most", rows[0]), ("the least", rows[-1]))
    ] + [
        {
            "what": f"mean gain of a vote of two of groups {row['one']} and {row['other']}",
            "measured": f"{row['gain']:+.2%}",
            "target": "—",
            "met": None,
            "sized": f"{row['pairs']} pairs; groups of the embedding",
        }
        for row in result.tables["groups"]
        if row["pairs"]
    ]


def main() -> None:
    """Dissect, embed, pair, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, metavar="CAMVID", help="CamVid/val")
    parser.add_argument("labels", type=Path, metavar="LABELS", help="CamVid/valannot")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="of the CIFAR ResNets")
    parser.add_argument("train", type=Path, metavar="TRAIN", help="CIFAR-10 of all seven")
    parser.add_argument("test", type=Path, metavar="TEST")
    parser.add_argument(
        "--work", type=Path, required=True, metavar="WORK", help="folder of the dissections"
    )
    parser.add_argument("--concept", default="car", help="shown in the pictures")
    parser.add_argument("--pictures", nargs="*", default=["efficientnet_lite0"])
    given = parser.parse_args()
    models = networks(given.weights)
    results = {name: dissected(name, *spec, given) for name, spec in models.items()}
    claims = [claims_of(name, models[name][1], result) for name, result in results.items()]
    lce, embedded = related(results, given)
    claims += embedded + paired(lce, given)
    for claim in claims:
        if claim["what"].startswith("units of"):
            claim["sized"] += "; 101 CamVid images, labels, quad parts, colours and textures"
    details = {name: result.tables["categories"] for name, result in results.items()}
    save(
        "concepts",
        command_line(parser, given),
        claims,
        categories=details,
        best_units={name: result.tables["best_units"] for name, result in results.items()},
        embedding=lce.tables["embedding"],
        components=lce.tables["components"],
    )


if __name__ == "__main__":
    main()
