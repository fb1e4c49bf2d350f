"""What a method of training is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from featkit.analyses.base import Figure
from featkit.backbones.base import Network
from featkit.errors import FeatkitError
from featkit.ops.neighbors import Integers
from featkit.parallel.group import here
from featkit.parallel.place import ALONE, EVERY

if TYPE_CHECKING:
    from featkit.trainers.images import TrainingImages
    from featkit.trainers.settings import Training


class NotFiniteError(FeatkitError):
    """What a method computes between steps is no finite number; the loop says what is kept."""


@dataclass(frozen=True)
class Moment:
    """Where a step stands in its training.

    Attributes:
        step: Its number in the whole training, from 0.
        steps_per_epoch: Steps of each epoch.
        epochs: Of the training.

    Example:
        >>> Moment(step=30, steps_per_epoch=20, epochs=3).epoch
        1
    """

    step: int
    steps_per_epoch: int
    epochs: int

    @property
    def epoch(self) -> int:
        """Epochs done before it."""
        return self.step // self.steps_per_epoch

    @property
    def share(self) -> float:
        """How much of the training is done before it, 0 to below 1."""
        return self.step / (self.steps_per_epoch * self.epochs)


class Learner(ABC):
    """What is trained, and what for.

    Attributes:
        module: All that has weights or other state.
        network: What comes out; its weights are among those of ``module``. What is beside the
            backbone is its head.
        images: What is learned from, once :meth:`attach` has been called.
        figures: Of the method's own tables.
    """

    figures: ClassVar[tuple[Figure, ...]] = ()
    module: nn.Module
    network: Network
    images: TrainingImages

    def check_count(self, images: int) -> None:  # noqa: B027 - most take any
        """Refuse a number of images that cannot be learned from, before any is decoded.

        Raises:
            UsageError: It cannot.
        """

    def attach(self, images: TrainingImages, training: Training, device: torch.device) -> None:  # noqa: ARG002 - for methods
        """Take what is learned from, before the state of a stopped training is put back.

        Raises:
            UsageError: The method cannot learn from it.
        """
        self.images = images

    def optimizers(self, training: Training) -> dict[str, torch.optim.Optimizer]:  # noqa: ARG002 - for methods
        """Return the optimisers, by name, of parameters that the loop's own does not move."""
        return {}

    def start(self) -> None:  # noqa: B027 - most do nothing
        """Do what comes before the first epoch; a training that goes on does not do it again.

        Raises:
            NotFiniteError: What is computed is no finite number.
        """

    def begin_epoch(self, epoch: int) -> None:  # noqa: B027 - most do nothing
        """Do what comes before the steps of an epoch, or before the rest of them.

        Args:
            epoch: Epochs done before it.

        Raises:
            NotFiniteError: What is computed is no finite number.
        """

    def order(self, rng: np.random.Generator) -> Integers:
        """Return the rows of the images that an epoch learns from, in the order of its steps."""
        return rng.permutation(self.images.learned)

    @abstractmethod
    def loss(self, pixels: Tensor, rows: Tensor, moment: Moment) -> Tensor:
        """Return the loss, a scalar, of a batch of images.

        Whatever is random comes from torch's global generators, which the loop seeds anew before
        each step. Each of several processes is given the whole batch, makes the views of its share
        (:meth:`own_views`), and returns a loss whose mean over processes is that of the batch.

        Args:
            pixels: (b, 3, h, w) uint8, as decoded.
            rows: (b) of these among all images.
            moment: Of the step.
        """

    @abstractmethod
    def views_of(self, pixels: Tensor, made: slice = EVERY) -> list[Tensor]:
        """Draw the views of images that the loss is made of.

        Args:
            pixels: (b, 3, h, w) uint8.
            made: Images whose views are made; those of the others are drawn all the same.

        Returns:
            (v, b of these, 3, s, s) in [0, 1] for each size s.
        """

    def own_views(self, pixels: Tensor) -> list[Tensor]:
        """Draw the views of a batch as one process does, and make this process's share of them.

        What is drawn afterwards, within networks, is drawn anew in each process.
        """
        views = self.views_of(pixels, here().share(len(pixels)))
        if here() != ALONE:
            torch.manual_seed(torch.initial_seed() + here().rank)
        return views

    def after_step(self, moment: Moment) -> None:  # noqa: B027 - most do nothing
        """Do what follows the optimiser's step."""

    def epoch_columns(self) -> dict[str, float]:
        """Return what was seen in the epoch that ends, and begin the next."""
        return {}

    def tables(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:  # noqa: ARG002 - for methods
        """Return what the method makes of the epochs, a row each, by the name of the table."""
        return {}

    def notes(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:  # noqa: ARG002 - for methods
        """Return what a reader of the epochs, a row each, must know."""
        return []


class Method(Protocol):
    """One way of training, as ``featkit train NAME`` and :func:`featkit.train` know it.

    Attributes:
        name: As the field calls it.
        Config: Frozen dataclass of its options, made with
            :func:`featkit.analyses.base.option`. A property that is called as a field of
            :class:`featkit.trainers.settings.Training` decides that one.
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
