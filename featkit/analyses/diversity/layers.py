"""The layers whose diversity is measured, and what a layer looks like as points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featkit.backbones.architectures import build
from featkit.backbones.base import Backbone
from featkit.backbones.probe import head_inputs, probe
from featkit.errors import BackboneError, UsageError
from featkit.store.reader import FeatureTable

HEAD = "head"
ENDS = ("avgpool", "res5avg", "res4avg", "global_pool", "flatten")
"""Taps that a head reads, the likelier first, by their names: of a network that is not known."""

POOLED = ("avg", "flatten")


@dataclass(frozen=True)
class Layer:
    """One layer of a backbone.

    Attributes:
        table: Its activations.
        name: As it was asked for: the tap, or ``head`` where another tap stands for it.
        poolings: How it is seen: ``avg`` and ``flatten`` for maps, otherwise as the table is.
    """

    table: FeatureTable
    name: str
    poolings: tuple[str, ...]

    @property
    def is_end(self) -> bool:
        """Whether this is the end of a network, a vector that no pooling changes."""
        own = self.table.pooling in ("none", "cls") and len(self.table.shape) == 2
        return own or self.name == HEAD or reads_as_head(self.table)


def as_points(features: NDArray[Any], pooling: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return images as points, and what each unit gives.

    Args:
        features: (n, d), tokens (n, t, d) or maps (n, c, h, w).
        pooling: ``avg`` or ``flatten`` of tokens and maps.

    Returns:
        A row for each image, float32 where there was something to average; and a column for each
        unit or channel, with a row for each image, for each position of an image with ``flatten``
        (n·h·w, c). Columns are contiguous where rows are not those of images.

    Example:
        >>> maps = np.arange(8.0).reshape(2, 2, 1, 2)
        >>> [points.tolist() for points in as_points(maps, "avg")]
        [[[0.5, 2.5], [4.5, 6.5]], [[0.5, 2.5], [4.5, 6.5]]]
        >>> as_points(maps, "flatten")[1].tolist()
        [[0.0, 2.0], [1.0, 3.0], [4.0, 6.0], [5.0, 7.0]]
    """
    if features.ndim == 2:
        return features, features
    unit = 2 if features.ndim == 3 else 1  # its axis
    if pooling == "flatten":
        columns = np.moveaxis(features, unit, 0)
        return features.reshape(len(features), -1), columns.reshape(len(columns), -1).T
    mean: NDArray[Any] = features.mean(1 if unit == 2 else (2, 3), dtype=np.float32)
    return mean, mean


def choose_layers(
    tables: Sequence[FeatureTable], taps: Sequence[str]
) -> tuple[list[Layer], list[str]]:
    """Return the layers in the order of ``taps``, for each backbone, and what must be said.

    Args:
        tables: Of any backbones. Maps are seen with both poolings.
        taps: Names of layers; none for all there are. Where a backbone has no ``head``, the layer
            that one would read stands for it.

    Raises:
        UsageError: A backbone has no such layer.
    """
    layers: list[Layer] = []
    headless: dict[str, list[str]] = {}
    for backbone, own in _by_backbone(tables).items():
        by_tap: dict[str, list[FeatureTable]] = {}
        for table in own:
            by_tap.setdefault(table.tap, []).append(table)
        for name in dict.fromkeys(taps) or by_tap:
            found = by_tap.get(name)
            if found is None and name == HEAD:
                end = last_features(own)
                if end is not None:
                    found = [end]
                    headless.setdefault(end.tap, []).append(backbone)
            if found is None:
                raise UsageError(
                    f"{backbone} has no {name} in {own[0].path.parent.parent}; it has "
                    f"{', '.join(by_tap)}: choose --taps among these, or extract it"
                )
            layers += _views(found, name)
    return layers, [
        f"no head in {', '.join(names)}: {end} stands for it" for end, names in headless.items()
    ]


def last_features(tables: Sequence[FeatureTable]) -> FeatureTable | None:
    """Return the table of one backbone that its head reads, or the only table of vectors."""
    vectors = [table for table in tables if len(table.shape) == 2]
    ends = [table for table in vectors if reads_as_head(table)]
    if ends:
        return min(ends, key=_rank)
    return vectors[0] if len(vectors) == 1 else None


def reads_as_head(table: FeatureTable) -> bool:
    """Return whether a table has what the head of its network reads.

    The network tells, where its architecture can be built
    (:func:`featkit.backbones.probe.head_inputs`), otherwise the name of the tap. Of a layer that
    the head reads, another pooling is taken too if it has such a name.
    """
    known = _known_ends(table)
    if not known:
        return table.tap in ENDS
    poolings = known.get(str(table.provenance.get("tap")), ())
    return table.pooling in poolings or bool(poolings and table.tap in ENDS)


def _rank(table: FeatureTable) -> tuple[bool, int]:
    exact = table.pooling in _known_ends(table).get(str(table.provenance.get("tap")), ())
    return not exact, ENDS.index(table.tap) if table.tap in ENDS else len(ENDS)


def _known_ends(table: FeatureTable) -> dict[str, tuple[str, ...]]:
    made_by = table.provenance.get("backbone")
    architecture = made_by.get("architecture") if isinstance(made_by, dict) else None
    return _ends_of(architecture) if isinstance(architecture, str) else {}


@cache
def _ends_of(architecture: str) -> dict[str, tuple[str, ...]]:
    """Return the layers that a head reads, each with its poolings; none where that is not known."""
    try:
        backbone = Backbone(architecture, architecture, build(architecture))
        for value in backbone.module.state_dict().values():
            # blocks whose last scale is 0, or norms with neither scale nor shift, give their input
            if value.is_floating_point() and value.min() == value.max():
                value.uniform_(0.1, 0.3)
        taps = head_inputs(backbone, probe(backbone))
    except BackboneError:
        return {}
    return {tap.path: tuple(t.pooling for t in taps if t.path == tap.path) for tap in taps}


def _views(tables: Sequence[FeatureTable], name: str) -> list[Layer]:
    """Return the layers of a tap; maps give both poolings, and make tables of these needless."""
    maps = [Layer(table, name, POOLED) for table in tables if len(table.shape) > 2]
    return maps + [
        Layer(table, name, (table.pooling,))
        for table in tables
        if len(table.shape) == 2 and not (maps and table.pooling in POOLED)
    ]


def _by_backbone(tables: Sequence[FeatureTable]) -> dict[str, list[FeatureTable]]:
    """Group tables by backbone; two stores may not both have one of the same name.

    Raises:
        UsageError: They do.
    """
    groups: dict[str, list[FeatureTable]] = {}
    for table in tables:
        groups.setdefault(table.backbone, []).append(table)
    for backbone, own in groups.items():
        stores = {str(table.path.resolve().parent.parent) for table in own}
        if len(stores) > 1:
            raise UsageError(
                f"{' and '.join(sorted(stores))} both have a backbone {backbone}: select the "
                f"tables of one, as in STORE:{backbone}"
            )
    return groups
