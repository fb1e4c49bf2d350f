"""How diverse are features, layer by layer, and does error go with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featkit.analyses.base import Input, Result, check_requirements, describe_run
from featkit.analyses.diversity.comparison import compare_models, repeats_name
from featkit.analyses.diversity.config import DiversityConfig
from featkit.analyses.diversity.family import describe_model, merge, read_family
from featkit.analyses.diversity.layers import Layer, as_points, choose_layers
from featkit.analyses.diversity.probe_error import probe_errors
from featkit.analyses.diversity.weights import layer_weights
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
        "diversity", "error", "correlation", "evenness",
    ),
    "most_diverse": (),
    "correlations": (),
}  # fmt: skip


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
            inputs: ``store``, any tables; ``train``, those of the same names from other images.

        Returns:
            Tables ``energy`` (a row for each layer, pooling, kind of point and power: the mean over
            the repeats of E and of E a pair, diversity = -E, spread = the standard deviation of the
            mean energy over the repeats; correlation and evenness of the layer's units; the
            backbone's error), ``family`` (a row a backbone), and those of
            :func:`featkit.analyses.diversity.comparison.compare_models`; where images are drawn
            several times, an array for each row, called as in
            :func:`featkit.analyses.diversity.comparison.repeats_name`: its mean energy in each
            repeat. A repeat is the same images for every layer of a store, so that the energies of
            two layers can be subtracted.

        Raises:
            UsageError: A layer is not there, or a model cannot be described as asked.
        """
        check_requirements(self.requires, inputs)
        tables = inputs["store"]
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
        draws = self._draws(layers)
        rows = (self._rows(layer, draws[_store(layer.table)], result) for layer in layers)
        result.tables["energy"] = [*chain.from_iterable(rows), *self._weights(layers, result)]
        family = {
            name: merge(describe_model(table), given.get(name)) for name, table in backbones.items()
        }
        if self.config.probe:
            asked = [name for name, model in family.items() if model.error is None]
            found = probe_errors(asked, tables, inputs.get("train", ()), result.notes)
            family |= {name: merge(family[name], model) for name, model in found.items()}
        result.scalars = {
            "backbones": len(backbones),
            "layers": len({(layer.table.backbone, layer.name) for layer in layers}),
            "samples": min(len(rows[0]) for rows in draws.values()),
            "repeats": max(map(len, draws.values())),
        }
        for row in result.tables["energy"]:
            row["error"] = family[row["backbone"]].error
        compare_models(result, family, {_name(layer) for layer in layers if layer.is_end})
        return result

    def _draws(self, layers: Sequence[Layer]) -> dict[Path, list[Integers]]:
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
            draws[store] = [
                rows if few else np.sort(rng.permutation(rows)[: self.config.samples])
                for _ in range(1 if few else self.config.repeats)
            ]
        return draws

    def _rows(self, layer: Layer, draws: Sequence[Integers], result: Result) -> Iterator[Row]:
        """Yield the rows of one layer; its activations are read once."""
        if set(self.config.over) == {"weights"}:
            return
        measured: dict[tuple[str, str], list[Measured]] = {}
        alike: dict[str, list[UnitCorrelation]] = {}
        for rows in draws:
            features = layer.table.numpy()[rows]
            for pooling in layer.poolings:
                samples, units = as_points(features, pooling)
                alike.setdefault(pooling, []).append(correlate_units(units))
                for over, points in (("samples", samples), ("units", units.T)):
                    if over in self.config.over:
                        measured.setdefault((pooling, over), []).append(self._measure(points))
        about = {"backbone": layer.table.backbone, "tap": layer.table.tap, "layer": layer.name}
        for (pooling, over), repeats in measured.items():
            own = {**about, "pooling": pooling, "over": over}
            yield from self._summary(own, repeats, result, alike[pooling])

    def _weights(self, layers: Sequence[Layer], result: Result) -> Iterator[Row]:
        """Yield the rows of weights, once for each module."""
        seen = set()
        for layer in layers if "weights" in self.config.over else ():
            about = {"backbone": layer.table.backbone, "layer": layer.name}
            found = dict(layer_weights(layer.table))
            if not found:
                backbone, tap = layer.table.backbone, layer.table.tap
                result.notes.append(f"{backbone}/{tap} has no weights of its own")
            for name, weights in found.items():
                if (layer.table.backbone, name) in seen:
                    continue
                seen.add((layer.table.backbone, name))
                own = {**about, "tap": name, "pooling": "none", "over": "weights"}
                yield from self._summary(own, [self._measure(weights)], result)

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
        found = [energies for _, energies in measured if not isinstance(energies, str)]
        if len(found) < len(measured):
            reason = next(energies for _, energies in measured if isinstance(energies, str))
            result.notes.append(f"{about['backbone']}/{about['tap']}, {about['over']}: {reason}")
            return
        (n, d), _ = measured[0]
        for power, energies in zip(
            dict.fromkeys(self.config.power), zip(*found, strict=True), strict=True
        ):
            means = [energy.mean for energy in energies]
            total = float(np.mean([energy.total for energy in energies]))
            row = {
                **about,
                "power": power,
                "space": self.config.space,
                "kernel": self.config.kernel,
                "n": n,
                "d": d,
                "repeats": len(means),
                "energy": total,
                "mean_energy": float(np.mean(means)),
                "spread": float(np.std(means, ddof=1)) if len(means) > 1 else None,
                "diversity": -total,
                "duplicates": max(energy.duplicates for energy in energies),
                "zeros": max(energy.zeros for energy in energies),
                "correlation": _mean([units.mean_absolute for units in alike]),
                "evenness": _mean([units.evenness for units in alike]),
            }
            if len(means) > 1:
                result.arrays[repeats_name(row)] = np.array(means)
            yield row


def _store(table: FeatureTable) -> Path:
    return table.path.parent.parent


def _name(layer: Layer) -> tuple[str, str]:
    return layer.table.backbone, layer.name


def _mean(values: Sequence[float]) -> float | None:
    """Return the mean, None where there is none."""
    mean = float(np.mean(values)) if values else math.nan
    return None if math.isnan(mean) else mean
