"""Networks that DeepCluster starts with, and what is clustered of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from featkit.backbones.architectures import build
from featkit.backbones.base import Backbone, Network
from featkit.backbones.initialization import initialize
from featkit.backbones.probe import Probe, head_inputs, probe, row_shape
from featkit.backbones.taps import Tap, TapRunner, token_layout
from featkit.errors import BackboneError, UsageError
from featkit.trainers.deepcluster.config import DeepClusterConfig
from featkit.trainers.heads import with_head


def untrained(config: DeepClusterConfig, size: int | None, seed: int) -> Network:
    """Build a network, initialised as sec. 4.4.1 says, with a head of k outputs.

    Args:
        config: Names it, and says k.
        size: Pixels of its input; None for its own.
        seed: Of the weights.

    Raises:
        UsageError: It ends in no linear layer, or its input is not square.
    """
    network = build(config.architecture, seed)
    network = with_head(network, size, lambda features: nn.Linear(features, config.clusters))
    initialize(network.module, seed)
    return network


@dataclass(frozen=True)
class Source:
    """Where the rows that are clustered come from.

    Attributes:
        tap: That gives them.
        calls: How often its module runs in a forward.
        dimensions: Of a row.
    """

    tap: Tap
    calls: int
    dimensions: int


def clustered_rows(network: Network, pca: int) -> Source:
    """Find what is clustered: what the head reads, before a ReLU that ends it.

    Args:
        network: With its head.
        pca: Components that are wanted of the rows; 0 for none.

    Raises:
        UsageError: The network does not run at its size, no layer is known to be its features, or
            they have fewer dimensions.
    """
    backbone = Backbone("trained", "trained", network)
    try:
        outputs = probe(backbone)
    except BackboneError as error:
        size = "x".join(map(str, network.preprocessing.size))
        raise UsageError(
            f"arch {network.architecture} does not run on {size} pixels: give another --size"
        ) from error
    taps = head_inputs(backbone, outputs)
    if not taps:
        raise UsageError(
            f"arch {network.architecture}: no module gives just what its head reads, which is what "
            f"would be clustered: give another --arch"
        )
    tap, leaves = taps[0], [path for path, output in outputs.items() if output.leaf]
    for after in taps:
        place = leaves.index(after.path) if after.path in leaves else 0
        if place and isinstance(network.module.get_submodule(after.path), nn.ReLU):
            before = Tap(leaves[place - 1], after.pooling)
            tap = before if _is_rectified(network, before, after) else tap
    found = _source(network, tap, outputs)
    if pca > found.dimensions:
        raise UsageError(
            f"pca is {pca}, and features of {network.architecture} have {found.dimensions} "
            f"dimensions: give as many or fewer, or 0 to take all as they are"
        )
    return found


def last_map(network: Network) -> Source | None:
    """Return the last map of a network, flattened; None where it has none."""
    backbone = Backbone("untrained", "untrained", network)
    outputs = probe(backbone)
    maps = [
        path
        for path, output in outputs.items()
        if output.leaf and output.shape is not None and len(output.shape) == 3
    ]
    return _source(network, Tap(maps[-1], "flatten"), outputs) if maps else None


def _source(network: Network, tap: Tap, outputs: Probe) -> Source:
    output = outputs[tap.path]
    (dimensions,) = row_shape(output.shape or (), tap, token_layout(network.module))
    return Source(tap, output.calls, dimensions)


def _is_rectified(network: Network, before: Tap, after: Tap) -> bool:
    """Return whether a tap gives what another gives, after a ReLU."""
    height, width = network.preprocessing.size
    noise = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    runner = TapRunner(network.module, [before, after], dict.fromkeys((before.path, after.path), 1))
    try:
        with torch.inference_mode():
            first, second = runner(noise.to(next(network.module.parameters()).device))
    finally:
        runner.close()
    return bool(torch.equal(first.relu(), second))
