"""Which layer of each network nearest neighbours and a linear probe choose, without TEST."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import featkit
from benchmarks.harness import command_line, save
from featkit.analyses.base import Result
from featkit.analyses.neighbors import KNN, KNNConfig
from featkit.analyses.probe import Probe, ProbeConfig
from featkit.ops.proportions import proportion_interval
from featkit.store.reader import FeatureTable

Sides = Mapping[str, list[FeatureTable]]

ANALYSES: dict[str, tuple[str, Callable[[tuple[str, ...], Sides], Result]]] = {
    "20 neighbours": (
        "leave-one-out",
        lambda taps, sides: KNN(KNNConfig(taps=taps)).run(sides),
    ),
    "linear probe": (
        "a fifth held out",
        lambda taps, sides: Probe(ProbeConfig(taps=taps)).run(sides),
    ),
}
"""How TRAIN judges layers, and what runs with some taps."""


def choose(
    sides: Sides, last: str, run: Callable[[tuple[str, ...], Sides], Result]
) -> dict[str, Any]:
    """Choose a layer of one network among all, and ask TEST of it and of the last one."""
    found = run(("all",), sides)
    layers = [{**row, "tap": tap(row["features"])} for row in found.tables["layers"]]
    chosen = next(row for row in layers if row["chosen"] == "yes")
    before = next(row for row in layers if row["tap"] == last)
    if chosen is before:
        of_last = found
    else:
        of_last = run((), {side: [of(tables, last)] for side, tables in sides.items()})
    top1, top1_last = (result.tables["accuracy"][0]["top1"] for result in (found, of_last))
    n = len(sides["test"][0].numpy())
    return {
        "layers": [{name: row[name] for name in ("tap", "score", "chosen")} for row in layers],
        "chosen": {"tap": chosen["tap"], "score": chosen["score"], "top1": top1},
        "last": {"tap": last, "score": before["score"], "top1": top1_last},
        "interval": proportion_interval(round(top1 * n), n),
    }


def tap(features: str) -> str:
    """Return the tap of short or long names of tables, such as ``net/conv1.avg``."""
    own = features.rpartition("/")[2]
    return own.removesuffix(".avg").removesuffix(".none")


def of(tables: list[FeatureTable], name: str) -> FeatureTable:
    """Return the table of a tap."""
    return next(table for table in tables if table.tap == name)


def claim(backbone: str, analysis: str, judged: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the table of studies."""
    chosen, last = found["chosen"], found["last"]
    ranked = sorted(found["layers"], key=lambda row: -row["score"])
    low, high = found["interval"]
    if chosen["tap"] == last["tap"]:
        measured = f"{chosen['tap']}, the last before the head: {chosen['top1']:.2%}"
    else:
        measured = (
            f"{chosen['tap']}: {chosen['top1']:.2%}; {last['tap']}, the last before the head: "
            f"{last['top1']:.2%}"
        )
    return {
        "what": f"best layer of {backbone} by {analysis}, and its top-1 of TEST",
        "measured": measured,
        "target": "—",
        "met": None,
        "sized": f"95 % interval {low:.2%} to {high:.2%}; TRAIN, {judged}: "
        + ", ".join(f"{row['tap']} {row['score']:.2%}" for row in ranked[:3])
        + f"; of {len(ranked)} layers; TEST asked once",
    }


def main() -> None:
    """Choose for every network and analysis, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path, metavar="TRAIN", help="all taps, with labels")
    parser.add_argument("test", type=Path, metavar="TEST", help="the same taps of other images")
    parser.add_argument("--last", default="avgpool", metavar="TAP", help="what is usually read")
    given = parser.parse_args()
    stores = {"train": featkit.open_store(given.train), "test": featkit.open_store(given.test)}
    claims, details = [], {}
    for analysis, (judged, run) in ANALYSES.items():
        details[analysis] = {}
        for backbone in dict.fromkeys(table.backbone for table in stores["train"].tables()):
            started = time.perf_counter()
            sides = {side: store.select(backbone) for side, store in stores.items()}
            found = choose(sides, given.last, run)
            details[analysis][backbone] = found
            claims.append(claim(backbone, analysis, judged, found))
            seconds = time.perf_counter() - started
            print(
                f"  {claims[-1]['what']}: {claims[-1]['measured']}  {seconds:.0f} s",
                file=sys.stderr,
            )
    save("best_layer", command_line(parser, given), claims, chosen=details)


if __name__ == "__main__":
    main()
