"""Heads rebuilt from their tensors: classifiers, projectors, prototypes.

Names and shapes tell linear layers and normalisations, and where a layer without parameters stood:
between two linear layers that is an activation, ReLU unless prototypes are normalised by weight
(DINO, which uses GELU). What comes after the last layer with parameters cannot be seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from featkit.backbones.checkpoints.tensors import StoredTensor

Tensors = Mapping[str, StoredTensor]

_BODY = re.compile(r"clf|layers|mlp|projection_head|projector|net")
_PROTOTYPES = re.compile(r"last_layer|prototypes\d*")


class Normalize(nn.Module):
    """Makes vectors have length 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, d) to (b, d)."""
        return functional.normalize(x, dim=1)


class PrototypeHead(nn.Module):
    """A projection, normalised, against prototypes.

    Args:
        projection: From features to an embedding.
        prototypes: One or more linear layers on the embedding's direction; their scores are
            joined.
    """

    def __init__(self, projection: nn.Module, prototypes: list[nn.Linear]) -> None:
        super().__init__()
        self.projection = projection
        self.prototypes = nn.ModuleList(prototypes)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (b, d) to scores (b, prototypes)."""
        embedding = functional.normalize(self.projection(x), dim=1)
        return torch.cat([layer(embedding) for layer in self.prototypes], 1)


def build_head(tensors: Tensors) -> nn.Module | None:
    """Build the head that has these tensors, with their values.

    Args:
        tensors: By name inside the head, such as ``0.weight`` or ``clf.0.weight``.

    Returns:
        The head in evaluation mode; None where the tensors are those of no known kind of head.
    """
    try:
        head = _build(tensors, nn.ReLU)
    except (KeyError, ValueError, RuntimeError):
        return None
    return head.eval() if head is not None else None


def _build(tensors: Tensors, activation: type[nn.Module]) -> nn.Module | None:
    parts = _parts(tensors)
    if "" in parts:
        return _layer(tensors) if len(parts) == 1 else None
    prototypes = [name for name in parts if _PROTOTYPES.fullmatch(name)]
    bodies = [name for name in parts if _BODY.fullmatch(name)]
    if parts.keys() == {"channel_bn", "clf"}:
        return _chain({"0": parts["channel_bn"], "1": parts["clf"]}, nn.Identity)
    if len(parts) != len(prototypes) + len(bodies) or len(bodies) > 1:
        return _chain(parts, activation) if all(map(str.isdigit, parts)) else None
    if any("weight_g" in name for name in tensors):
        activation = nn.GELU
    body = _build(parts[bodies[0]], activation) if bodies else nn.Identity()
    if body is None or not prototypes:
        return body
    layers = [_prototypes(parts[name]) for name in sorted(prototypes, key=_number)]
    return PrototypeHead(body, [layer for group in layers for layer in group])


def _parts(tensors: Tensors) -> dict[str, dict[str, StoredTensor]]:
    """Group by the first part of the name; tensors of the module itself are under ``""``."""
    parts: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in tensors.items():
        first, dot, rest = name.partition(".")
        parts.setdefault(first if dot else "", {})[rest if dot else name] = tensor
    return parts


def _layer(tensors: Tensors) -> nn.Module:
    if "running_mean" in tensors:
        return _batch_norm(tensors)
    if "weight_g" in tensors:
        return _prototypes(tensors)[0]
    if not tensors.keys() <= {"weight", "bias"}:
        raise ValueError("not a linear layer")
    return _linear(tensors["weight"].read(), tensors.get("bias"))


def _linear(weight: Tensor, bias: StoredTensor | None = None) -> nn.Linear:
    if weight.ndim != 2 or not weight.is_floating_point():
        raise ValueError("not a linear layer")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.float())
    if bias is not None:
        layer.bias = nn.Parameter(bias.read().float())
    return layer


def _batch_norm(tensors: Tensors) -> nn.BatchNorm1d:
    values = {name: tensor.read() for name, tensor in tensors.items()}
    values.setdefault("num_batches_tracked", torch.tensor(0))
    layer = nn.BatchNorm1d(len(values["running_mean"]), affine="weight" in values)
    layer.load_state_dict(values)
    return layer


def _prototypes(tensors: Tensors) -> list[nn.Linear]:
    """Build linear layers without bias, normalised by weight or not, numbered or not."""
    if "weight_g" in tensors:
        direction, length = tensors["weight_v"].read().float(), tensors["weight_g"].read().float()
        return [_linear(torch._weight_norm(direction, length, 0))]  # noqa: SLF001 - torch's own
    if "weight" in tensors:
        return [_linear(tensors["weight"].read())]
    groups = _parts(tensors)
    return [layer for name in sorted(groups, key=_number) for layer in _prototypes(groups[name])]


def _number(name: str) -> int:
    return int("0" + re.sub(r"\D", "", name))


def _chain(parts: Mapping[str, Tensors], activation: type[nn.Module]) -> nn.Module | None:
    """Build the numbered children of an ``nn.Sequential``, or heads that run in a row."""
    numbers = sorted(map(int, parts))
    modules: dict[int, nn.Module] = {}
    for number in numbers:
        child = _build(parts[str(number)], activation)
        if child is None:
            return None
        modules[number] = child
    layers: list[nn.Module] = [modules.get(numbers[0], nn.Identity())]
    for before, after in pairwise(numbers):
        are_heads = not isinstance(modules[before], nn.Linear | nn.BatchNorm1d)
        if after - before > 1 or are_heads:
            layers.append(activation())
        layers.append(modules[after])
    chain = nn.Sequential(*layers)
    return chain if _fits_together(chain) else None


def _fits_together(chain: nn.Module) -> bool:
    width = None
    for layer in chain.modules():
        if isinstance(layer, nn.BatchNorm1d):
            inputs = outputs = layer.num_features
        elif isinstance(layer, nn.Linear):
            inputs, outputs = layer.in_features, layer.out_features
        else:
            continue
        if width not in (None, inputs):
            return False
        width = outputs
    return True


def input_width(head: nn.Module) -> int:
    """Return how many dimensions the features have that a head reads.

    Example:
        >>> input_width(nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 4)))
        8
    """
    for layer in head.modules():
        if isinstance(layer, nn.BatchNorm1d):
            return layer.num_features
        if isinstance(layer, nn.Linear):
            return layer.in_features
    return 0


def describe_head(head: nn.Module) -> str:
    """Return the widths that a head goes through.

    Example:
        >>> describe_head(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)))
        '8 → 4 → 2'
        >>> describe_head(PrototypeHead(nn.Linear(8, 4), [nn.Linear(4, 2), nn.Linear(4, 3)]))
        '8 → 4 → 2 + 3'
    """
    if isinstance(head, PrototypeHead):
        counts = " + ".join(str(layer.out_features) for layer in head.prototypes)
        return f"{describe_head(head.projection) or input_width(head)} → {counts}"
    layers = [m for m in head.modules() if isinstance(m, nn.Linear)]
    if not layers:
        return ""
    return " → ".join(str(n) for n in [layers[0].in_features, *(m.out_features for m in layers)])
