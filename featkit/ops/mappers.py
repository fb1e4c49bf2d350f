"""Multi-layer perceptrons side by side, from one representation to the features of each model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Mappers(nn.Module):
    """φ_1 … φ_m: one perceptron a model, all evaluated at once.

    ``φ_j(ψ) = r_j(W_L … relu(W_1 ψ + b_1) … + b_L)``, with a ReLU between layers, and a last one
    r_j where the model's features are non-negative.

    Args:
        width: w, dimensions of ψ.
        outputs: d_j, dimensions of each model's features.
        relus: Whether r_j is a ReLU, for each model.
        depth: L, number of layers.
        hidden: Dimensions between layers; None for w.

    Cost: a batch of b rows takes 2·b·m·(w·h + (L - 2)·h² + h·d) operations forwards.

    Source: Wallace et al. 2021, arXiv:2110.10293, sec. 3 (two layers, a ReLU after both).

    Example:
        >>> mappers = Mappers(4, [3, 5], [True, False])
        >>> [tuple(y.shape) for y in mappers(torch.zeros(2, 4))]
        [(2, 3), (2, 5)]
    """

    def __init__(
        self,
        width: int,
        outputs: Sequence[int],
        relus: Sequence[bool],
        depth: int = 2,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.width: int = width
        self.outputs = tuple(outputs)
        self.relus = tuple(relus)
        sizes = [width, *[hidden or width] * (depth - 1)]
        count = len(outputs)
        self.weights = nn.ParameterList([torch.empty(count, a, b) for a, b in pairwise(sizes)])
        self.biases = nn.ParameterList([torch.empty(count, 1, b) for b in sizes[1:]])
        groups = [(1, d) for d in outputs]
        if len(set(outputs)) == 1:
            groups = [(count, outputs[0])]
        self.last_weights = nn.ParameterList([torch.empty(g, sizes[-1], d) for g, d in groups])
        self.last_biases = nn.ParameterList([torch.empty(g, 1, d) for g, d in groups])
        self.reset()

    def reset(self) -> None:
        """Draw weights and biases as ``torch.nn.Linear`` does, uniformly within 1/√inputs."""
        weights = [*self.weights, *self.last_weights]
        for weight, bias in zip(weights, [*self.biases, *self.last_biases], strict=True):
            bound = 1 / math.sqrt(weight.shape[1])
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)

    def set_last_bias(self, means: Sequence[Tensor]) -> None:
        """Let every φ_j start near the mean of its model's features.

        Args:
            means: (d_j) each.
        """
        with torch.no_grad():
            if len(self.last_biases) == 1:
                self.last_biases[0].copy_(torch.stack(list(means))[:, None])
            else:
                for bias, mean in zip(self.last_biases, means, strict=True):
                    bias.copy_(mean[None, None])

    def forward(self, psi: Tensor) -> list[Tensor]:
        """Map (b, w) to (b, d_j) for each model."""
        x = psi.expand(len(self.outputs), *psi.shape)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = torch.baddbmm(bias, x, weight).relu_()
        if len(self.last_weights) == 1:
            found = list(torch.baddbmm(self.last_biases[0], x, self.last_weights[0]))
        else:
            found = [
                torch.addmm(bias[0], row, weight[0])
                for row, weight, bias in zip(x, self.last_weights, self.last_biases, strict=True)
            ]
        return [y.relu() if r else y for y, r in zip(found, self.relus, strict=True)]
