"""What a backbone is: a network, its preprocessing, and the identity of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from featkit.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class CheckpointReport:
    """What was read from a checkpoint file, and how it was understood.

    Attributes:
        file: The file's name.
        sha256: Of its bytes.
        layout: The kind of checkpoint it was taken for.
        weights: Which of its networks was taken.
        others: The other networks in it.
        architecture: What was built.
        tensors: Number of tensors that were loaded, those of the head included.
        heads: The widths of the head that was kept, such as ``2048 → 128``; empty where the file
            has none.
        left_out: Parts of the file that belong to heads which were not kept.
        preprocessing: Whose it is: the ``layout``'s, the ``user``'s, or, where the file does not
            tell, the usual one of the ``architecture``.
        method: What it was trained with, where it is from a training run of featkit.
        epochs: How long, likewise.
    """

    file: str
    sha256: str
    layout: str
    weights: str
    others: tuple[str, ...]
    architecture: str
    tensors: int
    heads: tuple[str, ...]
    left_out: tuple[str, ...]
    preprocessing: str
    method: str | None = None
    epochs: int | None = None


@dataclass(frozen=True)
class Network:
    """An architecture, built, with the preprocessing that it expects.

    Attributes:
        architecture: Its name with its library, such as ``torchvision:resnet50``.
        module: The network in evaluation mode.
        preprocessing: From a decoded image to its input.
        head: Path of the module that makes scores or an embedding of its features; None for the
            linear layer that ends it, if there is one.
        checkpoint: The file that its weights are from, if there is one.
    """

    architecture: str
    module: nn.Module
    preprocessing: Preprocessing
    head: str | None = None
    checkpoint: CheckpointReport | None = None


@dataclass(frozen=True)
class Backbone:
    """A network with weights, ready to be asked for activations.

    Attributes:
        name: What tables made from it are called.
        spec: How the user asked for it.
        network: The architecture with its weights loaded.
    """

    name: str
    spec: str
    network: Network

    @property
    def module(self) -> nn.Module:
        """The network itself."""
        return self.network.module

    @property
    def preprocessing(self) -> Preprocessing:
        """From a decoded image to the network's input."""
        return self.network.preprocessing

    @property
    def weights(self) -> str:
        """The sha256 over every tensor of the state dict, as it is now.

        Cost: one pass over the weights.
        """
        return hash_tensors(self.module.state_dict())

    def identity(self) -> dict[str, Any]:
        """The backbone's part of a table's provenance."""
        return {"architecture": self.network.architecture, "weights": self.weights}


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of named tensors, independent of their order, device and strides.

    Cost: one pass over the bytes.

    Example:
        >>> a = {"w": torch.zeros(2), "b": torch.ones(1)}
        >>> hash_tensors(a) == hash_tensors(dict(reversed(a.items())))
        True
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
