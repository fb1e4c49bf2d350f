"""What a method of training is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from featkit.backbones.base import Network


class Learner(Protocol):
    """What is trained, and what for.

    Attributes:
        module: All that has weights or other state.
        network: What comes out; its weights are among those of ``module``. What is beside the
            backbone is its head.
    """

    module: nn.Module
    network: Network

    def loss(self, pixels: Tensor) -> Tensor:
        """Return the loss, a scalar, of a batch of images.

        Whatever is random comes from torch's global generators, which the loop seeds anew before
        each step.

        Args:
            pixels: (b, 3, h, w) uint8, as decoded.
        """


class Method(Protocol):
    """One way of training, as ``featkit train NAME`` and :func:`featkit.train` know it.

    Attributes:
        name: As the field calls it.
        Config: Frozen dataclass of its options, made with
            :func:`featkit.analyses.base.option`.
        presets: Options by name of the preset, its own and those of
            :class:`featkit.trainers.settings.Training`; what a preset does not name is the default.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Any]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]

    def __init__(self, config: Any) -> None: ...

    def learner(self, size: int | None, seed: int) -> Learner:
        """Build what is trained.

        Args:
            size: Pixels of the network's input; None for its own.
            seed: Of the weights.
        """
