"""The figures of a study of TreeNets."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.treenet_claims import CATEGORIES, METRICS, accuracies, of, shares
from featkit.analyses.base import Figure, Result
from featkit.report.figures import draw_figures

Row = dict[str, Any]

_TITLES = {"knn": "20 nearest neighbours", "linear": "Linear probe"}


def figures_of(models: Sequence[Row]) -> list[Path]:
    """Draw accuracy by parameters, losses, layers and categories, in a new folder."""
    result = Result("treenet_study", {})
    result.tables["accuracy"] = _accuracy(models)
    result.tables["losses"] = _losses(models)
    result.tables["layers"] = [
        {
            "network": f"{model['model']}", "metric": metric, "share of depth": place,
            "held out": score,
        }
        for model in [*of(models, "joins", "resnet"), *of(models, "joins", "dense")]
        for metric in METRICS
        for place, score in _placed(model["trained"][metric]["layers"])
    ]  # fmt: skip
    trees = [*of(models, "leaves"), *of(models, "joins", "dense")]
    result.tables["leaves"] = [
        {"leaves": tree["options"]["leaves"], "category": name, "share": share}
        for tree in sorted(trees, key=lambda m: m["options"]["leaves"])
        for name in CATEGORIES
        for share in [shares(tree, "trained")[name]]
    ]
    figures = [
        Figure(
            f"accuracy-{metric}", "scatter", "accuracy", f"{_TITLES[metric]}, test set",
            "parameters", "accuracy", hue="network", log_x=True, where={"metric": metric},
            spreads={"accuracy": "spread"},
        )
        for metric in METRICS
    ] + [
        Figure("loss", "line", "losses", "Loss", "epoch", "loss", hue="network"),
        Figure(
            "layers", "line", "layers", "Linear probe, training images held out", "share of depth",
            "held out", hue="network", where={"metric": "linear"},
        ),
        Figure(
            "leaves", "bar", "leaves", "What leaves are", "leaves", "share", hue="category",
        ),
    ]  # fmt: skip
    result.figures = [figure for figure in figures if result.tables[figure.data]]
    folder = Path(tempfile.mkdtemp())
    draw_figures(result, folder)
    return [
        path.rename(path.with_name(f"treenet_study_{path.name}")) for path in folder.glob("*.png")
    ]


def _placed(layers: dict[str, float]) -> list[tuple[float, float]]:
    """Return how deep each layer is, 0 to 1, with its score."""
    last = max(len(layers) - 1, 1)
    return [(round(place / last, 3), score) for place, score in enumerate(layers.values())]


def _groups(models: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Return networks of one kind by their name."""
    main = [(name, of(models, "main", name)) for name in ("tree", "cnn")]
    others = [m for m in models if m["part"] != "main"]
    return [(n, g) for n, g in main if g] + [
        (f"{m['model']} ({m['scalars']['images']:,} images)", [m]) for m in others
    ]


def _accuracy(models: Sequence[Row]) -> list[Row]:
    return [
        {
            "network": name,
            "metric": metric,
            "parameters": members[0]["scalars"]["encoder_parameters"],
            "accuracy": statistics.fmean(accuracies(members, metric)),
            "spread": statistics.stdev(accuracies(members, metric)) if len(members) > 1 else 0.0,
        }
        for name, members in _groups(models)
        for metric in METRICS
    ]


def _losses(models: Sequence[Row]) -> list[Row]:
    return [
        {
            "network": name,
            "epoch": row["epoch"],
            "loss": statistics.fmean(m["epochs"][place]["loss"] for m in members),
        }
        for name, members in _groups(models)
        for place, row in enumerate(members[0]["epochs"])
        if row["loss"] is not None
    ]
