"""Names of layers that mean the same in every network of a kind.

VISSL's names come before a network's own: ``conv1`` is what the ReLU after the first convolution
gives (of a TreeNet, those of all leaves), ``res1`` the max-pool, ``res2`` to ``res5`` the four
stages. Where convolutions are simply in a row (AlexNet, LeNet-5, VGG), ``convN`` is what the ReLU
after the N-th gives. A module that is hidden by such a name is ``module.conv1``.

Source: github.com/facebookresearch/vissl, vissl/models/trunks/resnext.py (``feat_eval_mapping``).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from featkit.backbones.base import Network

OWN = "module."
"""What stands before a path that is meant as the network's own."""


def layer_names(network: Network) -> Mapping[str, tuple[str, str | None]]:
    """Return the paths of the layers that have a common name, with a pooling that is implied.

    Example:
        >>> from featkit.backbones.architectures import build
        >>> names = layer_names(build("cifar_resnet20"))
        >>> names["conv1"], names["res4"], names["flatten"]
        (('relu', None), ('layer3', None), ('avgpool', 'flatten'))
    """
    children = dict(network.module.named_children())
    names: dict[str, tuple[str, str | None]] = {}
    if "layer3" in children and "conv1" in children:
        names |= _resnet_names(children)
    elif "features" in children and {"classifier", "top_layer"} & children.keys():
        names |= _chain_names(children["features"])
    elif "paths" in children and "join" in children:
        paths = dict(children["paths"].named_children())
        names |= {name: (f"paths.{name}", None) for name in paths if name[4:].isdigit()}
    head = network.head or classifier_path(network.module)
    return names | ({"head": (head, None)} if head else {})


def _resnet_names(children: Mapping[str, nn.Module]) -> dict[str, tuple[str, str | None]]:
    last = "5" if "layer4" in children else "4"
    paths = {
        "conv1": "relu" if "relu" in children else "act1",
        "res1": "maxpool",
        **{f"res{stage + 1}": f"layer{stage}" for stage in (1, 2, 3, 4)},
        f"res{last}avg": "avgpool" if "avgpool" in children else "global_pool",
    }
    names: dict[str, tuple[str, str | None]] = {
        name: (path, None) for name, path in paths.items() if path in children
    }
    if f"res{last}avg" in names:
        names["flatten"] = (names[f"res{last}avg"][0], "flatten")
    return names


_CHAIN = {"Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"}


def _chain_names(features: nn.Module) -> dict[str, tuple[str, str | None]]:
    """Name what the ReLU after each convolution of a row gives, and the last max-pool."""
    kinds = {path: type(layer).__name__ for path, layer in features.named_children()}
    activations = [path for path, kind in kinds.items() if kind == "ReLU"]
    pools = [path for path, kind in kinds.items() if kind == "MaxPool2d"]
    if not set(kinds.values()) <= _CHAIN or not activations or not pools:
        return {}
    names: dict[str, tuple[str, str | None]] = {
        f"conv{i + 1}": (f"features.{path}", None) for i, path in enumerate(activations)
    }
    return names | {"flatten": (f"features.{pools[-1]}", "flatten")}


def classifier_path(module: nn.Module) -> str | None:
    """Return the path of the linear layer that was defined last, the classifier by convention.

    Example:
        >>> classifier_path(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)))
        '2'
    """
    if getattr(module, "num_classes", None) == 0:
        return None
    linears = [name for name, child in module.named_modules() if isinstance(child, nn.Linear)]
    return linears[-1] if linears else None


def find_classifier(module: nn.Module) -> tuple[str, nn.Linear] | None:
    """Return the linear layer of :func:`classifier_path` with its path; None where there is none.

    Example:
        >>> find_classifier(nn.Sequential(nn.ReLU(), nn.Linear(4, 2)))
        ('1', Linear(in_features=4, out_features=2, bias=True))
    """
    path = classifier_path(module)
    layer = None if path is None else module.get_submodule(path)
    return (str(path), layer) if isinstance(layer, nn.Linear) else None


def replace_module(module: nn.Module, path: str, new: nn.Module) -> None:
    """Put another module where ``path`` says."""
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, new)
