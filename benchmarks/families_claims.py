"""What a study of families of networks says of the diversity paper's claims."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from scipy import stats

from featkit.ops.rank_correlation import rank_correlation

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
        self.base = next(m["depth"] for m in self.family if m["width"] > 1)
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
        return [self.network(seed, self.base, width) for seed in self.seeds]

    def by_seed(self, value: Callable[[Row], float]) -> list[float]:
        """Return the mean of all shapes, for each seed."""
        return [
            statistics.fmean(value(m) for m in self.family if m["seed"] == seed)
            for seed in self.seeds
        ]

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
    """Return what a study says of every claim of the paper.

    What is compared is averaged over the shapes first; the interval is over the seeds, and says
    nothing of other shapes, other training images or another test set. Verdicts are not corrected
    for their number.
    """
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


def _views(layer: str) -> tuple[str, ...]:
    """Return the poolings of a layer; no pooling changes the head."""
    return POOLINGS[:1] if layer == "head" else POOLINGS


def _named(layer: str, pooling: str) -> str:
    return layer if layer == "head" else f"{layer}, {pooling}"


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
    where = f"{sized}; {len(study.family)} networks at epoch {study.last}"
    for pooling in POOLINGS:
        table = [
            [diversity(m, study.last, layer, pooling) for layer in PAPER] for m in study.family
        ]
        means = ", ".join(
            f"{layer} {statistics.fmean(column):.3f}"
            for layer, column in zip(PAPER, zip(*table, strict=True), strict=True)
        )
        ahead = study.by_seed(
            lambda m, how=pooling: (
                diversity(m, study.last, "conv1", how) - diversity(m, study.last, "res2", how)
            )
        )
        yield claim(
            f"conv1 is more diverse than res2: {pooling}", verdict(ahead), said(ahead),
            f"{where}; mean of each layer: {means}",
        )  # fmt: skip
        for what, holds in (
            ("from res2 to the head diversity rises (after 100 epochs and more in the paper)",
             [res2 < res4 < head for _, res2, res4, head in table]),
            ("from conv1 to res4 it falls (30 epochs in the paper)",
             [conv1 > res2 > res4 for conv1, res2, res4, _ in table]),
            ("conv1 comes next to the head (30 epochs in the paper)",
             [head > conv1 > max(res2, res4) for conv1, res2, res4, head in table]),
        ):  # fmt: skip
            yield claim(f"{what}: {pooling}", f"in {sum(holds)} of {len(holds)}", "—", where)


def _with_epochs(study: Study, sized: str) -> Iterator[Row]:
    span = f"epoch {study.early} to {study.last}"
    for width in study.widths:
        falls = [error(m, study.early) - error(m, study.last) for m in study.of_width(width)]
        yield claim(
            f"error falls, width {width}: {span}", verdict(falls),
            said([-fall for fall in falls], percent=True), f"{sized}; {len(falls)} seeds",
        )  # fmt: skip
    for layer in PAPER:
        for pooling in _views(layer):
            falls = study.by_seed(
                lambda m, layer=layer, how=pooling: (
                    diversity(m, study.early, layer, how) - diversity(m, study.last, layer, how)
                )
            )
            what = "while the head's diversity falls" if layer == "head" else "diversity of "
            what += "" if layer == "head" else _named(layer, pooling)
            yield claim(
                f"{what}: {span}", verdict(falls) if layer == "head" else "—",
                said([-fall for fall in falls]), f"{sized}; mean of all shapes, by seed",
            )  # fmt: skip
    for layer in PAPER:
        for pooling in _views(layer):
            rhos = study.by_seed(
                lambda m, layer=layer, how=pooling: _over_epochs(m, study, layer, how)
            )
            is_head = layer == "head"
            what = "part" if is_head else "go together"
            yield claim(
                f"diversity and accuracy {what} over epochs: {_named(layer, pooling)}",
                verdict([rho if is_head else -rho for rho in rhos]),
                f"ρ with error {said(rhos)}", f"{sized}; mean of all shapes, by seed",
            )  # fmt: skip


def _over_epochs(model: Row, study: Study, layer: str, pooling: str) -> float:
    """Return Spearman's ρ of diversity and error over the epochs of one training."""
    trained = study.epochs[1:]
    values = [[diversity(model, e, layer, pooling) for e in trained]]
    values.append([error(model, e) for e in trained])
    rho = float(stats.spearmanr(*values).statistic)
    return 0.0 if math.isnan(rho) else rho


def _with_width(study: Study, sized: str) -> Iterator[Row]:
    low, *wider = study.widths
    where = f"{sized}; {len(study.seeds)} seeds, {study.base} layers, epoch {study.last}"

    def gains(width: int, value: Callable[[Row], float]) -> list[float]:
        return [
            value(study.network(seed, study.base, width))
            - value(study.network(seed, study.base, low))
            for seed in study.seeds
        ]

    for layer in PAPER:
        for pooling in _views(layer):
            found = {
                w: gains(
                    w, lambda m, layer=layer, how=pooling: diversity(m, study.last, layer, how)
                )
                for w in wider
            }
            is_first = layer == "conv1"
            holds = verdict(found[wider[-1]])
            if is_first:
                holds = {"yes": "no, it does", "no, the reverse": "yes"}.get(holds, holds)
            measured = ", ".join(f"×{width}: {said(values)}" for width, values in found.items())
            yield claim(
                f"width {'does not raise' if is_first else 'raises'} diversity: "
                f"{_named(layer, pooling)}",
                holds, measured, where,
            )  # fmt: skip
    found = {w: gains(w, lambda m: error(m, study.last)) for w in wider}
    yield claim(
        "error with width", "—",
        ", ".join(f"×{w}: {said(values, percent=True)}" for w, values in found.items()), where,
    )  # fmt: skip


def _with_norm(study: Study, sized: str) -> Iterator[Row]:
    where = f"{sized}; {len(study.seeds)} seeds, mean of {len(study.depths)} depths"

    def gains(value: Callable[[Row], float]) -> list[float]:
        return [
            statistics.fmean(
                value(study.network(seed, depth, norm="layer")) - value(study.network(seed, depth))
                for depth in study.depths
            )
            for seed in study.seeds
        ]

    for epoch in study.epochs[1:]:
        less = gains(lambda m, epoch=epoch: -error(m, epoch))
        yield claim(
            f"LayerNorm has less error than BatchNorm early: epoch {epoch}", verdict(less),
            said([-value for value in less], percent=True), where,
        )  # fmt: skip
        more = gains(lambda m, epoch=epoch: diversity(m, epoch, "head", "avg"))
        yield claim(
            f"LayerNorm has more diversity in the head: epoch {epoch}", verdict(more), said(more),
            where,
        )  # fmt: skip


def _with_depth(study: Study, sized: str) -> Iterator[Row]:
    low, high = study.depths[0], study.depths[-1]
    where = f"{sized}; {len(study.seeds)} seeds, mean of both norms, epoch {study.last}"

    def gains(value: Callable[[Row], float]) -> list[float]:
        return [
            statistics.fmean(
                value(study.network(seed, high, norm=norm))
                - value(study.network(seed, low, norm=norm))
                for norm in ("batch", "layer")
            )
            for seed in study.seeds
        ]

    rises = gains(lambda m: error(m, study.last))
    yield claim(
        f"deeper networks have more error after few epochs: {high} against {low} layers",
        verdict(rises), said(rises, percent=True), where,
    )  # fmt: skip
    more = gains(lambda m: diversity(m, study.last, "head", "avg"))
    holds = {"yes": "yes, more", "not told apart": "yes, alike"}.get(verdict(more), "no, less")
    yield claim(
        f"deeper networks learn diverse features too, head: {high} against {low} layers", holds,
        said(more), where,
    )  # fmt: skip


def stopped_epoch(model: Row) -> int:
    """Return the epoch of the best neighbours on training images that were held out."""
    judged = [row for row in model["rows"] if row["held_out_knn"] is not None]
    return max(judged, key=lambda row: row["held_out_knn"])["epoch"]


def _with_parameters(study: Study, sized: str) -> Iterator[Row]:
    """Compare shapes with batch normalisation, each by the mean of its seeds."""
    shapes = [members for (_, _, norm), members in study.shapes().items() if norm == "batch"]
    counts = [members[0]["rows"][0]["parameters"] for members in shapes]
    where = f"{sized}; {len(shapes)} shapes, epoch chosen by neighbours held out of training"

    def correlated(values: Sequence[float], others: Sequence[float]) -> tuple[str, str]:
        found = rank_correlation(values, others)
        text = f"ρ {found.rho:+.2f} ({found.low:+.2f} to {found.high:+.2f}), p = {found.p:.2g}"
        holds = "yes" if found.rho > 0 else "no, the reverse"
        return text, holds if found.p < 0.05 else "not told apart"

    def means(value: Callable[[Row], float]) -> list[float]:
        return [statistics.fmean(map(value, members)) for members in shapes]

    errors = means(lambda m: error(m, stopped_epoch(m)))
    text, _ = correlated(counts, errors)
    ranked = [e for _, e in sorted(zip(counts, errors, strict=True))]
    falls = all(a > b for a, b in pairwise(ranked))
    yield claim(
        "error does not always decrease with parameters, stopped early", "no" if falls else "yes",
        text, where,
    )  # fmt: skip
    for layer in PAPER:
        for pooling in _views(layer):
            values = means(
                lambda m, layer=layer, how=pooling: diversity(m, stopped_epoch(m), layer, how)
            )
            text, holds = correlated(counts, values)
            name = _named(layer, pooling)
            yield claim(f"parameters raise diversity, stopped early: {name}", holds, text, where)
            text, holds = correlated(values, errors)
            yield claim(
                f"no correlation of diversity and error between networks: {name}",
                "yes, none to be seen" if holds == "not told apart" else "no", text, where,
            )  # fmt: skip


def _by_method(study: Study) -> Iterator[Row]:
    rows = method_rows(study)
    for row in rows:
        yield claim(
            f"method: {row['network']}", "—",
            f"error {row['error']:.1%}, diversity of avgpool {row['avgpool']:.3f}, "
            f"of the head {row['head']:.3f}",
            row["sized"],
        )  # fmt: skip
    same = {row["method"]: row for row in rows if row["depth"] == 20}
    best = {
        "least error": min(same, key=lambda name: same[name]["error"]),
        "most diversity of avgpool": max(same, key=lambda name: same[name]["avgpool"]),
    }
    yield claim(
        "supervised training gives the most diverse features, with the least error",
        "yes" if set(best.values()) == {"supervised"} else "no",
        ", ".join(f"{what}: {name}" for what, name in best.items()),
        "20 layers; the supervised network has seen all 50,000 images with labels, the others few; "
        "heads are not compared (10 scores, 128 dimensions)",
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
