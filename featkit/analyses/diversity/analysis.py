"""How diverse are features, layer by layer, and does error go with it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featkit.analyses.base import Input, Result, check_requirements, describe_run
from featkit.analyses.diversity.comparison import compare_models, corrected_spread, repeats_name
from featkit.analyses.diversity.config import DiversityConfig
from featkit.analyses.diversity.family import describe_model, merge, read_family
from featkit.analyses.diversity.layers import Layer, as_points, choose_layers
from featkit.analyses.diversity.probe_error import ProbeError, check_train, probe_errors
from featkit.analyses.diversity.weights import Weights, read_weights
from featkit.errors import UsageError
from featkit.ops.hyperspherical_energy import Energy, measure_energies
from featkit.ops.neighbors import Integers
from featkit.ops.unit_correlation import UnitCorrelation, correlate_units
from featkit.store.reader import FeatureTable

Row: TypeAlias = dict[str, Any]
Measured: TypeAlias = tuple[tuple[int, ...], tuple[Energy, ...] | str]
"""Number and width of points, and their energy for each power or why they have none."""

SHOWN = {
    "energy": (
        "backbone", "tap", "pooling", "over", "power", "n", "d", "mean_energy", "spread",
        "mean_diversity", "error", "correlation", "evenness",
    ),
    "most_diverse": (),
    "correlations": (),
}  # fmt: skip

SHOWN_ERRORS = ("backbone", "error", "error_low", "error_high")
"""Of the table ``family``, where probes were learned."""

POINTS = {"samples": "samples", "units": "units", "weights": "filters"}
"""What notes call the points."""


@dataclass(frozen=True)
class Draws:
    """The images of a store that are measured.

    Attributes:
        repeats: Rows of each repeat.
        share: Of the readable images, in each.
        unreadable: Images that some layer lacks.
    """

    repeats: list[Integers]
    share: float
    unreadable: int


class Diversity:
    """How diverse features are: hyperspherical energy of every layer, against error.

    Images are drawn at random, the same for every layer; the energy of their features, of the units
    that made them, and of the weights, is the lower the more diverse they are.
    """

    inputs: ClassVar[tuple[Input, ...]] = (
        Input("STORE", "tables of held-out images, of one backbone or several", several=True),
        Input("TRAIN", "tables of the same backbones, which probes learn from", optional=True),
    )
    requires: ClassVar[frozenset[str]] = frozenset()
    Config: ClassVar[type[Any]] = DiversityConfig

    def __init__(self, config: DiversityConfig | None = None) -> None:
        self.config = config or DiversityConfig()

    def run(self, inputs: Mapping[str, Sequence[FeatureTable]]) -> Result:
        """Measure every layer, and compare models.

        Args:
            inputs: ``store``, any tables, of which one given twice is measured once; ``train``,
                those of the same names from other images.

        Returns:
            Tables ``energy`` (a row for each layer, pooling, kind of point and power: the mean over
            the repeats of E and of E a pair, diversity and mean_diversity = minus those, spread as
            in :func:`featkit.analyses.diversity.comparison.corrected_spread`, share = of the
            readable images in each repeat; correlation and evenness of the layer's units;
            the backbone's error), ``family`` (a row a backbone; error_low and error_high are the
            95 % interval of the error of a probe), and those of
            :func:`featkit.analyses.diversity.comparison.compare_models`; where images are drawn
            several times, an array for each row, called as in
            :func:`featkit.analyses.diversity.comparison.repeats_name`: its mean energy in each
            repeat. A repeat is the same images for every layer of a store, so that the energies of
            two layers can be subtracted. A layer whose energy no float holds has no row, but a
            note. Scalar ``unreadable``: images that some layer lacks, and none is measured on.

        Raises:
            UsageError: A layer is not there, a model cannot be described as asked, no weights can
                be had where nothing else is asked for, or ``train`` does not fit; before any layer
                is measured.
        """
        check_requirements(self.requires, inputs)
        inputs = {
            name: list({table.path.resolve(): table for table in given}.values())
            for name, given in inputs.items()
        }
        tables, train = inputs["store"], inputs.get("train", ())
        given = read_family(self.config.family) if self.config.family else {}
        layers, notes = choose_layers(tables, self.config.taps)
        backbones = {layer.table.backbone: layer.table for layer in layers}
        strange = [name for name in given if name not in backbones]
        if strange:
            raise UsageError(
                f"family {self.config.family}: no backbone {strange[0]!r} among the tables; there "
                f"are {', '.join(backbones)}"
            )
        config, provenance = describe_run(self.config, inputs, ("torch", "numpy", "scipy"))
        provenance["seed"] = self.config.seed
        result = Result("diversity", config, provenance=provenance, notes=notes, shown=SHOWN)
        family = {
            name: merge(describe_model(table), given.get(name)) for name, table in backbones.items()
        }
        asked = [name for name, model in family.items() if model.error is None]
        if self.config.probe:
            check_train(asked, tables, train)
        draws = self._draws(layers)
        weights = self._weights(layers, result)
        rows = (self._rows(layer, draws[_store(layer.table)], result) for layer in layers)
        result.tables["energy"] = [
            *chain.from_iterable(rows),
            *chain.from_iterable(self._weight_rows(found, result) for found in weights),
        ]
        errors: dict[str, ProbeError] = {}
        if self.config.probe:
            errors = probe_errors(asked, tables, train, self.config.seed, result.notes)
            family |= {name: replace(family[name], error=e.error) for name, e in errors.items()}
        result.scalars = {
            "backbones": len(backbones),
            "layers": len({(layer.table.backbone, layer.name) for layer in layers}),
            "samples": min(len(own.repeats[0]) for own in draws.values()),
            "repeats": max(len(own.repeats) for own in draws.values()),
            "unreadable": sum(own.unreadable for own in draws.values()),
        }
        for row in result.tables["energy"]:
            row["error"] = family[row["backbone"]].error
        compare_models(result, family, {_name(layer) for layer in layers if layer.is_end})
        for row in result.tables["family"]:
            own = errors.get(row["backbone"])
            row["error_low"], row["error_high"] = (own.low, own.high) if own else (None, None)
        if errors:
            result.shown = {**SHOWN, "family": SHOWN_ERRORS}
        return result

    def _draws(self, layers: Sequence[Layer]) -> dict[Path, Draws]:
        """Draw the images of each repeat, for each store, among those that every layer has."""
        readable: dict[Path, NDArray[np.bool_]] = {}
        for layer in layers:
            store = _store(layer.table)
            readable[store] = readable.get(store, layer.table.valid) & layer.table.valid
        draws = {}
        for store, valid in readable.items():
            rows = np.flatnonzero(valid)
            if len(rows) < 2:
                raise UsageError(f"{store}: {len(rows)} readable image(s), and two are needed")
            rng = np.random.default_rng(self.config.seed)
            few = len(rows) <= self.config.samples
            repeats = [
                rows if few else np.sort(rng.permutation(rows)[: self.config.samples])
                for _ in range(1 if few else self.config.repeats)
            ]
            share = len(repeats[0]) / len(rows)
            draws[store] = Draws(repeats, share, len(valid) - len(rows))
        return draws

    def _rows(self, layer: Layer, draws: Draws, result: Result) -> Iterator[Row]:
        """Yield the rows of one layer; its activations are read once."""
        if set(self.config.over) == {"weights"}:
            return
        measured: dict[tuple[str, str], list[Measured]] = {}
        alike: dict[str, list[UnitCorrelation]] = {}
        for rows in draws.repeats:
            features = layer.table.numpy()[rows]
            for pooling in layer.poolings:
                samples, units = as_points(features, pooling)
                alike.setdefault(pooling, []).append(correlate_units(units))
                for over, points in (("samples", samples), ("units", units.T)):
                    if over in self.config.over:
                        measured.setdefault((pooling, over), []).append(self._measure(points))
        about = {"backbone": layer.table.backbone, "tap": layer.table.tap, "layer": layer.name}
        for (pooling, over), repeats in measured.items():
            own = {**about, "pooling": pooling, "over": over, "share": draws.share}
            yield from self._summary(own, repeats, result, alike[pooling])

    def _weights(self, layers: Sequence[Layer], result: Result) -> list[Weights]:
        """Read the weights that are asked for; say which cannot be had.

        Raises:
            UsageError: Nothing else is asked for, and there are none.
        """
        if "weights" not in self.config.over:
            return []
        weights, lacking = read_weights(layers)
        if not weights and set(self.config.over) == {"weights"}:
            raise UsageError(f"over weights: {lacking[0]}")
        result.notes += lacking
        return weights

    def _weight_rows(self, weights: Weights, result: Result) -> Iterator[Row]:
        """Yield the rows of a module's weights."""
        table, layer = weights.layer.table, weights.layer.name
        about = {"backbone": table.backbone, "layer": layer, "tap": weights.module}
        own = {**about, "pooling": "none", "over": "weights", "share": None}
        yield from self._summary(own, [self._measure(weights.rows)], result)

    def _measure(self, points: NDArray[Any]) -> Measured:
        config = self.config
        powers = tuple(dict.fromkeys(config.power))
        try:
            return points.shape, measure_energies(points, powers, config.space, config.kernel)
        except UsageError as error:
            return points.shape, str(error)

    def _summary(
        self,
        about: Row,
        measured: Sequence[Measured],
        result: Result,
        alike: Sequence[UnitCorrelation] = (),
    ) -> Iterator[Row]:
        """Yield a row for each power, of all repeats; where one has no energy, say why."""
        where, noun = _where(about), POINTS[about["over"]]
        found = [energies for _, energies in measured if not isinstance(energies, str)]
        if len(found) < len(measured):
            reason = next(energies for _, energies in measured if isinstance(energies, str))
            said = re.sub(r"\brows\b", noun, reason)
            result.notes.append(f"{where}: {said}")
            return
        (n, d), _ = measured[0]
        # whatever the power, the same points and pairs are left out
        result.notes += (f"{where}: {what}" for what in _left_out([f[0] for f in found], n, noun))
        for power, energies in zip(
            dict.fromkeys(self.config.power), zip(*found, strict=True), strict=True
        ):
            means = np.array([energy.mean for energy in energies])
            with np.errstate(over="ignore", invalid="ignore"):  # left out below
                total, mean = float(np.mean([e.total for e in energies])), float(means.mean())
                spread = corrected_spread(means, about["share"]) if len(means) > 1 else None
            if not np.isfinite([total, mean, spread or 0.0]).all():
                result.notes.append(
                    f"{where}: left out at s = {power:g}, where its energy is more than a float "
                    f"holds: give a smaller power"
                )
                continue
            row = {
                **about,
                "power": power,
                "space": self.config.space,
                "kernel": self.config.kernel,
                "n": n,
                "d": d,
                "repeats": len(means),
                "energy": total,
                "mean_energy": mean,
                "spread": spread,
                "diversity": -total,
                "mean_diversity": -mean,
                "duplicates": max(energy.duplicates for energy in energies),
                "zeros": max(energy.zeros for energy in energies),
                "correlation": _mean([units.mean_absolute for units in alike]),
                "evenness": _mean([units.evenness for units in alike]),
            }
            if len(means) > 1:
                result.arrays[repeats_name(row)] = means
            yield row


def _where(about: Row) -> str:
    """Return what is measured, as notes name it: ``net/conv1.avg, units``."""
    pooling = "" if about["over"] == "weights" else f".{about['pooling']}"
    return f"{about['backbone']}/{about['tap']}{pooling}, {about['over']}"


def _left_out(energies: Sequence[Energy], n: int, noun: str) -> Iterator[str]:
    """Yield what the energy of n points leaves out, in the repeat with the most of it."""
    zeros = [energy.zeros for energy in energies]
    if max(zeros):
        most = "" if len(set(zeros)) == 1 else "up to "
        yield f"{most}{max(zeros)} of {n} {noun} are zero and have no direction; left out"
    alike = max(energies, key=lambda energy: energy.duplicates)
    if alike.duplicates:
        most = "" if len({energy.duplicates for energy in energies}) == 1 else "up to "
        pairs = alike.pairs + alike.duplicates
        yield (
            f"{most}{alike.duplicates:,} of {pairs:,} ordered pairs of {noun} point the same way; "
            f"left out"
        )


def _store(table: FeatureTable) -> Path:
    return table.path.resolve().parent.parent


def _name(layer: Layer) -> tuple[str, str]:
    return layer.table.backbone, layer.name


def _mean(values: Sequence[float]) -> float | None:
    """Return the mean, None where there is none."""
    mean = float(np.mean(values)) if values else math.nan
    return None if math.isnan(mean) else mean
