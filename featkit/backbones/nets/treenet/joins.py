"""From the vectors of all leaves to one: each join maps (b, m, d) to (b, features).

Source: Grant, Dias, Kulkarni, Spontaneous decomposition from grouped network pathways, sec. 3.2.2.
"""

from __future__ import annotations

from torch import Tensor, nn

DENSE = 256
"""Units of each of the dense join's three layers; the paper leaves them open. As many as DINO's
projection has before its prototypes, so that neither narrows what the other is given."""

HEADS = 4
"""Of the attention; 16 dimensions each where leaves give 64."""


class AverageJoin(nn.Module):
    """The mean of all leaves."""

    def forward(self, leaves: Tensor) -> Tensor:
        """Map (b, m, d) to (b, d)."""
        return leaves.mean(1)


class MaxJoin(nn.Module):
    """The largest of all leaves, dimension for dimension."""

    def forward(self, leaves: Tensor) -> Tensor:
        """Map (b, m, d) to (b, d)."""
        return leaves.amax(1)


class ConcatJoin(nn.Module):
    """All leaves side by side."""

    def forward(self, leaves: Tensor) -> Tensor:
        """Map (b, m, d) to (b, m·d)."""
        return leaves.flatten(1)


class DenseJoin(nn.Module):
    """Three layers that read all leaves side by side.

    Args:
        leaves: Of the tree.
        width: Dimensions of a leaf.
    """

    def __init__(self, leaves: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(leaves * width, DENSE),
            nn.ReLU(),
            nn.Linear(DENSE, DENSE),
            nn.ReLU(),
            nn.Linear(DENSE, DENSE),
        )

    def forward(self, leaves: Tensor) -> Tensor:
        """Map (b, m, d) to (b, 256)."""
        joined: Tensor = self.layers(leaves.flatten(1))
        return joined


class AttentionJoin(nn.Module):
    """One layer of attention of every leaf to every other, and the mean of what they make of it.

    Args:
        width: Dimensions of a leaf, a multiple of 4.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)

    def forward(self, leaves: Tensor) -> Tensor:
        """Map (b, m, d) to (b, d)."""
        joined: Tensor = self.attention(leaves, leaves, leaves, need_weights=False)[0]
        return joined.mean(1)


def make_join(kind: str, leaves: int, width: int) -> tuple[nn.Module, int]:
    """Return the join of that name, and how many dimensions it gives."""
    if kind == "dense":
        return DenseJoin(leaves, width), DENSE
    if kind == "attention":
        return AttentionJoin(width), width
    if kind == "concat":
        return ConcatJoin(), leaves * width
    return (AverageJoin() if kind == "average" else MaxJoin()), width
