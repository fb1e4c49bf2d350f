"""Pictures of the networks of a study of TreeNets: projections, leaves, attributions, views."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.harness import RESULTS

Row = dict[str, Any]


def project_joins(work: Path, seen: int) -> Row:
    """Project images by the models of the paper's figure 6, and keep figure and quality."""
    import featkit
    from featkit.analyses.projection import Projection, ProjectionConfig
    from featkit.report.figures import draw_figures

    models = ("attention", "average", "dense", "cosine")
    backbones = [f"{model}={work / 'runs' / f'joins-{model}-seed0'}" for model in models]
    with tempfile.TemporaryDirectory() as folder:
        store = featkit.extract(
            (work / "source-test").read_text(), backbones, f"{folder}/test", taps=["join"],
            workers=0, batch_size=128,
        )  # fmt: skip
        result = Projection(ProjectionConfig(samples=seen)).run({"store": store.tables()})
        for path in draw_figures(result, folder):
            with Image.open(path) as picture:  # thousands of points: half a megabyte otherwise
                small = picture.convert("RGB").quantize(64)
            small.save(RESULTS / f"treenet_study_{Path(path).name}", optimize=True)
    return {"images": seen, "quality": result.tables["quality"]}


def look_at(work: Path, run: str, name: str, shap: bool = False) -> Row:
    """Keep pictures of what the leaves of a tree look at, or of what raises a class's score."""
    import featkit
    from featkit.report.figures import draw_figures

    config = featkit.SaliencyConfig(shap=shap)
    result = featkit.saliency(
        work / "runs" / run, (work / "source-test").read_text(), config, workers=0
    )
    wanted = {"shap"} if shap else {"leaves", "overlay"}
    result.figures = [figure for figure in result.figures if figure.name in wanted]
    with tempfile.TemporaryDirectory() as folder:
        for path in draw_figures(result, folder):
            shutil.move(path, RESULTS / f"treenet_study_{name}-{Path(path).name}")
    return dict(result.scalars)


def draw_views(work: Path, preset: str) -> None:
    """Keep a picture of images and the views that a training makes of them."""
    import featkit
    from featkit.report.figures import draw_figures

    with tempfile.TemporaryDirectory() as folder:
        result = featkit.train(
            "treenet", (work / "source-test").read_text(), f"{folder}/run", preset=preset,
            images=80, epochs=1, held_out=0.0, batch_size=32, workers=0,
        )  # fmt: skip
        result.figures = [figure for figure in result.figures if figure.name == "views"]
        for path in draw_figures(result, folder):
            shutil.move(path, RESULTS / f"treenet_study_{Path(path).name}")
