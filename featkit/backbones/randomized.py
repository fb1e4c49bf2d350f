"""A network of the same shape that has learned nothing."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from featkit.backbones.base import Backbone

OTHER = 0x7716  # so that a twin differs from a network whose own weights are random with its seed
FROZEN = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}  # normalisations
SPREAD = 0.02  # of parameters that no module initialises: tokens and positions of transformers


def randomized(backbone: Backbone, seed: int = 0, number: int = 0) -> Backbone:
    """Return a copy with random weights, each module initialised as torch does.

    Running statistics are those of a fresh network, 0 and 1. Parameters of modules without an
    initialisation of their own are drawn from N(0, 0.02²), as transformers draw theirs. Factors of
    units that a module has beside what it initialises (scaled convolutions), and those of
    normalisations that are frozen, become 1.

    Args:
        backbone: The network; it stays as it is.
        seed: Equal seeds give equal weights.
        number: Of several networks with the same seed.

    Example:
        >>> from featkit import load_backbone
        >>> net = load_backbone("cifar_resnet20?weights=none")
        >>> randomized(net, 1).weights == net.weights
        False
    """
    module = copy.deepcopy(backbone.module)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        states = np.random.SeedSequence([OTHER, seed, number]).generate_state(1, np.uint64)
        torch.manual_seed(int(states[0] >> np.uint64(1)))
        for part in module.modules():
            _initialise(part)
    network = replace(backbone.network, module=module, checkpoint=None)
    return Backbone(f"random-{backbone.name}", backbone.spec, network)


def _initialise(part: nn.Module) -> None:
    own = list(part.parameters(recurse=False))
    reset = getattr(part, "reset_parameters", None)
    if callable(reset):
        for parameter in own:
            parameter.fill_(torch.nan)  # so that what is not initialised can be told
        reset()
        own = [parameter for parameter in own if parameter.isnan().any()]
    for parameter in own:
        if parameter.numel() == max(parameter.shape, default=1) and callable(reset):
            nn.init.ones_(parameter)  # a factor for each unit, beside the weights
        else:
            nn.init.normal_(parameter, std=SPREAD)
    for name, buffer in part.named_buffers(recurse=False):
        if name in FROZEN and not callable(reset):
            buffer.fill_(FROZEN[name])
