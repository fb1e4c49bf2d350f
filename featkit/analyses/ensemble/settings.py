"""What an ensemble can be told."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from featkit.analyses.base import option
from featkit.errors import UsageError
from featkit.ops.row_adam import AdamSettings, RowAdam, Rule

Init: TypeAlias = Literal["auto", "average", "pca"]
LastBias: TypeAlias = Literal["mean", "usual"]
LastLayer: TypeAlias = Literal["auto", "relu", "linear"]
Precision: TypeAlias = Literal["fp32", "bf16"]
Bank: TypeAlias = Literal["trained", "refit"]


_Rule: TypeAlias = tuple[tuple[str, ...], Callable[[Any], bool], str]


def _is_count(value: Any) -> bool:
    return is_whole(value) and value >= 1


def is_whole(value: Any) -> bool:
    """Say whether a value is a whole number, of Python or NumPy."""
    return not isinstance(value, bool) and isinstance(value, Integral)


def is_number(value: Any) -> bool:
    """Say whether a value is a number that a float can be, of Python or NumPy."""
    try:
        return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
    except OverflowError:
        return False


def _one_of(name: str, choices: Any) -> _Rule:
    known = get_args(choices)
    return (name,), lambda value: value in known, " or ".join(known)


_RULES: tuple[_Rule, ...] = (
    (("epochs", "batch_size", "depth"), _is_count, "a whole number, at least 1"),
    (("hidden", "width"), lambda v: v is None or _is_count(v), "a whole number, at least 1"),
    (("lr",), lambda v: is_number(v) and v > 0, "a number above 0"),
    (("representation_lr",), lambda v: v is None or (is_number(v) and v > 0), "a number above 0"),
    (("warmup",), lambda v: is_number(v) and 0 <= v <= 1, "a share, 0 to 1"),
    (("weight_decay", "l1"), lambda v: is_number(v) and v >= 0, "a number, at least 0"),
    (("non_negative",), lambda v: isinstance(v, bool), "True or False"),
    (("random_state",), lambda v: is_whole(v) and 0 <= v < 2**32, "a whole number below 2^32"),
    _one_of("init", Init),
    _one_of("last_layer", LastLayer),
    _one_of("last_bias", LastBias),
    _one_of("optimizer", Rule),
    _one_of("bank", Bank),
    _one_of("precision", Precision),
)
"""What settings must be, and how that is said."""


@dataclass(frozen=True)
class Settings:
    """Every constant with its place in the paper, checked.

    :class:`featkit.analyses.ensemble.representation.EnsembleRepresentation` says more of each.

    Source: Wallace, Arpit, Wang, Xiong, Learning rich nearest neighbor representations from
    self-supervised ensembles, 2021, arXiv:2110.10293.
    """

    epochs: int = option(
        50, "Visits of every image, in training and for a new image.", "sec. 3.1; 20 on ImageNet"
    )
    batch_size: int = option(256, "Images of a step.", "sec. 3.1; 4,096 on ImageNet")
    lr: float = option(3e-4, "Learning rate of Adam.", "sec. 3.1")
    representation_lr: float | None = option(None, "Learning rate of Adam on ψ, if another.")
    warmup: float = option(0.5, "Share of the epochs in which ψ stands still.", "sec. 3.1")
    depth: int = option(2, "Layers of each perceptron.", "sec. 3; fig. 10: 1 to 8")
    hidden: int | None = option(
        None, "Dimensions between layers. Default: those of the widest model.", "sec. 3"
    )
    width: int | None = option(
        None, "Dimensions of ψ. Default: the models', or the widest one's where they differ."
    )
    init: Init = option(
        "auto",
        "Where ψ starts; auto is the average where all widths agree, else the PCA.",
        "sec. 3",
    )
    last_layer: LastLayer = option(
        "auto", "auto ends in a ReLU for models whose features are all at least 0.", "sec. 3"
    )
    last_bias: LastBias = option(
        "mean", "Start the last bias at the mean of the features, or as torch does (usual)."
    )
    optimizer: Rule = option(
        "dense", "Adam over the whole bank, or for each row by itself.", "algorithm 1: dense"
    )
    weight_decay: float = option(0.0, "On the perceptrons.", "sec. 5.1: 1e-6")
    l1: float = option(0.0, "Times the L1 norm of ψ, added to the loss of each image.", "sec. 6")
    non_negative: bool = option(False, "Keep ψ at 0 or above.", "fig. 11")
    bank: Bank = option(
        "trained", "Keep the ψ that were trained with, or find them anew with the model frozen."
    )
    precision: Precision = option("fp32", "Number format of the matrix products.")
    random_state: int = option(0, "Seed of the perceptrons and of the order of images.")

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for names, holds, wanted in _RULES:
            for name in names:
                value = getattr(self, name)
                if not holds(value):
                    raise UsageError(f"{name} is {value!r}: give {wanted}")

    @property
    def warmup_epochs(self) -> int:
        """Epochs in which ψ stands still."""
        return int(self.epochs * self.warmup + 0.5)

    def adam(self, rows: Tensor, zeros: Callable[..., Tensor] = torch.zeros) -> RowAdam:
        """Return the optimizer of ψ, (n, w), whose moments ``zeros`` makes."""
        settings = AdamSettings(self.representation_lr or self.lr)
        least = 0.0 if self.non_negative else None
        return RowAdam(rows, settings, self.optimizer, least, zeros)

    @property
    def dtype(self) -> torch.dtype:
        """Of the products."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32
