"""Which pixels raise the score of an image's class, and which lower it: DeepLIFT-SHAP.

Source: Shrikumar, Greenside, Kundaje 2017, arXiv:1704.02685 (rescale rule); Lundberg and Lee 2017,
arXiv:1705.07874, sec. 4.2 (mean over baselines).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from featkit.analyses.saliency.secant_norm import SecantNorm
from featkit.backbones.nets.treenet.tree import TreeNet, image_parts
from featkit.errors import MissingExtraError, UsageError
from featkit.ops.linear_probe import LinearProbe

_JOINS = ("dense", "average", "concat")
"""Of linear layers and ReLUs alone. The others take a softmax or a maximum over leaves, whose
attributions would not add up."""


@dataclass(frozen=True)
class Attributions:
    """How much each number of an image adds to a score.

    Attributes:
        values: (b, 3, h, w), the mean over baselines.
        differences: Score of an image less that of a baseline, (b, k).
        gaps: Sum of the attributions by a baseline, less that difference, (b, k).
    """

    values: Tensor
    differences: Tensor
    gaps: Tensor

    @property
    def incompleteness(self) -> float:
        """Mean size of the gaps, as a share of that of the differences."""
        return float(self.gaps.abs().mean() / self.differences.abs().mean())


def attribute(
    network: nn.Module, images: Tensor, baselines: Tensor, targets: Tensor
) -> Attributions:
    """Attribute scores to pixels, by what the pixels of other images would give.

    ``mean_k m(x, b_k) · (x - b_k)``, with m the product of slopes from b_k to x, in place of
    gradients, of each activation function. Attributions add up to ``f(x) - mean_k f(b_k)`` where
    all else is linear, or a :class:`~featkit.analyses.saliency.secant_norm.SecantNorm`.

    Args:
        network: From images to scores (b, c); its activation functions are modules of captum's
            list, such as ``nn.ReLU``, each used once and not in place.
        images: (b, 3, h, w).
        baselines: (k, 3, h, w), k ≥ 2.
        targets: The score that is attributed, of each image, int64 (b).

    Raises:
        MissingExtraError: captum is not installed.

    Cost: a forward and a backward pass of 2·k images, for each image.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False))
        >>> _ = network[1].weight.data.copy_(torch.tensor([[1.0, 2, 3], [0, 0, 0]]))
        >>> images = torch.ones(1, 3, 1, 1)
        >>> found = attribute(network, images, torch.zeros(2, 3, 1, 1), torch.tensor([0]))
        >>> found.values.flatten()
        tensor([1., 2., 3.])
    """
    explain = load_captum()(network)
    values, gaps, differences = [], [], []
    with torch.no_grad():
        of_baselines = network(baselines)
        of_images = network(images)
    for number, target in enumerate(targets.tolist()):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting forward, backward hooks", UserWarning)
            found, delta = explain.attribute(
                images[number : number + 1], baselines, target, return_convergence_delta=True
            )
        values.append(found.detach())
        gaps.append(delta.detach())
        differences.append(of_images[number, target] - of_baselines[:, target])
    return Attributions(torch.cat(values), torch.stack(differences), torch.stack(gaps))


class ProbedTree(nn.Module):
    """A TreeNet of ordinary modules, each used once, and the linear probe of its features.

    Args:
        tree: Shares its weights.
        probe: Fitted to what the tree's ``join`` gives.
    """

    def __init__(self, tree: TreeNet, probe: LinearProbe) -> None:
        super().__init__()
        self.view = tree.shape.view
        self.leaves = nn.ModuleList(_with_slopes(tree, leaf) for leaf in range(tree.shape.leaves))
        self.join = tree.join
        classes, features = probe.coef_.shape
        self.probe = nn.Linear(features, classes)
        with torch.no_grad():
            self.probe.weight.copy_(torch.from_numpy(probe.coef_))
            self.probe.bias.copy_(torch.from_numpy(probe.intercept_))
        self.to(next(tree.parameters()).device)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (b, 3, h, w) to the probe's logits (b, c)."""
        count = len(self.leaves)
        given = image_parts(images, count).unbind(1) if self.view == "part" else [images] * count
        vectors = [leaf(image) for leaf, image in zip(self.leaves, given, strict=True)]
        logits: Tensor = self.probe(self.join(torch.stack(vectors, 1)))
        return logits


def _with_slopes(tree: TreeNet, leaf: int) -> nn.Sequential:
    layers = tree.leaf_network(leaf)
    return nn.Sequential(
        *(SecantNorm(layer) if isinstance(layer, nn.GroupNorm) else layer for layer in layers)
    )


def check_tree(module: nn.Module, name: str) -> TreeNet:
    """Return a network that DeepLIFT can go through, or refuse it."""
    if not isinstance(module, TreeNet):
        raise UsageError(f"shap explains TreeNets, and {name} is none: leave --shap out")
    shape = module.shape
    for what, value, able in (
        ("leaf", shape.leaf or "convolutions", ("convolutions",)),
        ("pool", shape.pool, ("avg",)),
        ("join", shape.join, _JOINS),
    ):
        if value not in able:
            raise UsageError(
                f"{name}: DeepLIFT has no rule for {what} {value}: leave --shap out, or train a "
                f"TreeNet of {what} {' or '.join(able)}"
            )
    return module


def load_captum() -> Any:
    """Import captum's ``DeepLiftShap``; MissingExtraError where that cannot be done."""
    try:
        from captum.attr import DeepLiftShap  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtraError(
            'shap needs the package captum; install it with pip install "featkit[explain]", or '
            "leave --shap out"
        ) from None
    return DeepLiftShap
