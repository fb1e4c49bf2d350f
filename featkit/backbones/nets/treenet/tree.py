"""TreeNet: leaves, and what joins them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from featkit.backbones.nets.treenet.joins import make_join
from featkit.backbones.nets.treenet.leaves import ConvLeaves, LeafEnds, NetLeaves
from featkit.backbones.nets.treenet.shape import TreeShape
from featkit.errors import BackboneError


class TreeNet(nn.Module):
    """Separate pathways, the leaves, that see the same image and whose outputs are joined.

    Args:
        shape: Of the tree.
        networks: The leaves, each from images to (b, d), where they are no convolutions.
        width: d of these.
        num_classes: Outputs of the linear head.

    Attributes:
        leaf: Where the output of each leaf is read, ``leaf.7``.
        join: What joins them; its output are the features.

    Source: Grant, Dias, Kulkarni, Spontaneous decomposition from grouped network pathways, 2022.

    Example:
        >>> tree = TreeNet(TreeShape(leaves=4)).eval()
        >>> tree(torch.zeros(2, 3, 32, 32)).shape, tree.leaves(torch.zeros(2, 3, 16, 20)).shape
        (torch.Size([2, 10]), torch.Size([2, 4, 64]))
    """

    def __init__(
        self,
        shape: TreeShape,
        networks: Sequence[nn.Module] = (),
        width: int = 0,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.paths = (
            NetLeaves(networks, width)
            if shape.leaf
            else ConvLeaves(
                shape.leaves, shape.channels, shape.pool, norm_first=shape.order == "norm-conv"
            )
        )
        self.ends = LeafEnds(shape.leaves, self.paths.width)
        self.leaf = nn.ModuleList(nn.Identity() for _ in range(shape.leaves))
        if shape.join == "attention" and self.paths.width % 4:
            raise BackboneError(
                f"attention of 4 heads joins leaves of a multiple of 4 dimensions, not "
                f"{self.paths.width}: choose another number of channels, or another join"
            )
        self.join, self.features = make_join(shape.join, shape.leaves, self.paths.width)
        self.head = nn.Linear(self.features, num_classes)

    @property
    def num_classes(self) -> int | None:
        """Outputs of the head where it is linear; 0 where it is gone."""
        if isinstance(self.head, nn.Identity):
            return 0
        return self.head.out_features if isinstance(self.head, nn.Linear) else None

    def leaves(self, images: Tensor) -> Tensor:
        """Map images (b, 3, h, w), or one for each leaf (b, m, 3, h, w), to (b, m, d)."""
        if self.shape.view == "part":
            images = image_parts(images, self.shape.leaves)
        ends = self.ends(self.paths(images))
        return torch.stack(
            [read(row) for read, row in zip(self.leaf, ends.unbind(1), strict=True)], 1
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (b, 3, h, w) to class scores (b, num_classes)."""
        scores: Tensor = self.head(self.join(self.leaves(images)))
        return scores

    def leaf_network(self, leaf: int) -> nn.Sequential:
        """Return one leaf as a network of ordinary modules that share its weights.

        Args:
            leaf: Its number, from 0.

        Returns:
            From images (b, 3, h, w), or the parts that the leaf sees (:func:`image_parts`), to
            (b, d).

        Raises:
            BackboneError: There is no such leaf, or its pool is no mean.
        """
        if not 0 <= leaf < self.shape.leaves:
            raise BackboneError(f"no leaf {leaf}: there are {self.shape.leaves}, from 0")
        if isinstance(self.paths, NetLeaves):
            return nn.Sequential(self.paths.networks[leaf], *self.ends.as_modules(leaf))
        if self.shape.pool != "avg":
            raise BackboneError(f"pool {self.shape.pool}: only leaves with averages come apart")
        maps = self.paths.as_modules(leaf)
        pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(*maps, *pool, *self.ends.as_modules(leaf))


def image_parts(images: Tensor, leaves: int) -> Tensor:
    """Cut a part for each leaf: windows of half the sides, row by row.

    Args:
        images: (b, 3, h, w), or (b, m, 3, h, w) where each leaf has its own view already.
        leaves: m, in √m rows, rounded, of as many windows each as can be. Rows, and the windows of
            one, go evenly from end to end, so that 4 or more see every pixel.

    Returns:
        (b, m, 3, h / 2, w / 2), rounded up.

    Example:
        >>> parts = image_parts(torch.arange(16.0).view(1, 1, 4, 4), 4)
        >>> parts[0, :, 0, 0, 0]
        tensor([ 0.,  2.,  8., 10.])
    """
    h, w = images.shape[-2:]
    high, wide = math.ceil(h / 2), math.ceil(w / 2)
    rows = round(math.sqrt(leaves))
    parts: list[Tensor] = []
    for row in range(rows):
        top = round(row * (h - high) / max(rows - 1, 1))
        count = (row + 1) * leaves // rows - row * leaves // rows
        for column in range(count):
            left = round(column * (w - wide) / max(count - 1, 1))
            own = images[:, len(parts)] if images.ndim == 5 else images
            parts.append(own[..., top : top + high, left : left + wide])
    return torch.stack(parts, 1)


def widened(shape: TreeShape) -> TreeShape:
    """Return the single pathway that has as many parameters as a tree, its channels widened alike.

    That is the baseline of the paper: a tree of one leaf with the dense join (sec. 3.2.3). Heads
    are not counted.

    Raises:
        BackboneError: None has as many within 2 %, or the leaves are no convolutions.

    Example:
        >>> widened(TreeShape(leaves=8)).channels
        (26, 53, 105, 158, 210)
    """
    if shape.leaf:
        raise BackboneError(f"leaf {shape.leaf}: only trees of convolutions are matched by one")
    wanted = encoder_parameters(shape)
    low, high = 0.1, 64.0
    for _ in range(20):
        middle = (low + high) / 2
        is_below = encoder_parameters(_scaled(shape, middle)) < wanted
        low, high = (middle, high) if is_below else (low, middle)
    found = min(
        (_scaled(shape, low), _scaled(shape, high)),
        key=lambda s: abs(encoder_parameters(s) - wanted),
    )
    if abs(encoder_parameters(found) / wanted - 1) > 0.02:
        raise BackboneError(f"no single pathway has the {wanted:,} parameters of this tree")
    return found


def _scaled(shape: TreeShape, factor: float) -> TreeShape:
    channels = tuple(max(1, round(factor * c)) for c in shape.channels)
    return replace(shape, leaves=1, join="dense", channels=channels, view="whole")


def encoder_parameters(shape: TreeShape) -> int:
    """Return how many parameters a tree has without its head.

    Example:
        >>> encoder_parameters(TreeShape(leaves=8))
        502208
    """
    with torch.device("meta"):
        tree = TreeNet(shape)
    return sum(p.numel() for n, p in tree.named_parameters() if not n.startswith("head."))
