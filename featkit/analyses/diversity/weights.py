"""The weights of layers, straight from their backbones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from featkit.analyses.diversity.layers import Layer
from featkit.backbones.base import Backbone
from featkit.backbones.resolve import load_backbone
from featkit.errors import FeatkitError, UsageError
from featkit.store.reader import FeatureTable


@dataclass(frozen=True)
class Weights:
    """The weights of one module.

    Attributes:
        layer: That it belongs to.
        module: Its name in the network.
        rows: A row for each filter or unit, (c, inputs).
    """

    layer: Layer
    module: str
    rows: NDArray[Any]


def read_weights(layers: Sequence[Layer]) -> tuple[list[Weights], list[str]]:
    """Return the weights of layers, each module once, and why some have none.

    A layer named like a module is that module; otherwise it is the one that was tapped. Of a block
    each convolution and linear layer is given; of a layer without any, nothing. A backbone is
    loaded once. One that cannot be had any more, is no longer that of the table, or was never a
    network has no weights.
    """
    found: dict[tuple[str, str], Weights] = {}
    lacking: dict[str, None] = {}
    by_network: dict[tuple[str, str], list[Layer]] = {}
    for layer in layers:
        by_network.setdefault((layer.table.backbone, layer.table.spec), []).append(layer)
    for (name, spec), own in by_network.items():
        try:
            backbone = load_backbone(spec)
        except FeatkitError as error:
            lacking[f"no weights of {name}: {error}"] = None
            continue
        made_by = backbone.identity()
        for layer in own:
            table = layer.table
            try:
                weights = dict(_layer_weights(backbone, made_by, table))
            except UsageError as error:
                lacking[f"no weights of {name}: {error}"] = None
                continue
            if not weights:
                lacking[f"{name}/{table.tap} has no weights of its own"] = None
            for module, rows in weights.items():
                found.setdefault((name, module), Weights(layer, module, rows))
    return list(found.values()), list(lacking)


def _layer_weights(
    backbone: Backbone, made_by: dict[str, Any], table: FeatureTable
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the weights in a table's layer, by module.

    Raises:
        UsageError: The backbone is no longer the one of the table.
    """
    if made_by != table.provenance.get("backbone"):
        raise UsageError(
            f"{table.spec}: its weights are not those that made {table.path}; leave weights out of "
            f"--over, or extract again"
        )
    modules = dict(backbone.module.named_modules())
    tapped = str(table.provenance.get("tap"))
    path = table.tap if table.tap in modules else tapped
    for name, module in modules.items():
        weight = getattr(module, "weight", None)
        if (name == path or name.startswith(f"{path}.")) and weight is not None and weight.ndim > 1:
            yield name, weight.detach().flatten(1).numpy()
