"""How much of their space features use: spectrum, uniformity, alignment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

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
from featkit.analyses.sides import kept_rows
from featkit.errors import UsageError
from featkit.ops.spectrum import (
    decay_exponent,
    effective_rank,
    participation_ratio,
    singular_values,
)
from featkit.ops.uniformity import alignment, uniformity
from featkit.store.reader import FeatureTable

T = TypeVar("T")

_DRAWN = 1e-7
"""Of the largest singular value; what is less is rounding of float32."""

_SHOWN = (
    "features",
    "n",
    "d",
    "effective_rank",
    "participation_ratio",
    "alpha",
    "uniformity",
    "alignment",
)
"""What fits a line; notes tell of images and rows that are left out."""


@dataclass(frozen=True)
class SpectrumConfig:
    """Options of :class:`Spectrum`."""

    samples: int = option(
        10_000, "Rows of a table that uniformity compares pair by pair, drawn at random; 0: all."
    )
    seed: int = option(0, "Of the draw.")

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.samples < 0 or self.samples in (1, 2):
            raise UsageError(f"samples is {self.samples}: give 3 or more, or 0 for all rows")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}: give a whole number, at least 0")


class Spectrum:
    """How many directions features use, and how evenly they cover the sphere.

    Needs no labels, except for alignment. Rows of unreadable images are left out.
    """

    inputs: ClassVar[tuple[Input, ...]] = (
        Input("STORE", "tables: STORE, STORE:BACKBONE or STORE:BACKBONE/TAP", several=True),
    )
    requires: ClassVar[frozenset[str]] = frozenset({"vectors"})
    Config: ClassVar[type[Any]] = SpectrumConfig

    def __init__(self, config: SpectrumConfig | None = None) -> None:
        self.config = config or SpectrumConfig()

    def run(self, inputs: Mapping[str, Sequence[FeatureTable]]) -> Result:
        """Measure every table by itself.

        Args:
            inputs: ``store``, tables of any images; one given twice is measured once.

        Returns:
            Table ``spectrum`` (features, n, d, effective_rank: RankMe, of features that are not
            centred; rank_share: of d; participation_ratio, alpha, alpha_r2: of the covariance;
            uniformity, uniformity_se: None where all rows were compared; alignment: None without
            labels; unreadable: images that the table lacks, not among the n; zero_rows: of the n);
            arrays ``singular_values/FEATURES``, ``shares/FEATURES`` (the same divided by their sum,
            0 where they are rounding) and ``eigenvalues/FEATURES`` of the covariance. There are no
            scalars: tables may be of different images.

        Raises:
            UsageError: A table has fewer than two readable rows, or rows that are not finite.
        """
        check_requirements(self.requires, inputs)
        tables = list({table.path.resolve(): table for table in inputs["store"]}.values())
        config, provenance = describe_run(self.config, {"store": tables}, ("numpy", "torch"))
        result = Result("spectrum", config, tables={"spectrum": []}, provenance=provenance)
        result.shown = {"spectrum": _SHOWN}
        for name, table in zip(short_names(tables), tables, strict=True):
            x = kept_rows(table, table.valid)
            if len(x) < 2:
                raise UsageError(
                    f"{name}: {len(x)} of {len(table)} images could be read: give two or more"
                )
            try:
                self._measure(name, x, table, result)
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from error
        if any(row["alignment"] is not None for row in result.tables["spectrum"]):
            result.notes.append(
                "alignment is of two images of one class: stores hold no two views of an image"
            )
        _add_figures(result)
        return result

    def _measure(self, name: str, x: NDArray[Any], table: FeatureTable, result: Result) -> None:
        config, (n, d) = self.config, x.shape
        values, centred = singular_values(x), singular_values(x, center=True)
        zeros = n - int(np.count_nonzero(x.any(axis=1)))
        unreadable = len(table) - n
        if unreadable:
            what = f"{unreadable} of {len(table)} images, which could not be read"
            result.notes.append(f"{name}: left out {what}")
        if zeros:
            what = f"{zeros} of {n} rows are zero and have no direction"
            result.notes.append(f"{name}: {what}; uniformity and alignment leave them out")
        if n < d:
            result.notes.append(f"{name}: {n} images span at most {n} of {d} directions")

        def tried(measure: Callable[[], T]) -> T | None:
            try:
                return measure()
            except UsageError as error:
                result.notes.append(f"{name}: {error}")
                return None

        samples = config.samples if 0 < config.samples < n else None
        alpha, fit = tried(lambda: decay_exponent(centred)) or (None, None)
        even, error = tried(lambda: uniformity(x, samples=samples, seed=config.seed)) or (
            None,
            None,
        )
        close, labels = None, table.labels
        if labels is not None and labels.ndim == 1:
            close = tried(lambda: alignment(x, labels[table.valid]))
        rank = effective_rank(values)
        result.tables["spectrum"].append(
            {
                "features": name,
                "n": n,
                "d": d,
                "effective_rank": rank,
                "rank_share": rank / d,
                "participation_ratio": participation_ratio(centred),
                "alpha": alpha,
                "alpha_r2": fit,
                "uniformity": even,
                "uniformity_se": error if samples else None,
                "alignment": close,
                "unreadable": unreadable,
                "zero_rows": zeros,
            }
        )
        result.arrays[f"singular_values/{name}"] = values
        shares = values / (values.sum() or 1.0)
        result.arrays[f"shares/{name}"] = np.where(values > _DRAWN * values[0], shares, 0)
        result.arrays[f"eigenvalues/{name}"] = centred**2 / n


def _add_figures(result: Result) -> None:
    result.figures += [
        Figure(
            "singular_values",
            "curves",
            "shares",
            "Singular values, divided by their sum",
            "rank",
            "share",
            log_x=True,
        ),
        Figure(
            "effective_rank",
            "bar",
            "spectrum",
            "Effective rank (RankMe)",
            "features",
            "effective_rank",
        ),
    ]
