"""What every trainer can be told."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

from featkit.analyses.base import option
from featkit.errors import UsageError

Optimizer: TypeAlias = Literal["adam", "adamw", "lars", "sgd"]
Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
Schedule: TypeAlias = Literal["cosine", "constant"]


@dataclass(frozen=True)
class Training:
    """How long, on what and how fast to learn; the same for every method."""

    epochs: int = option(30, "Passes over the images.", "Malviya and Sudhakar, appendix A")
    images: int | None = option(None, "Images to take, drawn at random. Default: all.")
    size: int | None = option(None, "Pixels of the network's input. Default: the network's.")
    batch_size: int = option(512, "Images of a step; what is left of an epoch is dropped.")
    optimizer: Optimizer = option("lars", "adam, adamw, lars or sgd, with momentum 0.9.", "SimCLR")
    lr: float = option(0.6, "Learning rate after the warm-up.", "VISSL: 0.3 · batch / 256")
    warmup: float = option(3.0, "Epochs in which the learning rate rises from 0.")
    schedule: Schedule = option("cosine", "How it goes on: cosine, or constant.")
    final_lr: float = option(0.0, "Learning rate at the end of the cosine.")
    weight_decay: float = option(1e-6, "On weights, not on biases and normalisation.", "VISSL")
    final_weight_decay: float | None = option(
        None, "Weight decay at the end of a cosine. Default: as at the start."
    )
    clip: float | None = option(
        None, "Largest norm of the gradient of each tensor; longer ones are shortened. Default: no."
    )
    precision: Precision = option(
        "auto", "fp32 or bf16; auto takes bf16 where the hardware computes it."
    )
    held_out: float = option(0.1, "Share of labelled images that neighbours are judged on.")
    knn_every: int = option(5, "Epochs between two judgements by neighbours.")
    patience: int | None = option(
        None, "Stop after so many judgements without a better one, and take the best. Default: no."
    )
    keep_every: int | None = option(None, "Keep the network every so many epochs. Default: no.")
    seed: int = option(0, "Of weights, views, orders, what is held out: all draws.")

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        least = {"epochs": 1, "knn_every": 1, "batch_size": 2, "seed": 0}
        least |= {"images": 2, "size": 8, "patience": 1, "keep_every": 1}
        check_numbers(self, least, whole=True)
        numbers = ("warmup", "final_lr", "weight_decay", "final_weight_decay", "clip", "held_out")
        check_numbers(self, dict.fromkeys(numbers, 0))
        if not (_is_number(self.lr) and self.lr > 0):
            raise UsageError(f"lr is {self.lr!r}: give a number above 0")
        if self.held_out >= 1:
            raise UsageError(f"held_out is {self.held_out!r}: give a share below 1")
        if self.patience is not None and not self.held_out:
            raise UsageError("patience needs images to judge on: give a held_out above 0")
        if self.schedule == "constant" and self.final_lr:
            raise UsageError("final_lr is where a cosine ends: give --schedule cosine with it")
        kinds = {"optimizer": Optimizer, "precision": Precision, "schedule": Schedule}
        for name, kind in kinds.items():
            if getattr(self, name) not in get_args(kind):
                said = f"{name} is {getattr(self, name)!r}"
                raise UsageError(f"{said}: use {', '.join(get_args(kind))}")


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max  # which NaN is not, nor 10**400


def check_numbers(settings: Any, least: Mapping[str, float], whole: bool = False) -> None:
    """Refuse fields of a dataclass that are no numbers, or too small; None may be a default.

    Raises:
        UsageError: One is.
    """
    optional = {field.name for field in fields(settings) if field.default is None}
    for name, bound in least.items():
        value = getattr(settings, name)
        if value is None and name in optional:
            continue
        if not _is_number(value) or value < bound or (whole and not isinstance(value, int)):
            kind = "a whole number" if whole else "a number"
            raise UsageError(f"{name} is {value!r}: give {kind}, at least {bound}")
