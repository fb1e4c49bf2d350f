"""The weights of a layer, straight from its backbone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from featkit.backbones.resolve import load_backbone
from featkit.errors import UsageError
from featkit.store.reader import FeatureTable


def layer_weights(table: FeatureTable) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the weights in a table's layer: name, and a row for each filter or unit, (c, inputs).

    A layer named like a module is that module; otherwise it is the one that was tapped. Of a block
    each convolution and linear layer is given; of a layer without any, nothing.

    Raises:
        UsageError: The backbone cannot be had any more, or is no longer the one of the table.
    """
    backbone = load_backbone(table.spec)
    wanted = table.provenance["backbone"]
    if backbone.identity() != wanted:
        raise UsageError(
            f"{table.spec}: its weights are not those that made {table.path}; leave weights out of "
            f"--over, or extract again"
        )
    modules = dict(backbone.module.named_modules())
    tapped = str(table.provenance["tap"])
    path = table.tap if table.tap in modules else tapped
    for name, module in modules.items():
        weight = getattr(module, "weight", None)
        if (name == path or name.startswith(f"{path}.")) and weight is not None and weight.ndim > 1:
            yield name, weight.detach().flatten(1).numpy()
