"""What a study of families of networks says of the diversity paper's claims, and its figures."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from featkit.analyses.base import Figure, Result
from featkit.report.figures import draw_figures

Row = dict[str, Any]

LAYERS = ("conv1", "res2", "res4", "avgpool", "head")
PAPER = ("conv1", "res2", "res4", "head")
"""The layers of the paper; ``avgpool``, which the probe reads, is measured beside them."""

POOLINGS = ("avg", "flatten")
POWER = 1.0


def diversity(model: Row, epoch: int, layer: str, pooling: str, power: float = POWER) -> float:
    """Return minus the mean energy of a layer; what no pooling changes has one."""
    energies = next(row["energy"] for row in model["rows"] if row["epoch"] == epoch)
    own = [row for row in energies if (row["layer"], row["power"]) == (layer, power)]
    return next((row for row in own if row["pooling"] == pooling), own[0])["mean_diversity"]


def error(model: Row, epoch: int) -> float:
    """Return the share of wrong answers of a probe."""
    return next(row["error"] for row in model["rows"] if row["epoch"] == epoch)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half of its 95 % interval, by Student's t."""
    if len(values) < 2:
        return statistics.fmean(values), math.inf
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), float(half)


def verdict(values: Sequence[float]) -> str:
    """Say whether differences that a claim wants above 0 are."""
    mean, half = interval(values)
    if abs(mean) <= half:
        return "not told apart"
    return "yes" if mean > 0 else "no, the reverse"


def said(values: Sequence[float], percent: bool = False) -> str:
    """Write a mean difference with its interval.

    Example:
        >>> said([0.1, 0.2, 0.3], percent=True)
        '+20.0 ± 24.8 points'
    """
    mean, half = interval(values)
    if percent:
        return f"{100 * mean:+.1f} ± {100 * half:.1f} points"
    return f"{mean:+.3f} ± {half:.3f}"


class Study:
    """The networks of a study.

    Args:
        models: What was measured of each.
        epochs: At which; the first is before training.
    """

    def __init__(self, models: Sequence[Row], epochs: Sequence[int]) -> None:
        self.epochs, self.last, self.early = epochs, epochs[-1], epochs[1]
        self.methods = [m for m in models if m["name"].startswith("method")]
        self.family = [m for m in models if not m["name"].startswith("method")]
        self.first = min(m["depth"] for m in self.family)
        self.widths = sorted({m["width"] for m in self.family})
        self.depths = sorted({m["depth"] for m in self.family})
        self.seeds = sorted({m["seed"] for m in self.family})

    def network(self, seed: int, depth: int, width: int = 1, norm: str = "batch") -> Row:
        """Return one of the family."""
        wanted = (depth, width, norm, seed)
        return next(
            m for m in self.family if (m["depth"], m["width"], m["norm"], m["seed"]) == wanted
        )

    def of_width(self, width: int) -> list[Row]:
        """Return the networks of a width, a seed each."""
        return [self.network(seed, self.first, width) for seed in self.seeds]

    def norm_pairs(self) -> Iterator[tuple[Row, Row]]:
        """Yield networks with layer normalisation and their twins with batch normalisation."""
        for depth in self.depths:
            for seed in self.seeds:
                yield self.network(seed, depth, norm="layer"), self.network(seed, depth)

    def shapes(self) -> dict[tuple[int, int, str], list[Row]]:
        """Return the networks by depth, width and normalisation."""
        found: dict[tuple[int, int, str], list[Row]] = {}
        for model in self.family:
            found.setdefault((model["depth"], model["width"], model["norm"]), []).append(model)
        return found


def claim(what: str, holds: str, measured: str, sized: str) -> Row:
    """Return a row of a study's table."""
    row = {"what": what, "holds": holds, "measured": measured, "sized": sized}
    return {**row, "target": "—", "met": None}


def claims_of(models: Sequence[Row], epochs: Sequence[int], sized: str) -> list[Row]:
    """Return what a study says of every claim of the paper."""
    study = Study(models, epochs)
    return [
        *_most_diverse(study, sized),
        *_order_of_layers(study, sized),
        *_with_epochs(study, sized),
        *_with_width(study, sized),
        *_with_norm(study, sized),
        *_with_depth(study, sized),
        *_with_parameters(study, sized),
        *_by_method(study),
    ]


def _most_diverse(study: Study, sized: str) -> Iterator[Row]:
    for pooling in POOLINGS:
        for power in (0.0, 1.0, 2.0):
            found = Counter(
                ("not told apart" if row["apart"] is False else row["layer"])
                for model in study.family
                for own in model["rows"]
                if own["epoch"] > 0
                for row in own["most_diverse"]
                if (row["pooling"], row["power"]) == (pooling, power)
            )
            total, head = found.total(), found["head"]
            holds = "yes" if head == total else f"in {head} of {total}"
            ranked = ", ".join(f"{layer} in {count}" for layer, count in found.most_common())
            yield claim(
                f"the last layer is the most diverse: {pooling}, s = {power:g}",
                holds, f"{ranked} of {total} networks and epochs", sized,
            )  # fmt: skip


def _order_of_layers(study: Study, sized: str) -> Iterator[Row]:
    for pooling in POOLINGS:
        table = [
            [diversity(m, study.last, layer, pooling) for layer in PAPER] for m in study.family
        ]
        means = ", ".join(
            f"{layer} {statistics.fmean(column):.3f}"
            for layer, column in zip(PAPER, zip(*table, strict=True), strict=True)
        )
        first = [conv1 - res2 for conv1, res2, _, _ in table]
        rising = [res2 < res4 < head for _, res2, res4, head in table]
        falling = [conv1 > res2 > res4 for conv1, res2, res4, _ in table]
        yield claim(
            f"conv1 is more diverse than res2: {pooling}", verdict(first), said(first),
            f"{sized}; {len(table)} networks at epoch {study.last}; mean of each layer: {means}",
        )  # fmt: skip
        yield claim(
            f"from res2 to the head diversity rises (1,000 epochs in the paper): {pooling}",
            f"in {sum(rising)} of {len(rising)}", "—", sized,
        )  # fmt: skip
        yield claim(
            f"from conv1 to res4 it falls (30 epochs in the paper): {pooling}",
            f"in {sum(falling)} of {len(falling)}", "—", sized,
        )  # fmt: skip


def _with_epochs(study: Study, sized: str) -> Iterator[Row]:
    span = f"epoch {study.early} to {study.last}"
    for width in study.widths:
        own = study.of_width(width)
        falls = [error(m, study.early) - error(m, study.last) for m in own]
        yield claim(
            f"error falls, width {width}: {span}", verdict(falls),
            said([-fall for fall in falls], percent=True), f"{sized}; {len(own)} seeds",
        )  # fmt: skip
    for layer in PAPER:
        for pooling in ("avg",) if layer == "head" else POOLINGS:
            falls = [
                diversity(m, study.early, layer, pooling) - diversity(m, study.last, layer, pooling)
                for m in study.family
            ]
            whose = "the head's" if layer == "head" else f"{layer}'s"
            how = "" if layer == "head" else f", {pooling}"
            yield claim(
                f"while {whose} diversity falls, all networks{how}: {span}"
                if layer == "head" else f"{whose} diversity, all networks{how}: {span}",
                verdict(falls) if layer == "head" else "—",
                said([-fall for fall in falls]),
                f"{sized}; falls in {sum(f > 0 for f in falls)} of {len(falls)}",
            )  # fmt: skip
    trained = study.epochs[1:]
    for layer in PAPER:
        pooling = "avg"
        rhos = [
            float(
                stats.spearmanr(
                    [diversity(m, e, layer, pooling) for e in trained],
                    [error(m, e) for e in trained],
                ).statistic
            )
            for m in study.family
        ]
        rhos = [rho for rho in rhos if math.isfinite(rho)]
        wanted = rhos if layer == "head" else [-rho for rho in rhos]
        yield claim(
            "in the head diversity and accuracy part (ρ of diversity and error above 0)"
            if layer == "head"
            else f"in {layer} diversity and accuracy go together (ρ with error below 0)",
            verdict(wanted), f"ρ {said(rhos)}",
            f"{sized}; mean over {len(rhos)} trainings, {len(trained)} epochs each, avg",
        )  # fmt: skip


def _with_width(study: Study, sized: str) -> Iterator[Row]:
    low, high = study.widths[0], study.widths[-1]
    for layer in PAPER:
        for pooling in ("avg",) if layer == "head" else POOLINGS:
            gains = [
                diversity(study.network(seed, study.first, high), study.last, layer, pooling)
                - diversity(study.network(seed, study.first, low), study.last, layer, pooling)
                for seed in study.seeds
            ]
            what = "does not raise" if layer == "conv1" else "raises"
            how = "" if layer == "head" else f", {pooling}"
            holds = verdict(gains)
            if layer == "conv1":
                holds = {"yes": "no, it does", "no, the reverse": "yes"}.get(holds, holds)
            yield claim(
                f"width {what} diversity, {layer}{how}: {high} against {low}", holds, said(gains),
                f"{sized}; {len(gains)} seeds, epoch {study.last}",
            )  # fmt: skip
    falls = [
        error(study.network(seed, study.first, low), study.last)
        - error(study.network(seed, study.first, high), study.last)
        for seed in study.seeds
    ]
    yield claim(
        f"error with width: {high} against {low}", "—", said([-f for f in falls], percent=True),
        f"{sized}; {len(falls)} seeds, epoch {study.last}",
    )  # fmt: skip


def _with_norm(study: Study, sized: str) -> Iterator[Row]:
    for epoch in study.epochs[1:]:
        pairs = list(study.norm_pairs())
        better = [error(batch, epoch) - error(layer, epoch) for layer, batch in pairs]
        yield claim(
            f"LayerNorm has less error than BatchNorm early: epoch {epoch}", verdict(better),
            said([-b for b in better], percent=True),
            f"{sized}; {len(pairs)} pairs of depth and seed",
        )  # fmt: skip
        gains = [
            diversity(layer, epoch, "head", "avg") - diversity(batch, epoch, "head", "avg")
            for layer, batch in pairs
        ]
        yield claim(
            f"LayerNorm has more diversity in the head: epoch {epoch}", verdict(gains),
            said(gains), f"{sized}; {len(pairs)} pairs of depth and seed",
        )  # fmt: skip


def _with_depth(study: Study, sized: str) -> Iterator[Row]:
    low, high = study.depths[0], study.depths[-1]
    pairs = [
        (study.network(seed, high, norm=norm), study.network(seed, low, norm=norm))
        for seed in study.seeds
        for norm in ("batch", "layer")
    ]
    rises = [error(deep, study.last) - error(shallow, study.last) for deep, shallow in pairs]
    where = f"{sized}; {len(pairs)} pairs of seed and norm, epoch {study.last}"
    yield claim(
        f"deeper networks have more error after few epochs: {high} against {low} layers",
        verdict(rises), said(rises, percent=True), where,
    )  # fmt: skip
    gains = [
        diversity(deep, study.last, "head", "avg") - diversity(shallow, study.last, "head", "avg")
        for deep, shallow in pairs
    ]
    yield claim(
        f"and are more diverse, head: {high} against {low} layers", verdict(gains), said(gains),
        where,
    )  # fmt: skip


def stopped_epoch(model: Row) -> int:
    """Return the epoch of the best neighbours on training images that were held out."""
    judged = [row for row in model["rows"] if row["held_out_knn"] is not None]
    return max(judged, key=lambda row: row["held_out_knn"])["epoch"]


def _with_parameters(study: Study, sized: str) -> Iterator[Row]:
    models = study.family
    counts = [model["rows"][0]["parameters"] for model in models]
    where = f"{sized}; {len(models)} networks, epoch chosen by neighbours held out of training"
    for what, values in (
        ("error", [error(m, stopped_epoch(m)) for m in models]),
        ("diversity of the head", [diversity(m, stopped_epoch(m), "head", "avg") for m in models]),
        ("diversity of res4, avg", [diversity(m, stopped_epoch(m), "res4", "avg") for m in models]),
    ):
        found = stats.spearmanr(counts, values)
        rho, p = float(found.statistic), float(found.pvalue)
        holds = "—"
        if what != "error":
            holds = ("yes" if rho > 0 else "no, the reverse") if p < 0.05 else "not told apart"
        name = f"{what} with the number of parameters, stopped early"
        if what != "error":
            name = f"parameters raise {what}, stopped early"
        yield claim(name, holds, f"ρ {rho:+.2f} (p = {p:.2g})", where)


def _by_method(study: Study) -> Iterator[Row]:
    rows = method_rows(study)
    for row in rows:
        yield claim(
            f"method: {row['network']}", "—",
            f"error {row['error']:.1%}, diversity of avgpool {row['avgpool']:.3f}, "
            f"of the head {row['head']:.3f}",
            row["sized"],
        )  # fmt: skip
    same = {row["network"]: row for row in rows if row["depth"] == 20}
    supervised = same["supervised, 20 layers"]
    others = [row for name, row in same.items() if name != "supervised, 20 layers"]
    for layer in ("avgpool", "head"):
        ahead = all(supervised[layer] > row[layer] for row in others)
        yield claim(
            f"supervised training gives the most diverse features with least error: {layer}",
            "yes" if ahead and all(supervised["error"] < row["error"] for row in others)
            else "no, they have least error only",
            ", ".join(f"{name} {row[layer]:.3f}" for name, row in same.items()),
            "20 layers, 32 px; supervised on all 50,000 images with labels, by others",
        )  # fmt: skip


def method_rows(study: Study) -> list[Row]:
    """Return a row for each method: means over seeds."""
    groups: dict[tuple[str, int], list[tuple[Row, int]]] = {}
    for model in study.methods:
        for row in model["rows"]:
            if row["epoch"] in (0, study.last) or row["method"] == "supervised":
                key = (row["method"], model["depth"])
                groups.setdefault(key, []).append((model, row["epoch"]))
    return [
        {
            "network": f"{method}, {depth} layers",
            "method": method,
            "depth": depth,
            "error": statistics.fmean(error(*one) for one in members),
            **{
                layer: statistics.fmean(diversity(*one, layer, "avg") for one in members)
                for layer in LAYERS
            },
            "sized": f"32 px; mean of {len(members)} network(s)",
        }
        for (method, depth), members in groups.items()
    ]


def _mean_rows(
    groups: Iterable[tuple[Row, list[Row], Callable[[Row], int]]], pooling: str
) -> Iterator[Row]:
    """Yield a row for each group of networks and layer: means and deviations over the seeds."""
    for about, members, epoch in groups:
        errors = [error(m, epoch(m)) for m in members]
        for layer in PAPER:
            values = [diversity(m, epoch(m), layer, pooling) for m in members]
            spread = statistics.stdev if len(members) > 1 else lambda _: 0.0
            yield {
                **about,
                "pooling": pooling,
                "layer": layer,
                "mean_diversity": statistics.fmean(values),
                "diversity_spread": spread(values),
                "error": statistics.fmean(errors),
                "error_spread": spread(errors),
            }


SPREADS = {"mean_diversity": "diversity_spread", "error": "error_spread"}


def figures_of(models: Sequence[Row], epochs: Sequence[int]) -> list[Path]:
    """Draw the paper's figures, in a new folder of temporary files."""
    study = Study(models, epochs)
    result = Result("simclr_families", {})
    result.tables["epochs"] = [
        row
        for pooling in POOLINGS
        for row in _mean_rows(
            (
                ({"width": width, "epoch": epoch}, study.of_width(width), lambda _, e=epoch: e)
                for width in study.widths
                for epoch in epochs
            ),
            pooling,
        )
    ]
    result.tables["stopped"] = list(
        _mean_rows(
            (
                (
                    {
                        "network": f"{depth}w{width} {norm}",
                        "parameters": members[0]["rows"][0]["parameters"],
                    },
                    members,
                    stopped_epoch,
                )
                for (depth, width, norm), members in study.shapes().items()
            ),
            "avg",
        )
    )
    result.tables["norms"] = list(
        _mean_rows(
            (
                ({"norm": norm, "depth": depth, "epoch": epoch}, members, lambda _, e=epoch: e)
                for (depth, width, norm), members in study.shapes().items()
                if width == 1
                for epoch in (study.early, study.last)
            ),
            "avg",
        )
    )
    result.tables["methods"] = [
        {**row, "layer": layer, "mean_diversity": row[layer]}
        for row in method_rows(study)
        for layer in PAPER
    ]
    result.figures = list(_figures(study))
    return draw_figures(result, tempfile.mkdtemp())


def _figures(study: Study) -> Iterator[Figure]:
    for width in study.widths:
        for pooling in POOLINGS:
            yield Figure(
                f"simclr_families_epochs-w{width}-{pooling}", "scatter", "epochs",
                f"Error against diversity over epochs: width {width}, {pooling}, s = 1",
                "mean_diversity", "error", hue="layer", path="epoch", spreads=SPREADS,
                where={"width": width, "pooling": pooling},
            )  # fmt: skip
    one = {"layer": "head"}
    yield Figure(
        "simclr_families_error-parameters", "scatter", "stopped",
        "Error against parameters, stopped early", "parameters", "error", where=one, log_x=True,
        spreads={"error": "error_spread"}, names="network",
    )  # fmt: skip
    yield Figure(
        "simclr_families_diversity-parameters", "scatter", "stopped",
        "Diversity against parameters, stopped early", "parameters", "mean_diversity",
        hue="layer", log_x=True, spreads={"mean_diversity": "diversity_spread"},
    )  # fmt: skip
    for epoch in (study.early, study.last):
        yield Figure(
            f"simclr_families_norms-epoch{epoch}", "scatter", "norms",
            f"Error against diversity of the head by depth: epoch {epoch}", "mean_diversity",
            "error", hue="norm", path="depth", spreads=SPREADS, where={"epoch": epoch, **one},
        )  # fmt: skip
    yield Figure(
        "simclr_families_methods", "scatter", "methods",
        "Error against diversity of the head by method, 32 px", "mean_diversity", "error",
        hue="method", names="network", where=one,
    )  # fmt: skip
