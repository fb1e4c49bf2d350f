"""The tensors of a model's file, compared with what is said of them before they are used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from featkit.analyses.ensemble.settings import Settings
from featkit.ops.mappers import Mappers


def take_components(tensors: dict[str, Tensor], init: str, inputs: int) -> tuple[Tensor, ...]:
    """Take mean and components out of the tensors of a file, if ψ starts from them.

    Raises:
        LookupError: There are none.
        ValueError: They are of other features.
    """
    if init != "pca":
        return ()
    mean, components = tensors.pop("pca.mean"), tensors.pop("pca.components")
    shapes = [tuple(mean.shape), tuple(components.shape)]
    if shapes != [(inputs,), (len(components), inputs)] or not _are_floats((mean, components)):
        raise ValueError("its principal components are of other features")
    return mean, components


def read_mappers(
    tensors: Mapping[str, Tensor],
    width: int,
    widths: Sequence[int],
    relus: Sequence[bool],
    settings: Settings,
) -> Mappers:
    """Return φ from the tensors of a file, which are compared before memory is taken.

    Raises:
        ValueError: They are of another φ.
    """
    last = 1 if len(set(widths)) == 1 else len(widths)
    if len(tensors) != 2 * (settings.depth - 1 + last):
        raise ValueError(f"{len(tensors)} weights are of another depth than {settings.depth}")
    with torch.device("meta"):
        hidden = settings.hidden or max(widths)
        mappers = Mappers(width, widths, relus, settings.depth, hidden)
    wanted = {f"mappers.{name}": value.shape for name, value in mappers.state_dict().items()}
    found = {name: value.shape for name, value in tensors.items()}
    if found != wanted or not _are_floats(tensors.values()):
        raise ValueError("the weights have other shapes than the settings say")
    mappers.to_empty(device="cpu").load_state_dict(
        {name.removeprefix("mappers."): value for name, value in tensors.items()}
    )
    return mappers.requires_grad_(requires_grad=False)


def _are_floats(tensors: Iterable[Tensor]) -> bool:
    return all(tensor.dtype == torch.float32 for tensor in tensors)
