"""SimCLR: two views of an image are to be closer to each other than to those of other images.

Source: Chen, Kornblith, Norouzi, Hinton, A simple framework for contrastive learning of visual
representations, 2020, arXiv:2002.05709; as trained by Malviya and Sudhakar, Feature diversity in
self-supervised learning, sec. 2.1, with the constants of VISSL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from featkit.analyses.base import option
from featkit.backbones.architectures import build, seeded
from featkit.backbones.base import Network
from featkit.backbones.nets import resnet_variant
from featkit.errors import UsageError
from featkit.ops.nt_xent import nt_xent
from featkit.parallel.group import rows_of_all
from featkit.parallel.place import EVERY
from featkit.trainers.augmentation.views import Views
from featkit.trainers.base import Learner, Moment
from featkit.trainers.heads import with_head
from featkit.trainers.settings import check_numbers

_VISSL = "VISSL, configs/config/pretrain/simclr"


@dataclass(frozen=True)
class SimCLRConfig:
    """Network, head, loss and views of :class:`SimCLR`."""

    arch: str = option(
        "resnet50_32px",
        "cifar_resnetN, resnetN_32px or resnetN; or torchvision:NAME, timm:NAME.",
        "sec. 3",
    )
    depth: int | None = option(None, "Layers of a ResNet, in place of N.")
    width: int | None = option(None, "Factor on its channels: 1, 2 or 4.", "sec. 3")
    norm: Literal["batch", "layer"] | None = option(None, "Its normalisation.", "appendix A")
    temperature: float = option(0.1, "τ of the loss.", _VISSL)
    hidden: int | None = option(
        None, "Dimensions within the head. Default: those of the features.", _VISSL
    )
    projection: int = option(128, "Dimensions that the loss sees.", _VISSL)
    crop: float = option(0.08, "Least share of an image's area in a view.", "SimCLR, appendix A")
    color: float = option(0.5, "Strength of the change of colours.", "SimCLR, appendix B.9")
    blur: float = option(0.0, "Probability of a blur.", "SimCLR: 0.5 from 224 pixels, else 0")

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        counts = ("hidden", "projection", "depth", "width")
        check_numbers(self, dict.fromkeys(counts, 1), whole=True)
        check_numbers(self, dict.fromkeys(("temperature", "crop", "color", "blur"), 0))
        if not self.temperature:
            raise UsageError(f"temperature is {self.temperature!r}: give a number above 0")
        if not 0 < self.crop <= 1:
            raise UsageError(f"crop is {self.crop!r}: give a share of the area, above 0, up to 1")
        if self.blur > 1:
            raise UsageError(f"blur is {self.blur!r}: give a probability, 0 to 1")
        if self.color > 2.5:
            raise UsageError(f"color is {self.color!r}: give a strength, 0 to 2.5")


class SimCLR:
    """Contrast two views of each image with those of all others (SimCLR)."""

    name: ClassVar[str] = "SimCLR"
    Config: ClassVar[type[Any]] = SimCLRConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "cpu": {
            "arch": "cifar_resnet8",
            "temperature": 0.2,
            "images": 10_000,
            "batch_size": 128,
            "optimizer": "adam",
            "lr": 2e-3,
        },
        "tiny": {
            "arch": "cifar_resnet8",
            "temperature": 0.2,
            "images": 512,
            "epochs": 2,
            "batch_size": 64,
            "optimizer": "adam",
            "lr": 2e-3,
            "warmup": 1.0,
            "knn_every": 1,
        },
    }

    def __init__(self, config: SimCLRConfig | None = None) -> None:
        self.config = config or SimCLRConfig()

    def learner(self, size: int | None, seed: int) -> SimCLRLearner:
        """Build the network, with a projection head in place of its classifier."""
        config = self.config
        name = resnet_variant(config.arch, config.depth, config.width, config.norm)
        with seeded(seed):
            network = with_head(
                build(name, seed),
                size,
                lambda d: projection_head(d, config.hidden or d, config.projection),
            )
        reach = 0.8 * config.color
        jitter = (reach, reach, reach, 0.2 * config.color)
        views = Views(network.preprocessing.size[0], (config.crop, 1.0), jitter, config.blur)
        return SimCLRLearner(network, views, config.temperature)


def projection_head(features: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return the two layers between features and loss."""
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


class SimCLRLearner(Learner):
    """A network that is trained by the loss between two views of each image.

    Args:
        network: With its head.
        views: What is drawn of an image.
        temperature: Of the loss.
    """

    def __init__(self, network: Network, views: Views, temperature: float) -> None:
        self.network, self.module = network, network.module
        self.views, self.temperature = views, temperature

    def views_of(self, pixels: Tensor, made: slice = EVERY) -> list[Tensor]:
        """Draw two views of each image."""
        rows = torch.arange(2 * len(pixels), device=pixels.device).view(2, -1)[:, made]
        views = self.views(torch.cat([pixels, pixels]), rows.flatten())
        return [views.view(*rows.shape, *views.shape[1:])]

    def loss(self, pixels: Tensor, rows: Tensor, moment: Moment) -> Tensor:  # noqa: ARG002 - always the same
        """Return eq. 2.1 over a batch; both views of all images go through the network together."""
        (views,) = self.own_views(pixels)
        embeddings = self.module(self.network.preprocessing.normalize_views(views.flatten(0, 1)))
        first, second = (rows_of_all(half) for half in embeddings.chunk(2))
        return nt_xent(first, second, self.temperature)
