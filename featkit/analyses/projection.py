"""Features as points of a plane: UMAP and t-SNE, coloured by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featkit.analyses.base import (
    Figure,
    Input,
    Result,
    check_requirements,
    describe_run,
    option,
    short_names,
)
from featkit.errors import UsageError
from featkit.ops.neighbors import nearest_neighbors
from featkit.ops.projection import (
    COMPONENTS,
    Method,
    Metric,
    check_options,
    load_umap,
    project,
    projectable_rows,
)
from featkit.ops.votes import majority_vote
from featkit.store.reader import FeatureTable

TRUSTED = 2_000
"""Rows of which trustworthiness is computed; it takes the square of them."""

_NEAR, _VOTERS = 15, 20
"""Neighbours that trustworthiness looks at, and that vote."""


@dataclass(frozen=True)
class ProjectionConfig:
    """Options of :class:`Projection`."""

    methods: tuple[Method, ...] = option(("umap", "tsne"), "umap, tsne or both.")
    neighbors: int = option(15, "UMAP's n_neighbors.", "McInnes et al. 2018, arXiv:1802.03426")
    min_dist: float = option(0.1, "UMAP's least distance of points.", "the same")
    perplexity: float = option(30.0, "Of t-SNE.", "scikit-learn")
    metric: Metric = option("euclidean", "Of the features.")
    samples: int = option(10_000, "Images of a table, drawn at random; 0: all.")
    seed: int = option(0, "Of the draw, and of UMAP.")

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if not self.methods:
            raise UsageError("methods is empty: give umap, tsne or both")
        for method in self.methods:
            check_options(
                method, self.neighbors, self.min_dist, self.perplexity, self.metric, self.seed
            )
        if self.samples < 0:
            raise UsageError(f"samples is {self.samples}: give a whole number, or 0 for all images")


class Projection:
    """UMAP and t-SNE of tables, coloured by class.

    Needs no labels, except for colours. Rows of unreadable images are left out.
    """

    inputs: ClassVar[tuple[Input, ...]] = (
        Input("STORE", "tables: STORE, STORE:BACKBONE or STORE:BACKBONE/TAP", several=True),
    )
    requires: ClassVar[frozenset[str]] = frozenset({"vectors"})
    Config: ClassVar[type[Any]] = ProjectionConfig

    def __init__(self, config: ProjectionConfig | None = None) -> None:
        self.config = config or ProjectionConfig()

    def run(self, inputs: Mapping[str, Sequence[FeatureTable]]) -> Result:
        """Project every table by itself.

        Args:
            inputs: ``store``, tables of any images; one given twice is projected once. Tables of
                the same images get the same draw.

        Returns:
            Table ``projection`` (features, method, image, class: None where an image has not one
            label, x, y). Table ``quality`` (features, method, n; trustworthiness: in [0, 1], of 15
            neighbours, by the metric, among 2,000 rows at most; knn_2d, knn_features: leave-one-out
            accuracy of the majority of 20 neighbours, by distance on the plane and by cosine of the
            features, as ``featkit knn`` has it; None without classes). Array ``classes``. There are
            no scalars: tables may be of different images.

        Raises:
            UsageError: A table has too few readable rows for an option, or rows that cannot be
                projected.
            MissingExtraError: UMAP is asked for and not installed.

        Source: Venna and Kaski 2001, ICANN (trustworthiness).
        """
        check_requirements(self.requires, inputs)
        tables = list({table.path.resolve(): table for table in inputs["store"]}.values())
        drawn = {
            name: (table, self._drawn(table))
            for name, table in zip(short_names(tables), tables, strict=True)
        }
        methods = list(dict.fromkeys(self.config.methods))
        for name, (table, rows) in drawn.items():
            self._check(name, table, rows, methods)
        if "umap" in methods:
            load_umap()
        libraries = ["scikit-learn", "faiss-cpu", *(["umap-learn"] if "umap" in methods else [])]
        config, provenance = describe_run(self.config, {"store": tables}, libraries)
        result = Result("project", config, provenance=provenance, shown={"quality": ()})
        result.tables = {"projection": [], "quality": []}
        labelled = [table for table in tables if _labels(table) is not None]
        if labelled:
            names = dict.fromkeys(c for table in labelled for c in table.classes or ())
            result.arrays["classes"] = np.array(list(names))
        for name, (table, rows) in drawn.items():
            self._project(name, table, rows, methods, result)
        self._add_notes(result, drawn)
        _add_figure(result, methods)
        return result

    def _drawn(self, table: FeatureTable) -> NDArray[np.int64]:
        """Return the rows to project, in order."""
        order = np.random.default_rng(self.config.seed).permutation(len(table))
        readable = order[table.valid[order]]
        return np.sort(readable[: self.config.samples or None])

    def _check(
        self,
        name: str,
        table: FeatureTable,
        rows: NDArray[np.int64],
        methods: Sequence[Method],
    ) -> None:
        """Refuse, before minutes of work, what cannot be projected."""
        config = self.config
        if not len(rows):
            raise UsageError(f"{name}: none of its {len(table)} images could be read")
        for method in methods:
            try:
                projectable_rows(
                    table.numpy()[rows],
                    method,
                    neighbors=config.neighbors,
                    perplexity=config.perplexity,
                    metric=config.metric,
                )
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from error

    def _project(
        self,
        name: str,
        table: FeatureTable,
        rows: NDArray[np.int64],
        methods: Sequence[Method],
        result: Result,
    ) -> None:
        config, x = self.config, table.numpy()[rows]
        images, labels = [table.paths[row] for row in rows], _labels(table)
        classes: Sequence[str | None] = [None] * len(rows)
        of_features = None
        if labels is not None:
            labels = labels[rows]
            classes = np.array(table.classes)[labels].tolist()
            of_features = _accuracy(*nearest_neighbors(x, x, _voters(x), exclude_self=True), labels)
        for method in methods:
            points = project(
                x,
                method,
                neighbors=config.neighbors,
                min_dist=config.min_dist,
                perplexity=config.perplexity,
                metric=config.metric,
                seed=config.seed,
            )
            result.tables["projection"] += [
                {"features": name, "method": method, "image": image, "class": of}
                | {"x": float(point[0]), "y": float(point[1])}
                for image, of, point in zip(images, classes, points, strict=True)
            ]
            result.tables["quality"].append(
                {
                    "features": name,
                    "method": method,
                    "n": len(rows),
                    "trustworthiness": self._trustworthiness(x, points),
                    "knn_2d": None if labels is None else _accuracy(*_nearest(points), labels),
                    "knn_features": of_features,
                }
            )

    def _trustworthiness(self, x: NDArray[Any], points: NDArray[np.float32]) -> float:
        from sklearn.manifold import trustworthiness

        n = min(len(x), TRUSTED)
        rows = np.random.default_rng(self.config.seed).choice(len(x), n, replace=False)
        near = min(_NEAR, (n - 1) // 2)  # the measure is defined below half of the rows
        return float(
            trustworthiness(x[rows], points[rows], n_neighbors=near, metric=self.config.metric)
        )

    def _add_notes(self, result: Result, drawn: Mapping[str, tuple[FeatureTable, Any]]) -> None:
        rows = {row["features"]: row["n"] for row in result.tables["quality"]}
        for name, (table, _) in drawn.items():
            readable = int(table.valid.sum())
            if readable < len(table):
                what = f"{len(table) - readable} of {len(table)} images, which could not be read"
                result.notes.append(f"{name}: left out {what}")
            if rows[name] < readable:
                what = f"{rows[name]:,} of {readable:,} images of a table"
                result.notes.append(f"{what}, drawn with seed {self.config.seed}")
            if table.labels is not None and table.labels.ndim == 2:
                result.notes.append(f"{name}: its images have several labels: points have no class")
        result.notes = list(dict.fromkeys(result.notes))  # most tables have the same numbers
        if max(rows.values()) > TRUSTED:
            result.notes.append(f"trustworthiness is of {TRUSTED:,} images, drawn with the seed")
        if "tsne" in self.config.methods and any(
            table.shape[1] > COMPONENTS for table, _ in drawn.values()
        ):
            result.notes.append(
                f"t-SNE sees the first {COMPONENTS} principal components of wider tables"
            )


def _labels(table: FeatureTable) -> NDArray[np.int64] | None:
    """Return the class of each image, or None where there are none, or several an image."""
    return table.labels if table.labels is not None and table.labels.ndim == 1 else None


def _voters(x: NDArray[Any]) -> int:
    return min(_VOTERS, len(x) - 1)


def _nearest(points: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return minus the distance, and the rows, of the other points nearest to each."""
    from sklearn.neighbors import NearestNeighbors

    distances, rows = NearestNeighbors(n_neighbors=_voters(points)).fit(points).kneighbors()
    return -distances, rows


def _accuracy(near: NDArray[Any], rows: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Return the share of points whose class most of their neighbours have."""
    k = rows.shape[1]
    votes = majority_vote(near, labels[rows], int(labels.max()) + 1, [k])[k]
    return float((votes == labels).mean())


def _add_figure(result: Result, methods: Sequence[Method]) -> None:
    coloured = "classes" in result.arrays
    what = " and ".join({"umap": "UMAP", "tsne": "t-SNE"}[method] for method in methods)
    result.figures.append(
        Figure(
            "projection",
            "facets",
            "projection",
            what + (" by class" if coloured else ""),
            "x",
            "y",
            hue="class" if coloured else None,
            labels="classes" if coloured else None,
            panels=("method", "features"),
        )
    )
