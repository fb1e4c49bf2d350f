"""Networks by name, with random weights: our own, torchvision's and timm's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from featkit.backbones.base import Network
from featkit.backbones.layer_names import find_classifier, replace_module
from featkit.backbones.nets import NETS
from featkit.backbones.nets.recipes import CIFAR
from featkit.backbones.nets.treenet.shape import TreeShape, tree_name, tree_shape
from featkit.backbones.nets.treenet.tree import TreeNet
from featkit.data.preprocessing import Preprocessing
from featkit.errors import BackboneError
from featkit.registry import did_you_mean


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw random weights from ``seed`` and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class UnsetWeights(TorchFunctionMode):
    """While it is active, networks get NaN where random weights would be drawn.

    Drawing takes most of the time of building, and a weight that nothing fills afterwards cannot go
    unnoticed.
    """

    _DRAWS = frozenset(
        (
            Tensor.normal_,
            Tensor.uniform_,
            nn.init.uniform_,
            nn.init.normal_,
            nn.init.kaiming_uniform_,
        )
    )

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Fill instead of drawing."""
        if function in self._DRAWS:
            drawn = args[0] if args else kwargs["tensor"]
            drawn.detach().fill_(torch.nan)
            return drawn
        return function(*args, **(kwargs or {}))


def build(architecture: str, seed: int = 0, num_classes: int | None = None) -> Network:
    """Build a network with random weights.

    Args:
        architecture: ``cifar_resnet20``, ``torchvision:NAME`` or ``timm:NAME``; a bare name is
            looked up among our own networks, then torchvision's; ``treenet(leaves=8,join=dense)``
            says what a :class:`featkit.backbones.nets.treenet.shape.TreeShape` has.
        seed: Of the weights.
        num_classes: Outputs of its classifier; None for the architecture's own number.

    Raises:
        BackboneError: There is no such architecture.

    Example:
        >>> build("cifar_resnet20").architecture
        'cifar_resnet20'
    """
    tree = tree_shape(architecture)
    if tree is not None:
        return _build_tree(tree, seed, num_classes)
    library, _, name = architecture.rpartition(":")
    if not library and name in NETS:
        make, preprocessing = NETS[name]
        options = {} if num_classes is None else {"num_classes": num_classes}
        with seeded(seed):
            return Network(name, make(**options).eval(), preprocessing)
    if library in ("", "torchvision"):
        return _build_torchvision(name, seed, num_classes)
    if library == "timm":
        return _build_timm(name, seed, num_classes)
    raise BackboneError(
        f"architecture {architecture!r}: unknown library {library!r}; use torchvision:NAME, "
        f"timm:NAME, or a name of our own (featkit backbones lists all)"
    )


def _build_tree(shape: TreeShape, seed: int, num_classes: int | None) -> Network:
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    recipe = CIFAR
    if shape.leaf:
        networks, width, recipe = _leaf_networks(shape, seed)
        options |= {"networks": networks, "width": width}
    with seeded(seed):
        return Network(tree_name(shape), TreeNet(shape, **options).eval(), recipe)


def _leaf_networks(shape: TreeShape, seed: int) -> tuple[list[nn.Module], int, Preprocessing]:
    """Build the leaves of a tree of other networks, each with weights of its own."""
    modules, width = [], 0
    for leaf in range(shape.leaves):
        own_seed = int(np.random.SeedSequence([seed, leaf]).generate_state(1)[0])
        network = build(shape.leaf, own_seed)
        found = find_classifier(network.module)
        if found is None:
            raise BackboneError(f"leaf {shape.leaf}: it ends in no linear layer to take away")
        head, classifier = found
        replace_module(network.module, head, nn.Identity())
        modules.append(network.module)
        width = classifier.in_features
    return modules, width, network.preprocessing


def torchvision_builder(name: str) -> Callable[..., nn.Module]:
    """Return torchvision's function that builds the network ``name``.

    Raises:
        BackboneError: There is none.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise BackboneError(
            f"torchvision has no network {name!r}: {did_you_mean(name, [*NETS, *known])} "
            f"(featkit backbones lists all)"
        )
    builder: Callable[..., nn.Module] = models.get_model_builder(name)
    return builder


def torchvision_preprocessing(weights: Any) -> Preprocessing:
    """Return the preprocessing of one member of a torchvision weights enumeration."""
    return Preprocessing.from_torchvision(weights.transforms())


def _build_torchvision(name: str, seed: int, num_classes: int | None) -> Network:
    from torchvision import models

    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    builder = torchvision_builder(name)
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": True, "aux_logits": False}
    with seeded(seed):
        module = builder(weights=None, **options).eval()
    first_published = next(iter(models.get_model_weights(name)))  # as others train it too
    return Network(f"torchvision:{name}", module, torchvision_preprocessing(first_published))


def check_timm_name(name: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        BackboneError: It does not.
    """
    import timm

    bare, _, tag = name.partition(".")
    if not timm.is_model(bare):
        raise BackboneError(
            f"timm has no network {name!r}: {did_you_mean(bare, timm.list_models())} "
            f"(featkit backbones lists all)"
        )
    known = timm.list_models(f"{bare}.*", include_tags=True) if tag else [name]
    if name not in known:
        raise BackboneError(f"timm has no weights {name!r}: {did_you_mean(name, known)}")


def timm_network(module: nn.Module, name: str) -> Network:
    """Wrap a timm network with the preprocessing of its pretrained configuration."""
    from timm.data.config import resolve_model_data_config

    config: dict[str, Any] = resolve_model_data_config(module)  # type: ignore[no-untyped-call]
    preprocessing = Preprocessing.from_timm(config)
    return Network(f"timm:{name}", module.eval(), preprocessing)


def _build_timm(name: str, seed: int, num_classes: int | None) -> Network:
    import timm

    check_timm_name(name)
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    with seeded(seed):
        module = timm.create_model(name, pretrained=False, **options)
    return timm_network(module, name.partition(".")[0])
