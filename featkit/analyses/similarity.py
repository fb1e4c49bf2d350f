"""How alike models see the same images: CKA and shared neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

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
from featkit.ops.cka import Estimator, centered_rows, linear_cka
from featkit.ops.similarity import neighbor_overlap
from featkit.store.reader import FeatureTable


@dataclass(frozen=True)
class SimilarityConfig:
    """Options of :class:`Similarity`."""

    estimator: Estimator = option(
        "debiased",
        "Of HSIC in CKA. Biased comes near 1 for any features where d is not far below n.",
        "Nguyen et al. 2021, arXiv:2010.15327",
    )
    k: int = option(10, "Neighbours that are compared.", "Huh et al. 2024, arXiv:2405.07987")
    samples: int = option(10_000, "Images that are compared, drawn at random; 0: all.")
    seed: int = option(0, "Of the draw.")

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.estimator not in get_args(Estimator):
            raise UsageError(
                f"estimator {self.estimator!r}: use {' or '.join(get_args(Estimator))}"
            )
        if self.k < 1:
            raise UsageError(f"k is {self.k}: give a whole number, at least 1")
        least = max(4, self.k + 1)
        if self.samples and self.samples < least:
            lower = ", or lower k" if self.samples >= 4 else ""
            raise UsageError(
                f"samples is {self.samples}: give {least} or more for k {self.k}, or 0 for all"
                + lower
            )
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}: give a whole number, at least 0")


class Similarity:
    """How alike models see the same images: linear CKA, and the neighbours they share.

    Needs no labels. An image that some table lacks takes no part in any.
    """

    inputs: ClassVar[tuple[Input, ...]] = (
        Input(
            "STORE",
            "tables of the same images: STORE, STORE:BACKBONE or STORE:BACKBONE/TAP",
            several=True,
        ),
    )
    requires: ClassVar[frozenset[str]] = frozenset({"vectors"})
    Config: ClassVar[type[Any]] = SimilarityConfig

    def __init__(self, config: SimilarityConfig | None = None) -> None:
        self.config = config or SimilarityConfig()

    def run(self, inputs: Mapping[str, Sequence[FeatureTable]]) -> Result:
        """Compare every two tables.

        Args:
            inputs: ``store``, tables of the same images, of one store or several; one given twice
                counts once.

        Returns:
            Table ``similarity`` (one, other, cka, overlap) of every two; arrays ``cka`` and
            ``overlap`` (m, m) and ``names`` (m); scalars ``images``, ``unreadable`` (images that
            some table lacks) and ``overlap_by_chance``.

        Raises:
            UsageError: There are fewer than two tables, they are of different images, or too few
                images are left.
        """
        check_requirements(self.requires, inputs)
        tables = list({table.path.resolve(): table for table in inputs["store"]}.values())
        _check_images(tables)
        names = short_names(tables)
        readable = np.logical_and.reduce([table.valid for table in tables])
        rows = self._drawn(np.flatnonzero(readable))
        features = [
            table.numpy() if len(rows) == len(table) else table.numpy()[rows] for table in tables
        ]
        sides = [centered_rows(x, name=name) for name, x in zip(names, features, strict=True)]
        config, provenance = describe_run(self.config, {"store": tables}, ("faiss-cpu", "numpy"))
        result = Result("similarity", config, provenance=provenance)
        result.scalars = {
            "images": len(rows),
            "unreadable": int((~readable).sum()),
            "overlap_by_chance": self.config.k / (len(rows) - 1),
        }
        result.arrays = {
            "cka": linear_cka(sides, estimator=self.config.estimator),
            "overlap": neighbor_overlap(features, self.config.k),
            "names": np.array(names),
        }
        result.tables["similarity"] = _pairs(result.arrays, names)
        self._add_notes(result, features, int(readable.sum()))
        for name, what in (
            ("cka", f"Linear CKA, {self.config.estimator}"),
            ("overlap", f"Shared neighbours, k = {self.config.k}"),
        ):
            result.figures.append(
                Figure(name, "heatmap", name, what, "", "", labels="names", diagonal=False)
            )
        return result

    def _drawn(self, readable: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows to compare, in order."""
        config = self.config
        least = max(4, config.k + 1)
        if len(readable) < least:
            lower = "lower k, or " if len(readable) >= 4 else ""
            raise UsageError(
                f"{len(readable)} images could be read by all tables, and k {config.k} takes"
                f" {least} or more: {lower}give more images"
            )
        if not config.samples or config.samples >= len(readable):
            return readable
        drawn = np.random.default_rng(config.seed).choice(
            readable, config.samples, replace=False, shuffle=False
        )
        return np.sort(drawn)

    def _add_notes(self, result: Result, features: Sequence[NDArray[Any]], readable: int) -> None:
        n, widest = len(features[0]), max(x.shape[1] for x in features)
        if n < readable:
            result.notes.append(
                f"{n:,} of {readable:,} images, drawn with seed {self.config.seed}; the overlap is"
                " of neighbours among them, and falls with more"
            )
        if self.config.estimator == "biased" and widest > n / 10:
            result.notes.append(
                f"biased CKA of {n:,} images and up to {widest:,} features is too high: take more"
                " images, or debiased"
            )
        for name, x in zip(result.arrays["names"], features, strict=True):
            zeros = n - int(np.count_nonzero(x.any(axis=1)))
            if zeros:
                result.notes.append(
                    f"{name}: {zeros} of {n} rows are zero: they have no neighbours but by chance"
                )


def _check_images(tables: Sequence[FeatureTable]) -> None:
    if len(tables) < 2:
        raise UsageError(f"{tables[0].path} is the only table: give two or more to compare")
    for table in tables[1:]:
        if table.provenance["samples"] != tables[0].provenance["samples"]:
            raise UsageError(
                f"{tables[0].path} and {table.path} are of different images: give tables of the"
                " same, such as those of one store"
            )


def _pairs(arrays: Mapping[str, NDArray[Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "one": one,
            "other": names[j],
            "cka": float(arrays["cka"][i, j]),
            "overlap": float(arrays["overlap"][i, j]),
        }
        for i, one in enumerate(names)
        for j in range(i + 1, len(names))
    ]
