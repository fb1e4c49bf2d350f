"""Random weights as DeepCluster draws them, whatever the network's own way is."""

from __future__ import annotations

import math

import torch
from torch import nn

LINEAR_SPREAD = 0.01

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_RUNNING = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)
_NORMS = (*_RUNNING, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def initialize(module: nn.Module, seed: int) -> None:
    """Draw the weights of a network's layers anew, in place.

    Of convolutions N(0, 2 / n), where n = kernel height · width · output channels, whatever the
    groups; of linear layers N(0, 0.01²). Of normalisations 1, with running means 0 and variances 1.
    All their biases are 0. What needs no gradient (fixed filters, frozen layers) stays as it is,
    and so do parameters of other modules: the projections of attention, class tokens, positions.

    Args:
        module: The network, on any device. The values depend neither on the device nor on what the
            weights were.
        seed: Equal seeds give equal bytes; torch's own generators are not touched.

    Cost: the largest weight once more, on the CPU.

    Source: Mustapha 2021, Unsupervised deep learning: inter-model interpretation and deep
    clustering (thesis, American University of Beirut), sec. 4.4.1; that the channels of n are those
    of the output: ``models/alexnet.py`` of github.com/facebookresearch/deepcluster.

    Example:
        >>> layer = nn.Linear(1000, 100)
        >>> initialize(layer, seed=0)
        >>> round(layer.weight.std().item(), 3), layer.bias.any().item()
        (0.01, False)
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            own = {name: p for name, p in part.named_parameters(recurse=False) if p.requires_grad}
            if isinstance(part, _CONVOLUTIONS):
                fan_out = math.prod(part.kernel_size) * part.out_channels
                _fill(own, math.sqrt(2 / fan_out), generator)
            elif isinstance(part, nn.Linear):
                _fill(own, LINEAR_SPREAD, generator)
            elif isinstance(part, _NORMS):
                _reset(part, own)


def _fill(own: dict[str, nn.Parameter], spread: float, generator: torch.Generator) -> None:
    if "weight" in own:
        drawn = torch.empty(own["weight"].shape, dtype=torch.float32)
        drawn.normal_(0.0, spread, generator=generator)
        own["weight"].copy_(drawn)
    if "bias" in own:
        own["bias"].zero_()


def _reset(norm: nn.Module, own: dict[str, nn.Parameter]) -> None:
    is_frozen = not own and next(norm.parameters(recurse=False), None) is not None
    if isinstance(norm, _RUNNING) and not is_frozen:
        norm.reset_running_stats()
    for name, value in (("weight", 1.0), ("bias", 0.0)):
        if name in own:
            own[name].fill_(value)
