"""TreeNet: a student of separate pathways, and the moving average that it learns from.

Source: Grant, Dias, Kulkarni, Spontaneous decomposition from grouped network pathways, 2022; DINO's
constants are those of its code, ``main_dino.py``, which the paper starts from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from featkit.analyses.base import option
from featkit.backbones.architectures import build, seeded
from featkit.backbones.base import Network
from featkit.backbones.nets.treenet.shape import Join, Order, Pool, TreeShape, View, tree_name
from featkit.backbones.nets.treenet.tree import TreeNet as Tree
from featkit.backbones.nets.treenet.tree import widened
from featkit.errors import UsageError, one_line
from featkit.ops.byol_loss import byol_loss
from featkit.ops.dino_loss import dino_loss, updated_center
from featkit.ops.leaf_losses import leaf_contrastive, leaf_cosine
from featkit.parallel.group import mean_of_all
from featkit.parallel.place import EVERY
from featkit.trainers.augmentation.multi_crop import MultiCrop
from featkit.trainers.base import Learner, Moment
from featkit.trainers.heads import DINOHead, byol_head, with_head
from featkit.trainers.schedules import half_cosine
from featkit.trainers.self_distillation import Pair, collapse_notes
from featkit.trainers.settings import check_numbers

Loss: TypeAlias = Literal["dino", "byol", "leaf-contrastive"]
LeafView: TypeAlias = Literal["same", "each", "part"]

_GLOBAL, _GLOBAL_ALONE = (0.4, 1.0), (0.14, 1.0)


@dataclass(frozen=True)
class TreeNetConfig:
    """Network, head, loss and views of :class:`TreeNet`."""

    leaves: int = option(32, "Pathways, 1 to 128.", "table 1")
    join: Join = option("dense", "What makes one vector of those of all leaves.", "sec. 3.2.2")
    pool: Pool = option("avg", "What makes a vector of a leaf's last map.", "sec. 3.2.1")
    order: Order = option(
        "norm-conv", "Normalise before convolutions, or after (sec. 3.2.1).", "sec. 5.1"
    )
    channels: tuple[int, ...] | None = option(
        None, "Of the convolutions of a leaf. Default: 8,16,32,48,64.", "sec. 3.2.1"
    )
    leaf: str | None = option(
        None, "Another network as a leaf: resnet18_32px, timm:resnet10t, … Default: convolutions."
    )
    baseline: str | None = option(
        None,
        "Train this in place of the tree: cnn, one pathway with as many parameters as the tree, or "
        "with the channels that are given; or any architecture, as resnet50_32px.",
        "sec. 3.2.3",
    )
    leaf_view: LeafView = option(
        "same", "All leaves see the same view, each its own, or each another part.", "sec. 3"
    )
    loss: Loss = option("dino", "What the student is trained by.", "sec. 3.3")
    beta: float = option(0.0, "Weight of the cosines between leaves.", "sec. 3.3")
    temperature: float = option(0.1, "τ of leaf-contrastive.", "as SimCLR's")
    prototypes: int = option(
        4096, "K, what DINO tells apart. Its own 65,536 are more than CIFAR-10 has images."
    )
    hidden: int = option(2048, "Dimensions within the head.", "DINO")
    head_norm: bool = option(
        False, "Normalise by batch within DINO's head, views of each size by themselves.", "DINO"
    )
    bottleneck: int = option(256, "Dimensions before the prototypes, or of BYOL's loss.", "DINO")
    student_temperature: float = option(0.1, "τ of the student.", "DINO")
    teacher_temperature: float = option(0.04, "τ of the teacher.", "DINO")
    first_temperature: float = option(0.04, "τ of the teacher at the start.", "DINO")
    temperature_warmup: int = option(0, "Epochs in which that changes.", "DINO")
    center_momentum: float = option(0.9, "Of the mean of the teacher's outputs.", "DINO")
    momentum: float = option(0.996, "Of the teacher's weights at the start; 1 at the end.", "DINO")
    freeze_last: int = option(1, "Epochs in which prototypes stay as they are.", "DINO")
    local_crops: int = option(8, "Small views of an image, beside two large ones.", "DINO")
    local_size: int | None = option(
        None, "Pixels of the small ones. Default: half of the input (DINO: 96 of 224)."
    )
    blur: bool = option(False, "Blur views as DINO does; sec. 4.1 does not name it.")
    solarize: bool = option(False, "Solarise views as DINO does; sec. 4.1 does not name it.")

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        least = {"prototypes": 2, "hidden": 1, "bottleneck": 1, "leaves": 1}
        least |= {"temperature_warmup": 0, "freeze_last": 0, "local_crops": 0, "local_size": 4}
        check_numbers(self, least, whole=True)
        temperatures = [field.name for field in fields(self) if field.name.endswith("temperature")]
        check_numbers(
            self, dict.fromkeys(["beta", "momentum", "center_momentum", *temperatures], 0)
        )
        for name in temperatures:
            if not getattr(self, name):
                raise UsageError(f"{name} is {getattr(self, name)!r}: give a number above 0")
        for name in ("momentum", "center_momentum"):
            if getattr(self, name) > 1:
                raise UsageError(f"{name} is {getattr(self, name)!r}: give a number, 0 to 1")
        for name, kinds in (("loss", Loss), ("leaf_view", LeafView)):
            if getattr(self, name) not in get_args(kinds):
                said = f"{name} is {getattr(self, name)!r}"
                raise UsageError(f"{said}: use {', '.join(get_args(kinds))}")
        self._check_fit()

    def _check_fit(self) -> None:
        """Refuse what does not fit together."""
        needs_leaves = self.loss == "leaf-contrastive" or self.beta
        if needs_leaves and (self.leaves < 2 or self.baseline is not None):
            raise UsageError(
                f"{'beta' if self.beta else self.loss} compares leaves with each other: it needs "
                f"a tree of two or more, and no baseline"
            )
        if self.loss == "leaf-contrastive" and self.join != "concat":
            raise UsageError("leaf-contrastive has no part for a join: give --join concat with it")
        if self.baseline not in (None, "cnn") and (self.leaf or self.channels is not None):
            raise UsageError("leaf and channels are of trees, which this baseline is not")
        if self.baseline is not None and self.leaf_view != "same":
            raise UsageError("leaf_view is of a tree's leaves, which a baseline has not")

    def architecture(self) -> str:
        """Return what is trained."""
        if self.baseline not in (None, "cnn"):
            return str(self.baseline)
        view: View = "part" if self.leaf_view == "part" else "whole"
        channels = TreeShape.channels if self.channels is None else tuple(self.channels)
        shape = TreeShape(
            self.leaves, self.join, self.pool, self.order, channels, self.leaf or "", view
        )
        if self.baseline is None:
            return tree_name(shape)
        if self.channels is not None:
            return tree_name(replace(shape, leaves=1, join="dense"))
        return tree_name(widened(shape))


_PAPER: Mapping[str, Any] = {
    "epochs": 100,
    "batch_size": 384,
    "optimizer": "adamw",
    "lr": 5e-4,
    "warmup": 10.0,
    "final_lr": 1e-6,
    "weight_decay": 0.04,
    "final_weight_decay": 0.4,
    "clip": 3.0,
}
"""Sec. 5.1, and where it says nothing, DINO's defaults."""


class TreeNet:
    """Train separate pathways by the moving average of what they say together (TreeNet)."""

    name: ClassVar[str] = "TreeNet"
    Config: ClassVar[type[Any]] = TreeNetConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": _PAPER,
        "cpu": {
            **_PAPER,
            "leaves": 8,
            "images": 10_000,
            "size": 16,
            "epochs": 3,
            "batch_size": 32,
            "warmup": 0.25,
            "lr": 5e-4,
            "prototypes": 256,
            "head_norm": True,
            "freeze_last": 0,
            "hidden": 512,
            "local_crops": 4,
            "momentum": 0.99,
            "knn_every": 1,
        },
        "tiny": {
            **_PAPER,
            "leaves": 4,
            "images": 256,
            "size": 16,
            "epochs": 2,
            "batch_size": 32,
            "warmup": 1.0,
            "lr": 1e-3,
            "prototypes": 64,
            "head_norm": True,
            "freeze_last": 0,
            "hidden": 128,
            "local_crops": 2,
            "momentum": 0.98,
            "knn_every": 1,
        },
    }

    def __init__(self, config: TreeNetConfig | None = None) -> None:
        self.config = config or TreeNetConfig()

    def learner(self, size: int | None, seed: int) -> TreeNetLearner:
        """Build the student, with a head in place of its classifier, and the teacher."""
        config = self.config
        with seeded(seed):
            network = with_head(build(config.architecture(), seed), size, self._head)
            predictor = self._predictor()
        place = str(network.head)
        if isinstance(network.module.get_submodule(place), nn.Identity):
            network = replace(network, head=None)
        network.module.eval()
        _check_size(network, self._smallest(network.preprocessing.size[0]))
        return TreeNetLearner(network, predictor, place, config)

    def _smallest(self, size: int) -> int:
        config = self.config
        return min(size, config.local_size or size // 2) if config.local_crops else size

    def _head(self, features: int) -> nn.Module:
        config = self.config
        if config.loss == "dino":
            sizes = (config.hidden, config.bottleneck, config.prototypes)
            return DINOHead(features, *sizes, config.head_norm)
        if config.loss == "byol":
            return byol_head(features, config.hidden, config.bottleneck)
        return nn.Identity()

    def _predictor(self) -> nn.Module | None:
        config = self.config
        if config.loss != "byol":
            return None
        return byol_head(config.bottleneck, config.hidden, config.bottleneck)


def _check_size(network: Network, size: int) -> None:
    """Refuse views of a size that a network does not run on, before the first step does."""
    try:
        with torch.no_grad():
            network.module(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = one_line(error, 200)
        raise UsageError(
            f"{network.architecture} does not run on views of {size}x{size} pixels ({reason}): "
            f"give a larger --local-size or --size, or another network"
        ) from error


class TreeNetLearner(Learner):
    """A student that is to say of views what its teacher says of others.

    Args:
        network: The student, with its head.
        predictor: Of the student alone; None for none.
        head: Path of the head.
        config: Of the method.
    """

    def __init__(
        self, network: Network, predictor: nn.Module | None, head: str, config: TreeNetConfig
    ) -> None:
        self.config, self.head = config, head
        prototypes = config.prototypes if config.loss == "dino" else 0
        self.module = self.pair = Pair(network.module, predictor, prototypes)
        self.network = replace(network, module=self.pair.teacher)
        size = network.preprocessing.size[0]
        self.views = MultiCrop(
            size,
            config.local_size or size // 2,
            config.local_crops,
            _GLOBAL if config.local_crops else _GLOBAL_ALONE,
            blur=config.blur,
            solarize=config.solarize,
        )

    def views_of(self, pixels: Tensor, made: slice = EVERY) -> list[Tensor]:
        """Draw large and small views of each image."""
        return self.views(pixels, made)

    def loss(self, pixels: Tensor, rows: Tensor, moment: Moment) -> Tensor:  # noqa: ARG002 - images without labels
        """Return the loss over all pairs of a student's and another, large view of its teacher."""
        config, pair = self.config, self.pair
        if config.loss == "dino":
            pair.student.get_submodule(f"{self.head}.last_layer").requires_grad_(
                moment.epoch >= config.freeze_last
            )
        groups = self._crops(pixels)
        student = self._say(pair.student, groups)
        with torch.no_grad():
            teacher = self._say(pair.teacher, groups[:1])
        said = None
        if config.loss == "leaf-contrastive":
            total = _mean_of_pairs(
                student.leaves, teacher.leaves, leaf_contrastive, config.temperature
            )
        elif config.loss == "byol":
            predicted = pair.predictor(student.outputs.flatten(0, 1)).view(student.outputs.shape)
            total = _mean_of_pairs(predicted, teacher.outputs, byol_loss)
        else:
            total, said = self._distil(student.outputs, teacher.outputs, moment)
        if config.beta:
            total = total + config.beta * leaf_cosine(student.leaves.flatten(0, 1))
        pair.see(teacher.features[0], said)
        return total

    def after_step(self, moment: Moment) -> None:
        """Let the teacher follow."""
        self.pair.follow(half_cosine(moment.share, self.config.momentum, 1.0))

    def epoch_columns(self) -> dict[str, float]:
        """Return what :meth:`featkit.trainers.self_distillation.Pair.summary` says."""
        return self.pair.summary()

    def notes(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Say whether the last epoch is one of collapse."""
        row = rows[-1]
        return [] if row["loss"] is None else collapse_notes(row, len(self.pair.center))

    def _crops(self, pixels: Tensor) -> list[Tensor]:
        """Return views, normalised: (v, b, 3, s, s) a size, or (v, b, m, 3, s, s)."""
        recipe = self.network.preprocessing
        each = self.config.leaves if self.config.leaf_view == "each" else 1
        found = []
        for group in self.own_views(pixels.repeat_interleave(each, 0)):
            views = recipe.normalize_views(group.flatten(0, 1))
            count = group.shape[1] // each
            shape = (len(group), count, *([each] if each > 1 else []), *views.shape[1:])
            found.append(views.reshape(shape))
        return found

    def _say(self, module: nn.Module, groups: Sequence[Tensor]) -> _Said:
        found = []
        for views in groups:
            images = views.flatten(0, 1)
            says = _tree_says if isinstance(module, Tree) else self._says
            parts = says(module, images)
            found.append([part.reshape(*views.shape[:2], *part.shape[1:]) for part in parts])
        return _Said(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def _says(self, module: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Ask a network without leaves: its features are taken for the only one."""
        seen: list[Tensor] = []
        handle = module.get_submodule(self.head).register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0])
        )
        try:
            outputs: Tensor = module(images)
        finally:
            handle.remove()
        return seen[0][:, None], seen[0], outputs

    def _distil(self, student: Tensor, teacher: Tensor, moment: Moment) -> tuple[Tensor, Tensor]:
        """Return DINO's loss and the teacher's distributions; its outputs move their centre."""
        config, center = self.config, self.pair.center
        first, last = config.first_temperature, config.teacher_temperature
        rising = config.temperature_warmup
        risen = min(moment.epoch / max(rising - 1, 1), 1) if rising else 1
        temperature = first + (last - first) * risen
        total = dino_loss(student, teacher, center, config.student_temperature, temperature)
        said = ((teacher.float() - center) / temperature).softmax(2)
        seen = mean_of_all(teacher.float().mean((0, 1), keepdim=True))
        center.copy_(updated_center(center, seen, config.center_momentum))
        return total, said


@dataclass(frozen=True)
class _Said:
    """What a network says of v views of b images.

    Attributes:
        leaves: (v, b, m, d) of each leaf.
        features: (v, b, features) of all, joined.
        outputs: (v, b, …) of the head.
    """

    leaves: Tensor
    features: Tensor
    outputs: Tensor


def _tree_says(tree: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    assert isinstance(tree, Tree)  # noqa: S101 - as the caller knows
    leaves = tree.leaves(images)
    features = tree.join(leaves)
    return leaves, features, tree.head(features)


def _mean_of_pairs(
    student: Tensor, teacher: Tensor, loss: Callable[..., Tensor], *options: float
) -> Tensor:
    """Return the mean loss of a student's view and another of the teacher's."""
    pairs = [(i, j) for i, j in product(range(len(student)), range(len(teacher))) if i != j]
    return torch.stack([loss(student[i], teacher[j], *options) for i, j in pairs]).mean()
