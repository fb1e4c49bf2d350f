"""How diverse are features, layer by layer, and does error go with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featkit.analyses.base import Input, Result, check_requirements, describe_run
from featkit.analyses.diversity.comparison import compare_models
from featkit.analyses.diversity.config import DiversityConfig
from featkit.analyses.diversity.family import describe_model, merge, read_family
from featkit.analyses.diversity.layers import Layer, as_samples, as_units, choose_layers
from featkit.analyses.diversity.probe_error import probe_errors
from featkit.analyses.diversity.weights import layer_weights
from featkit.errors import UsageError
from featkit.ops.hyperspherical_energy import Energy, measure_energy
from featkit.ops.neighbors import Integers
from featkit.ops.unit_correlation import mean_absolute_correlation, spectral_evenness
from featkit.store.reader import FeatureTable

Row: TypeAlias = dict[str, Any]
Measured: TypeAlias = tuple[tuple[int, ...], Energy | str]
"""Number and width of points, and their energy or why they have none."""

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
            :func:`featkit.analyses.diversity.comparison.compare_models`.

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
        result.tables["energy"] = [
            row
            for layer in layers
            for row in self._rows(layer, draws[_store(layer.table)], result.notes)
        ]
        result.tables["energy"] += self._weights(layers, result.notes)
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

    def _rows(self, layer: Layer, draws: Sequence[Integers], notes: list[str]) -> Iterator[Row]:
        """Yield the rows of one layer; its activations are read once."""
        if set(self.config.over) == {"weights"}:
            return
        measured: dict[tuple[str, str, float], list[Measured]] = {}
        shared: dict[str, list[tuple[float, float]]] = {}
        for rows in draws:
            features = layer.table.numpy()[rows]
            for pooling in layer.poolings:
                units = as_units(features, pooling)
                alike = mean_absolute_correlation(units), spectral_evenness(units)
                shared.setdefault(pooling, []).append(alike)
                points = {"samples": as_samples(features, pooling), "units": units.T}
                for over, power in product(points, dict.fromkeys(self.config.power)):
                    if over in self.config.over:
                        found = self._measure(points[over], power)
                        measured.setdefault((pooling, over, power), []).append(found)
        about = {"backbone": layer.table.backbone, "tap": layer.table.tap, "layer": layer.name}
        for (pooling, over, power), repeats in measured.items():
            correlation, evenness = np.mean(shared[pooling], axis=0).tolist()
            yield from self._summary(
                {**about, "pooling": pooling, "over": over, "power": power},
                repeats,
                notes,
                _number(correlation),
                _number(evenness),
            )

    def _weights(self, layers: Sequence[Layer], notes: list[str]) -> Iterator[Row]:
        """Yield the rows of weights, once for each module."""
        seen = set()
        for layer in layers if "weights" in self.config.over else ():
            about = {"backbone": layer.table.backbone, "layer": layer.name}
            found = dict(layer_weights(layer.table))
            if not found:
                notes.append(f"{layer.table.backbone}/{layer.table.tap} has no weights of its own")
            for name, weights in found.items():
                if (layer.table.backbone, name) in seen:
                    continue
                seen.add((layer.table.backbone, name))
                own = {**about, "tap": name, "pooling": "none", "over": "weights"}
                for power in dict.fromkeys(self.config.power):
                    once = [self._measure(weights, power)]
                    yield from self._summary({**own, "power": power}, once, notes)

    def _measure(self, points: NDArray[Any], power: float) -> Measured:
        try:
            config = self.config
            return points.shape, measure_energy(points, power, config.space, config.kernel)
        except UsageError as error:
            return points.shape, str(error)

    def _summary(
        self,
        about: Row,
        measured: Sequence[Measured],
        notes: list[str],
        correlation: float | None = None,
        evenness: float | None = None,
    ) -> Iterator[Row]:
        """Yield the row of all repeats; where one has no energy, say why."""
        energies = [energy for _, energy in measured if isinstance(energy, Energy)]
        if len(energies) < len(measured):
            reason = next(energy for _, energy in measured if isinstance(energy, str))
            notes.append(f"{about['backbone']}/{about['tap']}, {about['over']}: {reason}")
            return
        (n, d), _ = measured[0]
        means = [energy.mean for energy in energies]
        total = float(np.mean([energy.total for energy in energies]))
        yield {
            **about,
            "space": self.config.space,
            "kernel": self.config.kernel,
            "n": n,
            "d": d,
            "repeats": len(energies),
            "energy": total,
            "mean_energy": float(np.mean(means)),
            "spread": float(np.std(means, ddof=1)) if len(means) > 1 else None,
            "diversity": -total,
            "duplicates": max(energy.duplicates for energy in energies),
            "zeros": max(energy.zeros for energy in energies),
            "correlation": correlation,
            "evenness": evenness,
        }


def _store(table: FeatureTable) -> Path:
    return table.path.parent.parent


def _name(layer: Layer) -> tuple[str, str]:
    return layer.table.backbone, layer.name


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
