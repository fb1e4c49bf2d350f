"""The figures of a study of DeepCluster, beside the thesis's numbers."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure as Canvas
from scipy import stats

from benchmarks.deepcluster_claims import (
    ARCHS,
    HALTED,
    WIDTHS,
    Found,
    accuracy,
    groups,
    of_setting,
    starts_of,
)
from featkit.analyses.base import Figure, Result
from featkit.report.figures import COLOURS, STYLE, draw_figures

Row = dict[str, Any]

_SETTINGS = {
    "halt": ("Halting", "share of cycles that cluster", HALTED, 1.0),
    "pca": ("Width of PCA", "dimensions", WIDTHS, 256.0),
    "fit_share": ("Share that k-means is fitted on", "share", {}, 1.0),
}


def figures_of(found: Found) -> list[Path]:
    """Draw what a study found, in a new folder."""
    result = Result("deepcluster_study", {})
    for arch in ARCHS:
        result.arrays[f"nmi/{arch}"] = np.array([row["nmi"] for row in starts_of(found, arch)])
    result.figures.append(
        Figure("survey", "histogram", "nmi", "Initial alignment", "NMI", "starts")
    )
    _projections(found, result)
    for part, title in (("lenet", "LeNet-5 on digits"), ("alexnet", "alexnet32 on grey CIFAR-10")):
        if part in found:
            _numbers(part, title, found[part], result)
    if "settings" in found:
        for name in _SETTINGS:
            _setting(name, found, result)
        _cycles(found, result)
    folder = Path(tempfile.mkdtemp())
    draw_figures(result, folder)
    if "starts" in found:
        _draw_starts(found, folder / "starts.png")
    return [
        path.rename(path.with_name(f"deepcluster_study_{path.name}"))
        for path in folder.glob("*.png")
    ]


def _projections(found: Found, result: Result) -> None:
    """Add the points of untrained networks, a picture for each set of images."""
    for told in found["survey"]:
        digits = "digits" in told["made_by"]["source"]
        name = "projection-digits" if digits else "projection-cifar10"
        if name in result.tables:
            continue
        result.tables[name] = told["projection"]
        result.arrays[f"{name}-classes"] = np.array(told["classes"])
        result.figures.append(
            Figure(
                name, "facets", name, "Last maps, untrained, by t-SNE", "x", "y", hue="class",
                labels=f"{name}-classes", panels=("method", "arch"),
            )
        )  # fmt: skip


def _numbers(part: str, title: str, rows: Sequence[Row], result: Result) -> None:
    by_k = groups(rows, "clusters")
    result.tables[part] = [
        {
            "clusters": int(k),
            "accuracy": statistics.median(values),
            "low": float(np.quantile(values, 0.25)),
            "high": float(np.quantile(values, 0.75)),
        }
        for k, values in by_k.items()
    ]
    result.figures.append(
        Figure(
            f"clusters-{part}", "line", part, f"{title}: median and quartiles", "clusters",
            "accuracy", interval=("low", "high"), log_x=True,
        )
    )  # fmt: skip


def _setting(name: str, found: Found, result: Result) -> None:
    title, called, thesis, default = _SETTINGS[name]
    own = groups(of_setting(found, name), name, default)
    rows = [("here", key, statistics.fmean(values)) for key, values in own.items()]
    rows += [("thesis", key, value) for key, value in thesis.items()]
    result.tables[name] = [
        {"where": where, called: round(key, 3), "accuracy": value} for where, key, value in rows
    ]
    result.figures.append(Figure(name, "line", name, title, called, "accuracy", hue="where"))


def _cycles(found: Found, result: Result) -> None:
    """Add how clusters agree over the cycles of the trainings in which nothing was changed."""
    (first, *_) = [r for r in found["settings"] if r["name"].startswith("settings-original")]
    lines = {"nmi_previous": "clustering before", "nmi_labels": "labels"}
    result.tables["agreement"] = [
        {"cycle": cycle["cycle"], "with": called, "NMI": cycle[name]}
        for name, called in lines.items()
        for cycle in first["cycles"]
        if cycle[name] is not None
    ]
    result.figures.append(
        Figure(
            "agreement", "line", "agreement", "Agreement of clusters", "cycle", "NMI", hue="with"
        )
    )


def _draw_starts(found: Found, file: Path) -> None:
    """Draw accuracy by initial alignment, with the fitted line and its 95 % band."""
    own = {row["options"]["seed"]: accuracy(row) for row in found["starts"]}
    starts = [row for row in starts_of(found, "alexnet32") if row["seed"] in own]
    x, y = np.array([row["nmi"] for row in starts]), np.array([own[r["seed"]] for r in starts])
    fit = stats.linregress(x, y)
    grid = np.linspace(x.min(), x.max(), 50)
    middle = fit.intercept + fit.slope * grid
    spread = np.sqrt(((y - fit.intercept - fit.slope * x) ** 2).sum() / (len(x) - 2))
    lever = np.sqrt(1 / len(x) + (grid - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
    half = stats.t.ppf(0.975, len(x) - 2) * spread * lever
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(6.4, 4.0))
        axes = canvas.add_subplot()
        axes.fill_between(grid, middle - half, middle + half, color=COLOURS[0], alpha=0.2)
        axes.plot(grid, middle, color=COLOURS[0])
        axes.scatter(x, y, color=COLOURS[5], zorder=3)
        axes.set_xlabel("initial alignment, NMI")
        axes.set_ylabel("accuracy of a probe on conv5, %")
        axes.set_title("Initial alignment and accuracy after training, 95 % band", loc="left")
        canvas.savefig(file)
