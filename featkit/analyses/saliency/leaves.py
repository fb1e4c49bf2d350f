"""A network as its leaves: from an image for each to a vector of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from featkit.backbones.base import Backbone
from featkit.backbones.nets.treenet.tree import TreeNet, image_parts
from featkit.backbones.probe import default_tap, probe
from featkit.backbones.taps import TapRunner


@dataclass(frozen=True)
class Leaves:
    """The leaves of a network that learns nothing meanwhile.

    Attributes:
        read: Maps images, one for each leaf, (b, m, 3, h, w) to vectors (b, m, d).
        count: m.
        window: Share of an image that a leaf is given to see, in (0, 1].
    """

    read: Callable[[Tensor], Tensor]
    count: int
    window: float


@contextmanager
def open_leaves(backbone: Backbone, device: torch.device) -> Iterator[Leaves]:
    """Read a network's leaves, in evaluation mode and with its weights held.

    Args:
        backbone: A TreeNet; of any other network its features are the only leaf.
        device: Where it is put.

    Raises:
        BackboneError: No layer of another network is known to be its features.
    """
    module = backbone.module.to(device)
    learning = [p for p in module.parameters() if p.requires_grad]
    was_training = module.training
    module.eval().requires_grad_(requires_grad=False)
    try:
        if isinstance(module, TreeNet):
            yield Leaves(module.leaves, module.shape.leaves, _window(backbone, module))
        else:
            yield from _only_leaf(backbone, module)
    finally:
        module.train(was_training)
        for parameter in learning:
            parameter.requires_grad_()


def _window(backbone: Backbone, tree: TreeNet) -> float:
    if tree.shape.view == "whole":
        return 1.0
    image = torch.empty(1, 1, *backbone.preprocessing.size)
    return image_parts(image, 1).numel() / image.numel()


def _only_leaf(backbone: Backbone, module: nn.Module) -> Iterator[Leaves]:
    outputs = probe(backbone)
    tap = default_tap(backbone, outputs)
    runner = TapRunner(module, [tap], {tap.path: outputs[tap.path].calls})
    try:
        yield Leaves(lambda images: runner(images[:, 0])[0].flatten(1)[:, None], 1, 1.0)
    finally:
        runner.close()
