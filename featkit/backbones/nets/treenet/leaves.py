"""The pathways of a TreeNet, up to a vector each: (b, 3, h, w) to (b, m, d).

Images can be given leaf by leaf, (b, m, 3, h, w), where each sees another.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from featkit.backbones.nets.treenet.pooling import make_pool
from featkit.errors import BackboneError

KERNEL = 2


class Maps(nn.Module):
    """Where a tap reads the maps of all leaves, side by side; made only while one does."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor | None:
        """Map parts of the leaves, (b, …, h, w) each, to (b, m·c, h, w)."""
        return torch.cat(list(maps), 1) if self._forward_hooks else None


class ConvLeaves(nn.Module):
    """Convolutions of m leaves that do not see each other.

    Their weights are those of grouped convolutions and normalisations, one group a leaf. Grouped
    they are computed too, the form that is fast on GPUs. Some CPUs compute a grouped convolution
    with few channels a group at a fraction of their rate, so that there the leaves come one by one,
    channels last, which is slow on none.

    Args:
        leaves: m.
        channels: Of the convolutions.
        pool: What makes a vector of the last map.
        norm_first: Whether a normalisation stands before each convolution but the first, or behind
            each.

    Attributes:
        width: Channels of the last map.
        conv1: Where the maps after the first ReLU are read, and so on.

    Source: Grant, Dias, Kulkarni, Spontaneous decomposition from grouped network pathways,
    sec. 5.1, 3.2.1 and 3.4. That a ReLU follows each convolution, the first too, is sec. 3.2.1's.
    """

    def __init__(
        self, leaves: int, channels: Sequence[int], pool: str, norm_first: bool = True
    ) -> None:
        super().__init__()
        self.count, self.norm_first, self.width = leaves, norm_first, channels[-1]
        wide = [leaves * c for c in channels]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, KERNEL, groups=groups)
            for inputs, outputs, groups in zip(
                (3, *wide), wide, (1, *[leaves] * len(wide)), strict=False
            )
        )
        normalized = wide[:-1] if norm_first else wide
        self.norms = nn.ModuleList(nn.GroupNorm(leaves, c) for c in normalized)
        for number in range(1, len(wide) + 1):
            self.add_module(f"conv{number}", Maps())
        self.pool = make_pool(pool, leaves, self.width)

    def forward(self, images: Tensor) -> Tensor:
        """Map (b, 3, h, w), or (b, m, 3, h, w), to (b, m, width).

        Raises:
            BackboneError: The images are smaller than the convolutions need.
        """
        least = len(self.convolutions) * (KERNEL - 1) + 1
        if min(images.shape[-2:]) < least:
            raise BackboneError(
                f"images of {images.shape[-2]} x {images.shape[-1]} pixels: {least - 1} "
                f"convolutions need {least} or more"
            )
        return self._by_leaf(images) if images.device.type == "cpu" else self._grouped(images)

    def _grouped(self, images: Tensor) -> Tensor:
        maps = images.flatten(1, 2) if images.ndim == 5 else images
        for number in range(len(self.convolutions)):
            is_shared = number == 0 and images.ndim == 4
            maps = self._layer(number, maps, 0, self.count, 1 if is_shared else self.count)
            self.get_submodule(f"conv{number + 1}")([maps])
        positions = maps.view(len(maps), self.count, self.width, -1).transpose(2, 3)
        pooled: Tensor = self.pool.forward(positions)
        return pooled

    def _by_leaf(self, images: Tensor) -> Tensor:
        given = images.unbind(1) if images.ndim == 5 else [images]
        maps = [image.contiguous(memory_format=torch.channels_last) for image in given]
        maps = maps if images.ndim == 5 else maps * self.count
        for number in range(len(self.convolutions)):
            maps = [self._layer(number, m, leaf, 1, 1) for leaf, m in enumerate(maps)]
            self.get_submodule(f"conv{number + 1}")(maps)
        rows = [m.permute(0, 2, 3, 1).flatten(1, 2)[:, None] for m in maps]
        # not called as a module, which a tap would see once a leaf
        return torch.cat([self.pool.forward(row, leaf) for leaf, row in enumerate(rows)], 1)

    def _layer(self, number: int, maps: Tensor, first: int, count: int, groups: int) -> Tensor:
        """Compute one layer of ``count`` leaves, from ``first`` on."""
        convolution: nn.Conv2d = self.convolutions[number]  # type: ignore[assignment]
        weight, bias = (self._part(p, first, count) for p in (convolution.weight, convolution.bias))
        if self.norm_first and number:
            maps = self._normalized(number - 1, maps, first, count)
        maps = functional.conv2d(maps, weight, bias, groups=groups)
        if not self.norm_first:
            maps = self._normalized(number, maps, first, count)
        return functional.relu(maps, inplace=True)

    def _normalized(self, number: int, maps: Tensor, first: int, count: int) -> Tensor:
        norm: nn.GroupNorm = self.norms[number]  # type: ignore[assignment]
        weight, bias = (self._part(p, first, count) for p in (norm.weight, norm.bias))
        return functional.group_norm(maps, count, weight, bias, norm.eps)

    def _part(self, parameter: Tensor | None, first: int, count: int) -> Tensor:
        assert parameter is not None  # noqa: S101 - all layers here have biases
        width = len(parameter) // self.count
        return parameter[first * width : (first + count) * width]

    def as_modules(self, leaf: int) -> list[nn.Module]:
        """Return one leaf's layers up to its last map, as modules that share its weights."""
        layers: list[nn.Module] = []
        for number in range(len(self.convolutions)):
            convolution: nn.Conv2d = self.convolutions[number]  # type: ignore[assignment]
            norm = [self._as_norm(number - self.norm_first, leaf)] if self._has_norm(number) else []
            weight = self._part(convolution.weight, leaf, 1)
            conv = nn.Conv2d(weight.shape[1], len(weight), KERNEL)
            conv.weight = nn.Parameter(weight)
            conv.bias = nn.Parameter(self._part(convolution.bias, leaf, 1))
            layers += [*norm, conv] if self.norm_first else [conv, *norm]
            layers.append(nn.ReLU())
        return layers

    def _has_norm(self, number: int) -> bool:
        return number > 0 or not self.norm_first

    def _as_norm(self, number: int, leaf: int) -> nn.GroupNorm:
        own: nn.GroupNorm = self.norms[number]  # type: ignore[assignment]
        weight = self._part(own.weight, leaf, 1)
        norm = nn.GroupNorm(1, len(weight))
        norm.weight = nn.Parameter(weight)
        norm.bias = nn.Parameter(self._part(own.bias, leaf, 1))
        return norm


class NetLeaves(nn.Module):
    """Other networks as leaves.

    Args:
        networks: m of them, each from images to (b, d).
        width: d.
    """

    def __init__(self, networks: Sequence[nn.Module], width: int) -> None:
        super().__init__()
        self.networks, self.width = nn.ModuleList(networks), width

    def forward(self, images: Tensor) -> Tensor:
        """Map (b, 3, h, w), or (b, m, 3, h, w), to (b, m, d)."""
        given = images.unbind(1) if images.ndim == 5 else [images] * len(self.networks)
        found = [net(image) for net, image in zip(self.networks, given, strict=True)]
        return torch.stack(found, 1)


class LeafLinear(nn.Module):
    """A linear layer for each leaf.

    Args:
        leaves: m.
        width: Dimensions that come and go.
    """

    def __init__(self, leaves: int, width: int) -> None:
        super().__init__()
        layers = [nn.Linear(width, width) for _ in range(leaves)]  # drawn as each alone would be
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]))

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, m, d) to (b, m, d)."""
        products = torch.matmul(x.transpose(0, 1), self.weight.transpose(1, 2))
        return products.transpose(0, 1) + self.bias.view(self.weight.shape[:2])


class LeafEnds(nn.Module):
    """What follows the pooled maps of each leaf: a normalisation, and two linear layers.

    Args:
        leaves: m.
        width: Dimensions of a leaf, throughout: the paper leaves them open.

    Source: sec. 5.1.
    """

    def __init__(self, leaves: int, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(leaves, leaves * width)
        self.linear1 = LeafLinear(leaves, width)
        self.relu = nn.ReLU()
        self.linear2 = LeafLinear(leaves, width)

    def forward(self, pooled: Tensor) -> Tensor:
        """Map (b, m, d) to (b, m, d)."""
        rows: Tensor = self.norm(pooled.flatten(1)).view(pooled.shape)
        ends: Tensor = self.linear2(self.relu(self.linear1(rows)))
        return ends

    def as_modules(self, leaf: int) -> list[nn.Module]:
        """Return one leaf's layers, as modules that share its weights."""
        width = self.linear1.weight.shape[1]
        part = slice(leaf * width, (leaf + 1) * width)
        norm = nn.GroupNorm(1, width)
        norm.weight, norm.bias = (nn.Parameter(p[part]) for p in (self.norm.weight, self.norm.bias))
        layers = []
        for own in (self.linear1, self.linear2):
            layer = nn.Linear(width, width)
            layer.weight = nn.Parameter(own.weight[leaf])
            layer.bias = nn.Parameter(own.bias[part])
            layers.append(layer)
        return [norm, layers[0], nn.ReLU(), layers[1]]
