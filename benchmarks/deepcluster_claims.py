"""What a study of DeepCluster says of the thesis's claims."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.families_claims import interval
from featkit.ops.rank_correlation import RankCorrelation, rank_correlation
from featkit.trainers.deepcluster.starts import PROXIES

Row = dict[str, Any]
Found = Mapping[str, Sequence[Row]]

HALTED = {0.1: 62.00, 0.2: 64.06, 1 / 3: 65.18, 2 / 3: 66.98}
"""Table 4.1: percent by the last cycle that clusters (15, 30, 50, 100), as a share of 150."""

WIDTHS = {32: 64.97, 64: 64.80, 128: 65.50, 256: 65.47}
"""Table 4.2: percent by the width of PCA."""

ARCHS = ("alexnet32", "alexnet32_sobel")


def verdict(low: float, high: float) -> str:
    """Say whether what a claim wants above 0 is, by the ends of its interval."""
    if low > 0:
        return "yes"
    return "no, the reverse" if high < 0 else "not told apart"


def starts_of(found: Found, arch: str) -> list[Row]:
    """Return the untrained networks of a survey, by seed."""
    rows = [row for told in found["survey"] for row in told["starts"] if row["arch"] == arch]
    return sorted(rows, key=lambda row: row["seed"])


def accuracy(row: Row) -> float:
    """Return the percentage of a probe on the last convolution."""
    return 100 * row["trained"]["linear"]


def of_setting(found: Found, name: str) -> list[Row]:
    """Return the trainings in which one setting was changed, and those in which it was not."""
    begin = {"halt": ("halt",), "pca": ("pca", "original"), "fit_share": ("share", "original")}
    return [
        row
        for row in found["settings"]
        if row["name"].removeprefix("settings-").startswith(begin[name])
    ]


def value_of(row: Row, name: str, default: float) -> float:
    """Return a setting of a training."""
    return float(row["options"].get(name, default))


def claim(what: str, measured: str, sized: str, holds: str = "—") -> Row:
    """Return a row of the study's table; none has a target."""
    return {
        "what": what, "holds": holds, "measured": measured, "target": "—", "met": None,
        "sized": sized,
    }  # fmt: skip


def claims_of(found: Found, size: Row, cores: int) -> list[Row]:
    """Return the rows of the study's table."""
    color = (
        f"alexnet32, {size['images']:,} images of CIFAR-10, 32 px, k = {size['clusters']}, "
        f"{size['cycles']} cycles"
    )
    rows = [_duration(found, cores), *_surveyed(found, size)]
    if "starts" in found:
        rows += _trained_starts(found, color)
    for part, network, where in (
        ("lenet", "LeNet-5", "digits (for FMNIST)"),
        ("alexnet", "alexnet32", "grey CIFAR-10 (for SVHN)"),
    ):
        if part in found:
            rows += _numbers(found[part], network, where, size, part)
    if "settings" in found:
        rows += _settings(found, color, size)
    return rows


def _duration(found: Found, cores: int) -> Row:
    survey = sum(told["seconds"] for told in found["survey"])
    trainings = [row for part, rows in found.items() if part != "survey" for row in rows]
    seconds = survey + sum(sum(row["seconds"].values()) for row in trainings)
    return claim(
        "how long it took",
        f"{seconds / 60 / cores:.0f} minutes of {cores} cores, by their clocks",
        f"{len(trainings)} trainings, {sum(len(t['starts']) for t in found['survey'])} untrained",
    )


def _surveyed(found: Found, size: Row) -> list[Row]:
    where = f"{size['images']:,} images of CIFAR-10, k = {size['clusters']}"
    rows = []
    nmi = {arch: np.array([row["nmi"] for row in starts_of(found, arch)]) for arch in ARCHS}
    for arch, values in nmi.items():
        skew = stats.skew(values)
        _, p = stats.skewtest(values) if len(values) >= 8 else (0.0, 1.0)
        told = (
            f"NMI {values.mean():.4f} ± {values.std(ddof=1):.4f} (sd), {values.min():.4f} to "
            f"{values.max():.4f}, skew {skew:+.2f} (p {p:.3f})"
        )
        holds = "not told apart" if p > 0.05 else "yes" if skew > 0 else "no, the reverse"
        rows.append(
            claim(
                f"initial alignment is skewed to the right: {arch} (thesis: most 0.14 to 0.15)",
                told, f"{len(values)} starts, {where}", holds,
            )
        )  # fmt: skip
    first, second = nmi.values()
    test = stats.ttest_rel(second, first).confidence_interval()
    rows.append(
        claim(
            "sobel raises initial alignment",
            f"{(second - first).mean():+.4f}, 95 % interval {test.low:+.4f} to {test.high:+.4f}",
            f"{len(first)} pairs of starts, {where}", verdict(test.low, test.high),
        )
    )  # fmt: skip
    for arch in ARCHS:
        own = starts_of(found, arch)
        for score in PROXIES:
            told = rank_correlation([row[score] for row in own], [row["nmi"] for row in own])
            rows.append(
                claim(
                    f"{score} ranks starts by alignment: {arch}", _correlation(told),
                    f"{told.n} starts, {where}", verdict(told.low, told.high),
                )
            )  # fmt: skip
    return rows


def _correlation(told: RankCorrelation) -> str:
    return f"ρ {told.rho:+.2f} ({told.low:+.2f} to {told.high:+.2f}), p {told.p:.3f}"


def _trained_starts(found: Found, color: str) -> list[Row]:
    own = {row["options"]["seed"]: row for row in found["starts"]}
    starts = [row for row in starts_of(found, "alexnet32") if row["seed"] in own]
    final = [accuracy(own[row["seed"]]) for row in starts]
    told = rank_correlation([row["nmi"] for row in starts], final)
    line = fitted_line([row["nmi"] for row in starts], final)
    where = f"{color}, {len(final)} starts"
    gains = [100 * (r["trained"]["linear"] - r["untrained"]["linear"]) for r in found["starts"]]
    mean, half = interval(gains)
    rows = [
        claim(
            "training raises the probe's accuracy",
            f"{statistics.fmean(final):.1f} %, {mean:+.1f} ± {half:.1f} against untrained", where,
            verdict(mean - half, mean + half),
        ),
        claim(
            "the higher the initial alignment, the better the trained network",
            f"{_correlation(told)}; {line[0]:+.1f} ± {line[1]:.1f} points per 0.01 NMI", where,
            verdict(told.low, told.high),
        ),
    ]  # fmt: skip
    rows += [_over_cycles(found["starts"], *given, where) for given in _OVER_CYCLES]
    for score in PROXIES:
        told = rank_correlation([row[score] for row in starts], final)
        rows.append(
            claim(
                f"{score} ranks starts by accuracy after training", _correlation(told), where,
                verdict(told.low, told.high),
            )
        )  # fmt: skip
    return rows


_OVER_CYCLES = (
    ("clusters come to agree more with the labels", "nmi_labels", 0),
    ("clusters come to agree more with those before", "nmi_previous", 1),
)


def _over_cycles(rows: Sequence[Row], what: str, name: str, first: int, where: str) -> Row:
    ends = [(row["cycles"][first][name], row["cycles"][-1][name]) for row in rows]
    mean, half = interval([last - begun for begun, last in ends])
    told = " to ".join(f"{statistics.fmean(values):.3f}" for values in zip(*ends, strict=True))
    return claim(
        f"{what}: cycle {first + 1} to {len(rows[0]['cycles'])}",
        f"NMI {told}, {mean:+.3f} ± {half:.3f}", where, verdict(mean - half, mean + half),
    )  # fmt: skip


def fitted_line(nmi: Sequence[float], final: Sequence[float]) -> tuple[float, float]:
    """Return the slope of accuracy by alignment, a 0.01 of it, and the half of its interval."""
    fit = stats.linregress(nmi, final)
    return fit.slope / 100, float(stats.t.ppf(0.975, len(nmi) - 2)) * fit.stderr / 100


def _numbers(rows: Sequence[Row], network: str, where: str, size: Row, part: str) -> list[Row]:
    by_k = groups(rows, "clusters")
    seeds = min(len(values) for values in by_k.values())
    images = "1,437 images" if part == "lenet" else f"{size['grey']:,} images"
    cycles = size["lenet_cycles" if part == "lenet" else "grey_cycles"]
    told = f"{network}, {images} of {where}, {cycles} cycles, {seeds} seeds each"
    medians = ", ".join(f"{k:.0f}: {statistics.median(v):.1f}" for k, v in by_k.items())
    spreads = ", ".join(f"{k:.0f}: {statistics.stdev(v):.2f}" for k, v in by_k.items())
    ks, values = zip(*((k, v) for k, own in by_k.items() for v in own), strict=True)
    rises = rank_correlation(ks, values)
    centred = [abs(v - statistics.median(own)) for own in by_k.values() for v in own]
    widens = rank_correlation(ks, centred)
    untrained = statistics.fmean(
        100 * row["untrained"]["linear"] for row in rows if row["untrained"] is not None
    )
    return [
        claim(
            f"more clusters make {network} better"
            + (" (thesis: hardly, few are best)" if part == "lenet" else " (thesis: much)"),
            f"medians by k, %: {medians}; untrained {untrained:.1f}; {_correlation(rises)}", told,
            verdict(rises.low, rises.high),
        ),
        claim(
            f"more clusters make accuracies of {network} vary more",
            f"sd by k: {spreads}; distance from the median, with k: {_correlation(widens)}", told,
            verdict(widens.low, widens.high),
        ),
    ]  # fmt: skip


def groups(rows: Sequence[Row], name: str, default: float = 0.0) -> dict[float, list[float]]:
    """Return accuracies in percent by a setting, in its order."""
    found: dict[float, list[float]] = {}
    for row in sorted(rows, key=lambda row: value_of(row, name, default)):
        found.setdefault(value_of(row, name, default), []).append(accuracy(row))
    return found


def _settings(found: Found, color: str, size: Row) -> list[Row]:
    rows = [_layers(row, color) for row in found["settings"] if row["trained"]["layers"]]
    halts, widths, shares = (
        groups(of_setting(found, name), name, default)
        for name, default in (("halt", 1.0), ("pca", 256.0), ("fit_share", 1.0))
    )
    seeds = f"{color}, {len(widths[256.0])} seed(s) each"
    longer = seeds.replace(f"{size['cycles']} cycles", f"{size['halt_cycles']} cycles")
    for what, own, theirs, sized in (
        ("clustering longer makes the network better (halting)", halts, HALTED, longer),
        ("the width of PCA hardly matters", widths, WIDTHS, seeds),
    ):
        told = ", ".join(
            f"{key:.3g}: {statistics.fmean(v):.1f}"
            + (f" ({known:.1f})" if (known := _known(theirs, key)) is not None else "")
            for key, v in own.items()
        )
        same = seeds_of(found) if "hardly" in what else None
        told = f"{told} % (thesis in brackets)"
        rows.append(_setting(what, own, told, sized, alike=same))
    told = ", ".join(f"{100 * key:.0f}: {statistics.fmean(v):.1f}" for key, v in shares.items())
    rows.append(
        _setting(
            "a small share to fit k-means on is better (thesis: 10 % best, 2 points above 70 %)",
            shares, f"% by share in %: {told}", seeds, falls=True,
        )
    )  # fmt: skip
    return rows


def _layers(row: Row, color: str) -> Row:
    told = ", ".join(
        f"{layer} {100 * top1:.1f} ({100 * row['untrained']['layers'][layer]:.1f})"
        for layer, top1 in row["trained"]["layers"].items()
    )
    return claim(
        "a probe on every convolution, the original's settings", f"{told} % (untrained)",
        f"{color}, seed {row['options']['seed']}, pooled to some 1,000 numbers",
    )  # fmt: skip


def seeds_of(found: Found) -> tuple[float, int] | None:
    """Return how accuracies of networks with other seeds and the same settings vary."""
    values = [accuracy(row) for row in found.get("starts", ())]
    return (statistics.stdev(values), len(values) - 1) if len(values) > 1 else None


def _known(theirs: Mapping[float, float], key: float) -> float | None:
    return next((value for k, value in theirs.items() if abs(k - key) < 1e-6), None)


def _setting(
    what: str,
    own: Mapping[float, list[float]],
    told: str,
    sized: str,
    falls: bool = False,
    alike: tuple[float, int] | None = None,
) -> Row:
    """Return the row of a setting.

    Args:
        what: Is claimed.
        own: Accuracies by the values of the setting.
        told: Of them.
        sized: How large it was.
        falls: Whether the claim is that accuracy falls as the setting rises.
        alike: Standard deviation of trainings that differ in their seed alone, and its degrees of
            freedom, where the claim is that the setting makes no difference.
    """
    keys, values = zip(*((k, v) for k, group in own.items() for v in group), strict=True)
    rises = rank_correlation(keys, values)
    low, high = (-rises.high, -rises.low) if falls else (rises.low, rises.high)
    holds = verdict(low, high)
    if alike is not None:
        reach, most = (
            max(values) - min(values),
            float(stats.studentized_range.ppf(0.95, len(values), alike[1]) * alike[0]),
        )
        told += f"; {reach:.1f} points between the ends, by chance up to {most:.1f}"
        holds = "none to be seen" if reach < most else "no"
    return claim(what, f"{told}; {_correlation(rises)}", sized, holds)
