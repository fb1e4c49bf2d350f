"""What a study of TreeNets says of the paper's claims."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from benchmarks.families_claims import interval, verdict

Row = dict[str, Any]

METRICS = ("knn", "linear")
PAPER = {
    "tree": {"knn": "65.5", "linear": "71.8"},
    "cnn": {"knn": "55.1", "linear": "62.0"},
    "resnet": {"knn": "34.2", "linear": "61.1"},
    "average": {"linear": "65.2"},
    "attention": {"linear": "57"},
    "cosine": {"linear": "51.2"},
}
"""Percent of CIFAR-10, of 32 leaves (k-NN: 48), the best CNN and ResNet-50 (fig. 4, table 1)."""

CATEGORIES = ("consistent specialist", "inconsistent specialist", "generalist", "failed")


def of(models: Sequence[Row], part: str, model: str | None = None) -> list[Row]:
    """Return the networks of a part, or those of them of one kind, by seed."""
    found = [m for m in models if m["part"] == part and model in (None, m["model"])]
    return sorted(found, key=lambda m: m["seed"])


def accuracies(models: Sequence[Row], metric: str, when: str = "trained") -> list[float]:
    """Return the accuracy of each at the layer that was chosen for it."""
    return [m[when][metric]["top1"] for m in models]


def percent(values: Sequence[float]) -> str:
    """Write a mean and its 95 % interval in percent.

    Example:
        >>> percent([0.25]), percent([0.2, 0.3])
        ('25.0', '25.0 ± 63.5')
    """
    mean, half = interval(values)
    return f"{100 * mean:.1f}" + (f" ± {100 * half:.1f}" if len(values) > 1 else "")


def claim(what: str, measured: str, sized: str, holds: str = "—") -> Row:
    """Return a row of the study's table; none has a target."""
    return {
        "what": what, "holds": holds, "measured": measured, "target": "—", "met": None,
        "sized": sized,
    }  # fmt: skip


def claims_of(models: Sequence[Row], rates: Row, size: Row, cores: int) -> list[Row]:
    """Return the rows of the study's table.

    Args:
        models: Of all parts.
        rates: Learning rates that were tried, by model.
        size: Of the study.
        cores: That it ran on.
    """
    found = [duration(models, rates, cores)] if of(models, "main") else []
    pixels = models[0]["pixels"]
    large, few, fewest = (
        f"{round(size['images'][part] * 0.9):,} images of {pixels} px, {size['epochs']} epochs"
        for part in ("main", "joins", "leaves")
    )
    if of(models, "main"):
        found += compared(models, rates, large)
        found += subsets(of(models, "main", "tree"), large)
        found += categories(of(models, "main", "tree"), large)
    found += joins(models, f"{few}, one seed")
    found += [deep(model, f"{few}, one seed") for model in of(models, "joins", "resnet")]
    found += numbers(models, f"{fewest}, one seed")
    return found


def duration(models: Sequence[Row], rates: Row, cores: int) -> Row:
    """Return how long the main part takes, by the processes' own clocks."""
    seconds = sum(sum(m["seconds"].values()) for m in of(models, "main"))
    seconds += sum(m["leaves"]["seconds"] for m in of(models, "main", "tree"))
    seconds += sum(rate["seconds"] for rate in rates.values())
    return claim(
        "minutes that the comparison of tree and cnn takes (wanted: below 40)",
        f"{seconds / 60 / cores:.0f}",
        f"{cores} core(s), by the clock of the processes: others ran beside them",
    )


def compared(models: Sequence[Row], rates: Row, sized: str) -> list[Row]:
    """Return what tree and baseline are, and how good."""
    sides = {name: of(models, "main", name) for name in ("tree", "cnn")}
    found = []
    for name, members in sides.items():
        scalars = members[0]["scalars"]
        found.append(
            claim(
                f"{name}: {members[0]['architecture']}",
                f"{scalars['encoder_parameters']:,} parameters, "
                f"{scalars['flops'] / 1e6:.0f} MFLOP and {scalars['activations']:,} activation "
                f"units an image",
                f"learning rate {rates[name]['rate']:g} of "
                f"{', '.join(rates[name]['held_out_knn'])}",
            )
        )
    for metric in METRICS:
        for when in ("trained", "untrained"):
            tree, cnn = (accuracies(members, metric, when) for members in sides.values())
            apart = [a - b for a, b in zip(tree, cnn, strict=True)]
            mean, half = interval(apart)
            beside = f" (paper: {PAPER['tree'][metric]}, {PAPER['cnn'][metric]})"
            found.append(
                claim(
                    f"separate pathways beat one pathway, {metric}, {when}",
                    f"{100 * mean:+.1f} ± {100 * half:.1f} points: {percent(tree)} against "
                    f"{percent(cnn)}{beside if when == 'trained' else ''}",
                    f"{sized if when == 'trained' else 'random weights'}, {len(tree)} seeds",
                    verdict(apart),
                )
            )
        for name, members in sides.items():
            trained, before = (accuracies(members, metric, w) for w in ("trained", "untrained"))
            gains = [a - b for a, b in zip(trained, before, strict=True)]
            layers = ", ".join(sorted({m["trained"][metric]["layer"] for m in members}))
            found.append(
                claim(
                    f"training helps the {name}, {metric}",
                    f"{percent(trained)}, untrained {percent(before)}; layer {layers}",
                    f"{sized}, {len(gains)} seeds",
                    verdict(gains),
                )
            )
    for name, members in sides.items():
        before, after = ([m["epochs"][place]["knn_top1"] for m in members] for place in (0, -1))
        gains = [b - a for a, b in zip(before, after, strict=True)]
        found.append(
            claim(
                f"training helps what the {name}'s head reads, knn",
                f"{percent(after)}, untrained {percent(before)}; learning rates after a short "
                f"training: "
                + ", ".join(f"{r} {100 * v:.1f}" for r, v in rates[name]["held_out_knn"].items()),
                f"{sized}, {len(gains)} seeds, training images held out",
                verdict(gains),
            )
        )
    return found


def subsets(trees: Sequence[Row], sized: str) -> list[Row]:
    """Return how good the best leaves are together."""
    told = {
        name: [
            next(r for r in tree["trained"]["subset"]["accuracy"] if r["features"] == name)
            for tree in trees
        ]
        for name in ("best single", "best subset", "all")
    }
    tables = ", ".join(str(row["tables"]) for row in told["best subset"])
    each = "; ".join(f"{name} {percent([r['top1'] for r in rows])}" for name, rows in told.items())
    apart = [a["top1"] - b["top1"] for a, b in zip(told["best subset"], told["all"], strict=True)]
    return [
        claim(
            "the best leaves together beat all leaves, knn",
            f"{each}; chosen: {tables} leaves",
            f"{sized}, {len(trees)} seeds",
            verdict(apart),
        )
    ]


def shares(model: Row, network: str) -> dict[str, float]:
    """Return the share of leaves in each category."""
    rows = [row for row in model["leaves"]["shares"] if row["network"] == network]
    return {row["category"]: row["share"] for row in rows}


def categories(trees: Sequence[Row], sized: str) -> list[Row]:
    """Return what leaves are, trained and untrained, and how much that differs by seed."""
    found = []
    for network in ("trained", "untrained"):
        each = [shares(tree, network) for tree in trees]
        means = [
            f"{name} {100 * statistics.fmean(one[name] for one in each):.0f} %"
            for name in CATEGORIES
        ]
        distances = [
            sum(abs(a[name] - b[name]) for name in CATEGORIES) / 2 for a, b in combinations(each, 2)
        ]
        overlap = (
            f"; shares of two seeds overlap by {100 * (1 - statistics.fmean(distances)):.0f} %"
        )
        found.append(
            claim(
                f"leaves of {network} trees",
                ", ".join(means) + (overlap if distances else ""),
                f"{sized}, {len(trees)} seeds",
            )
        )
    return found


def joins(models: Sequence[Row], sized: str) -> list[Row]:
    """Return how good the models of figure 6 are."""
    found = []
    for name in ("dense", "average", "attention", "cosine"):
        for model in of(models, "joins", name):
            beside = PAPER.get(name, PAPER["tree"])["linear"]
            found.append(
                claim(
                    f"{name} join" if name != "cosine" else "dense join, cosine loss (β = 1)",
                    f"knn {percent(accuracies([model], 'knn'))}, "
                    f"linear {percent(accuracies([model], 'linear'))} (paper: {beside})",
                    sized,
                )
            )
    return found


def deep(model: Row, sized: str) -> Row:
    """Return how good the layers of a deep ResNet are, on training images held out."""
    layers = model["trained"]["linear"]["layers"]
    sized += ", learning rate of the tree"
    names = list(layers)
    best = max(layers, key=layers.__getitem__)
    last = names[-1]
    return claim(
        f"the last layer of {model['architecture']} is not its best, linear",
        f"{100 * layers[last]:.1f} at {last}, {100 * layers[best]:.1f} at {best}, layer "
        f"{names.index(best) + 1} of {len(names)} (paper: 10 % at the last, layer 11 of 50 best)",
        f"{sized}, training images held out",
        "yes" if layers[best] > layers[last] else "no",
    )


def numbers(models: Sequence[Row], sized: str) -> list[Row]:
    """Return what leaves are where there are more and fewer, trained and untrained."""
    trees = sorted(of(models, "leaves"), key=lambda m: m["options"]["leaves"])
    found = []
    for tree in trees:
        each = [
            f"{network}: "
            + ", ".join(f"{name} {100 * share:.0f} %" for name, share in own.items() if share)
            for network in ("trained", "untrained")
            for own in [shares(tree, network)]
        ]
        found.append(
            claim(
                f"{tree['options']['leaves']} leaves",
                f"knn {percent(accuracies([tree], 'knn'))}, "
                f"linear {percent(accuracies([tree], 'linear'))}; {'; '.join(each)}",
                sized,
            )
        )
    return found


def seen_claims(details: Row) -> list[Row]:
    """Return how far projections, and attributions to pixels, can be believed."""
    found = []
    if "projection" in details:
        rows = details["projection"]["quality"]
        for method in dict.fromkeys(row["method"] for row in rows):
            told = [
                f"{row['features'].partition('/')[0]} {100 * row['knn_2d']:.1f} "
                f"({100 * row['knn_features']:.1f})"
                for row in rows
                if row["method"] == method
            ]
            found.append(
                claim(
                    f"20 neighbours on the plane of {method} (of the features)",
                    ", ".join(told),
                    f"{details['projection']['images']:,} test images, leave-one-out",
                )
            )
    if "shap" in details:
        scalars = details["shap"]
        found.append(
            claim(
                "DeepLIFT-SHAP of a tree of two leaves and a probe",
                f"adds up to the differences of scores but for {scalars['incompleteness']:.1g} of "
                f"them; the probe is right for {100 * scalars['probe_accuracy']:.0f} %",
                "500 test images, the probe judged by a part of them",
            )
        )
    return found
