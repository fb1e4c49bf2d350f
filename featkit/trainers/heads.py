"""What stands between features and losses while a network is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from featkit.backbones.base import Network
from featkit.backbones.layer_names import find_classifier, replace_module
from featkit.errors import UsageError


def with_head(network: Network, size: int | None, make: Callable[[int], nn.Module]) -> Network:
    """Put a head in place of the linear layer that ends a network, and set its input.

    Args:
        network: Its module is changed.
        size: Pixels of the input; None for its own.
        make: Called with the dimensions of the features.

    Raises:
        UsageError: It ends in no linear layer, or its input is not square.

    Example:
        >>> from featkit.backbones.architectures import build
        >>> network = with_head(build("cifar_resnet8"), 16, lambda d: nn.Linear(d, 5))
        >>> network.head, network.preprocessing.size
        ('linear', (16, 16))
    """
    found = find_classifier(network.module)
    if found is None:
        raise UsageError(
            f"arch {network.architecture}: ends in no linear layer that a head could replace"
        )
    place, classifier = found
    recipe = network.preprocessing if size is None else network.preprocessing.resized(size)
    if recipe.size[0] != recipe.size[1]:
        raise UsageError(f"arch {network.architecture}: its input is not square; give a --size")
    replace_module(network.module, place, make(classifier.in_features))
    return replace(network, preprocessing=recipe, head=place)


class DINOHead(nn.Module):
    """DINO's head: three layers to an embedding, and its cosines with prototypes.

    Args:
        features: Dimensions that come.
        hidden: Of the layers between.
        bottleneck: Of the embedding.
        prototypes: Scores that go.
        norm: Whether the layers between are normalised by batch.

    Source: Caron et al. 2021, arXiv:2104.14294, appendix C; names of tensors as in their
    class of this name, so that whatever reads theirs reads these.

    Example:
        >>> DINOHead(64, 32, 16, 100)(torch.ones(2, 64)).shape
        torch.Size([2, 100])
    """

    def __init__(
        self, features: int, hidden: int, bottleneck: int, prototypes: int, norm: bool = False
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (features, hidden):
            layers += [nn.Linear(inputs, hidden), *([nn.BatchNorm1d(hidden)] * norm), nn.GELU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))
        self.last_layer = UnitRows(bottleneck, prototypes)
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (b, d) to scores (b, prototypes), -1 to 1."""
        scores: Tensor = self.last_layer(functional.normalize(self.mlp(x), dim=1))
        return scores


class UnitRows(nn.Module):
    """A linear layer without bias, its rows of length 1 (weight normalisation, the length fixed).

    Args:
        inputs: Dimensions that come.
        outputs: Dimensions that go.
    """

    weight_g: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("weight_g", torch.ones(outputs, 1))
        self.weight_v = nn.Parameter(nn.Linear(inputs, outputs, bias=False).weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, inputs) to (b, outputs)."""
        return functional.linear(x, functional.normalize(self.weight_v, dim=1) * self.weight_g)


def byol_head(features: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return BYOL's projection, and its prediction: two layers, normalised by batch between.

    Source: Grill et al. 2020, arXiv:2006.07733, sec. 3.3.
    """
    return nn.Sequential(
        nn.Linear(features, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )
