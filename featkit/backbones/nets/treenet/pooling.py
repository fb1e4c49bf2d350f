"""From the last map of each leaf to a vector.

All of them map positions (b, g, p, c) of g leaves, the first of which is leaf ``first`` of the
tree, to vectors (b, g, c): a device that is fast with few leaves at a time is given few.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

GLIMPSES = 3
"""Times that recurrent attention looks at a map; the paper does not say how often."""


class AveragePool(nn.Module):
    """The mean over positions."""

    def forward(self, positions: Tensor, first: int = 0) -> Tensor:  # noqa: ARG002 - all alike
        """Map (b, g, p, c) to (b, g, c)."""
        return positions.mean(2)


class MaxPool(nn.Module):
    """The largest over positions."""

    def forward(self, positions: Tensor, first: int = 0) -> Tensor:  # noqa: ARG002 - all alike
        """Map (b, g, p, c) to (b, g, c)."""
        return positions.amax(2)


class AttentionPool(nn.Module):
    """A mean over positions, weighted by how well each answers a question that a leaf has learned.

    Args:
        leaves: Of the tree.
        channels: Of the maps.
    """

    def __init__(self, leaves: int, channels: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(leaves, channels))

    def forward(self, positions: Tensor, first: int = 0) -> Tensor:
        """Map (b, g, p, c) to (b, g, c)."""
        query = self.query[first : first + positions.shape[1]]
        return attend(positions, query.expand(len(positions), -1, -1))


class RecurrentAttentionPool(nn.Module):
    """Some looks at a map, each of which asks for what the ones before have not told.

    A state starts at 0; a look is a mean over positions, weighted by a question made of the state,
    and a gated recurrent unit takes it into the state, which is given back.

    Args:
        leaves: Of the tree; each has weights of its own.
        channels: Of the maps, and of the state.

    Source: Cho et al. 2014, arXiv:1406.1078, for the unit; Mnih et al. 2014, arXiv:1406.6247, for
    looking again.
    """

    def __init__(self, leaves: int, channels: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(leaves, channels))
        self.units = nn.ModuleList(nn.GRUCell(channels, channels) for _ in range(leaves))
        self.questions = nn.ModuleList(nn.Linear(channels, channels) for _ in range(leaves))

    def forward(self, positions: Tensor, first: int = 0) -> Tensor:
        """Map (b, g, p, c) to (b, g, c)."""
        return torch.stack(
            [self._one(leaf, first + number) for number, leaf in enumerate(positions.unbind(1))], 1
        )

    def _one(self, positions: Tensor, leaf: int) -> Tensor:
        b, _, c = positions.shape
        state = positions.new_zeros(b, c)
        for _ in range(GLIMPSES):
            query = self.query[leaf] + self.questions[leaf](state)
            state = self.units[leaf](attend(positions[:, None], query[:, None])[:, 0], state)
        return state


def attend(positions: Tensor, query: Tensor) -> Tensor:
    """Return the mean of positions (b, g, p, c), weighted by softmax(⟨query, position⟩ / √c).

    Args:
        positions: Of each leaf.
        query: (b, g, c).

    Example:
        >>> attend(torch.arange(4.0).view(1, 1, 4, 1), torch.zeros(1, 1, 1))
        tensor([[[1.5000]]])
    """
    scores = torch.matmul(positions, query[..., None]) / positions.shape[3] ** 0.5
    return torch.matmul(scores.softmax(2).transpose(2, 3), positions)[:, :, 0]


def make_pool(kind: str, leaves: int, channels: int) -> nn.Module:
    """Return the pool of that name, of :data:`featkit.backbones.nets.treenet.shape.Pool`."""
    if kind == "avg":
        return AveragePool()
    if kind == "max":
        return MaxPool()
    kinds = {"attention": AttentionPool, "recurrent": RecurrentAttentionPool}
    return kinds[kind](leaves, channels)
