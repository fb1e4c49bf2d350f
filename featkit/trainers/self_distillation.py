"""A student that learns from its own moving average, and how to tell when both say nothing.

Source: Grill et al. 2020, arXiv:2006.07733 (BYOL); Caron et al. 2021, arXiv:2104.14294 (DINO).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from featkit.parallel.group import mean_of_all, rows_of_all

_NEAR = 0.01
"""How near, of ln K, a loss or entropy comes to that of a network that says nothing."""

_FLAT = 0.02
"""Spread of features, 0 to 1, or share of ln K by which what is said of a batch exceeds in entropy
what is said of an image, below which all images look alike."""


class Pair(nn.Module):
    """Student and teacher, and what was seen of the teacher in this epoch.

    Args:
        student: Is trained. The teacher starts as its copy, and follows it.
        predictor: Of the student alone; None for none.
        prototypes: Outputs that are centred; 0 for none.
    """

    center: Tensor
    seen: Tensor

    def __init__(self, student: nn.Module, predictor: nn.Module | None, prototypes: int) -> None:
        super().__init__()
        self.student, self.predictor = student, predictor or nn.Identity()
        self.teacher = copy.deepcopy(student).requires_grad_(False)
        self.register_buffer("center", torch.zeros(prototypes))
        self.register_buffer("seen", torch.zeros(4))

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move the teacher's weights: ``m · teacher + (1 - m) · student``.

        Statistics of normalisation are its own.
        """
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        for own, other in pairs:
            own.lerp_(other, 1 - momentum)

    @torch.no_grad()
    def see(self, features: Tensor, said: Tensor | None) -> None:
        """Add what a step shows of the teacher, to all processes.

        Args:
            features: (b, d) of one view of different images.
            said: (…, b, K) distributions over prototypes; None where there are none.
        """
        spread = feature_spread(rows_of_all(features))
        each = both = torch.zeros_like(spread)
        if said is not None:
            each = mean_of_all(torch.special.entr(said).sum(-1).mean())
            both = torch.special.entr(mean_of_all(said.flatten(0, -2).mean(0))).sum()
        self.seen += torch.stack([each, both, spread, torch.ones_like(spread)]).to(self.seen)

    def summary(self) -> dict[str, float]:
        """Return the epoch's means, and begin the next.

        ``teacher_entropy`` of what it says of an image, ``prototype_entropy`` of what it says of a
        batch, both in nats, where there are prototypes; ``feature_std``, its
        :func:`feature_spread`.
        """
        *sums, steps = self.seen.tolist()
        self.seen.zero_()
        names = ("teacher_entropy", "prototype_entropy", "feature_std")
        columns = {name: total / steps for name, total in zip(names, sums, strict=True)}
        return columns if len(self.center) else {"feature_std": columns["feature_std"]}


def feature_spread(features: Tensor) -> Tensor:
    """Return how far the directions of features differ: √(1 - ‖mean of f / ‖f‖‖²).

    That is √d times the usual standard deviation over images, of each dimension of normalised
    features: 0 where all are alike, 1 where they share no direction.

    Args:
        features: (b, d).

    Source: Chen and He 2021, arXiv:2011.10566, fig. 2.

    Example:
        >>> feature_spread(torch.tensor([[1.0, 0.0], [-2.0, 0.0]]))
        tensor(1.)
    """
    units = functional.normalize(features.float(), dim=1)
    return units.var(0, correction=0).sum().sqrt()


def collapse_notes(row: Mapping[str, Any], prototypes: int) -> list[str]:
    """Say whether an epoch is that of networks which say the same of every image.

    Args:
        row: ``loss``, and what :meth:`Pair.summary` gives.
        prototypes: K; 0 for none.
    """
    found = []
    if prototypes:
        most = math.log(prototypes)
        if row["teacher_entropy"] > (1 - _NEAR) * most:
            found.append(
                f"its teacher's entropy is {row['teacher_entropy']:.3f}, and ln K {most:.3f}"
            )
        if abs(row["loss"] / most - 1) < _NEAR:
            found.append(f"its loss is {row['loss']:.3f}, and ln K {most:.3f}")
        told = row["prototype_entropy"] - row["teacher_entropy"]
        if told < _FLAT * most:
            found.append(f"its prototypes tell images apart by {told:.3f} nats of {most:.3f}")
    if row["feature_std"] < _FLAT:
        found.append(f"its features spread by {row['feature_std']:.4f} (1: all directions)")
    if not found:
        return []
    said = f"collapse in epoch {row['epoch']}, or nothing learned yet: {'; '.join(found)}"
    return [f"{said}; train longer, or with another --lr, --momentum or --teacher-temperature"]
