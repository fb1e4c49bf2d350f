"""The figures of a study of families of networks."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.families_claims import (
    PAPER,
    Study,
    diversity,
    error,
    method_rows,
    stopped_epoch,
)
from featkit.analyses.base import Figure, Result
from featkit.report.figures import draw_figures

Row = dict[str, Any]


def _mean_rows(groups: Iterable[tuple[Row, list[Row], Callable[[Row], int]]]) -> Iterator[Row]:
    """Yield a row for each group of networks and layer: means and deviations over the seeds."""
    for about, members, epoch in groups:
        errors = [error(m, epoch(m)) for m in members]
        for layer in PAPER:
            values = [diversity(m, epoch(m), layer, "avg") for m in members]
            spread = statistics.stdev if len(members) > 1 else lambda _: 0.0
            yield {
                **about,
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
    result.tables["epochs"] = list(
        _mean_rows(
            ({"width": width, "epoch": epoch}, study.of_width(width), lambda _, e=epoch: e)
            for width in study.widths
            for epoch in epochs[1:]
        )
    )
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
            )
        )
    )
    result.tables["norms"] = list(
        _mean_rows(
            (
                ({"norm": norm, "depth": depth, "epoch": epoch}, members, lambda _, e=epoch: e)
                for (depth, width, norm), members in study.shapes().items()
                if width == 1
                for epoch in (study.early, study.last)
            )
        )
    )
    result.tables["methods"] = method_rows(study)
    result.figures = list(_figures(study))
    return draw_figures(result, tempfile.mkdtemp())


def _figures(study: Study) -> Iterator[Figure]:
    for width in study.widths:
        yield Figure(
            f"simclr_families_epochs-w{width}", "scatter", "epochs",
            f"Error against diversity over epochs: width {width}, avg, s = 1",
            "mean_diversity", "error", hue="layer", path="epoch", spreads=SPREADS,
            where={"width": width},
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
        "Error against diversity of avgpool by method, 32 px", "avgpool", "error", hue="method",
        names="network",
    )  # fmt: skip
