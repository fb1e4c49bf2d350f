"""How large a network is: parameters, operations, activation units."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from featkit.backbones.base import Network
from featkit.backbones.layer_names import replace_module


@dataclass(frozen=True)
class NetworkSize:
    """The size of a network without its head.

    Attributes:
        parameters: Numbers that are learned.
        flops: Operations for an image, a multiplication and an addition being two; of convolutions
            and matrix products.
        activations: Outputs of convolutions and matrix products for an image.
    """

    parameters: int
    flops: int
    activations: int


def network_size(network: Network) -> NetworkSize:
    """Count what a network has and does for an image of its input size, its head left out.

    Cost: the memory of its structure; nothing is computed.

    Example:
        >>> from dataclasses import replace
        >>> from featkit.backbones.architectures import build
        >>> network_size(replace(build("cifar_resnet20"), head="linear"))
        NetworkSize(parameters=269072, flops=81100800, activations=188416)
    """
    module = copy.deepcopy(network.module).to("meta").eval()
    if network.head is not None:
        replace_module(module, network.head, torch.nn.Identity())
    images = torch.empty(1, 3, *network.preprocessing.size, device="meta")
    operations = FlopCounterMode(display=False)
    outputs = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(_PRODUCTS, _outputs))
    with torch.inference_mode():
        for counter in (operations, outputs):
            with counter:
                module(images)
    return NetworkSize(
        sum(p.numel() for p in module.parameters()),
        operations.get_total_flops(),
        outputs.get_total_flops(),
    )


_PRODUCTS = (
    torch.ops.aten.convolution,
    torch.ops.aten.mm,
    torch.ops.aten.addmm,
    torch.ops.aten.bmm,
    torch.ops.aten.baddbmm,
)


def _outputs(*_: Any, out_shape: Sequence[int], **__: Any) -> int:
    return math.prod(out_shape)
