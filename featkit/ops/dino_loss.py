"""The loss of DINO: a student tells apart what its teacher does, from other views."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from featkit.errors import UsageError


def dino_loss(
    student: Tensor,
    teacher: Tensor,
    center: Tensor,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
) -> Tensor:
    """Return the cross-entropy between what teacher and student say of two views of an image.

    Mean over images and over the g·(v - 1) pairs i ≠ j of ``-Σ_k q_ik · log p_jk`` with
    ``q_i = softmax((t_i - c) / τ_t)`` of the teacher's view i and ``p_j = softmax(s_j / τ_s)`` of
    the student's view j. All pairs of a teacher's view at once: ``-q_i · (Σ_j log p_j - log p_i)``.

    Args:
        student: (v, b, K) outputs for v ≥ 2 views of b images, in any floating point.
        teacher: (g, b, K) for the first g of these views, 1 ≤ g ≤ v; it gets no gradient.
        center: (K), c, as :func:`updated_center` keeps it.
        student_temperature: τ_s > 0.
        teacher_temperature: τ_t > 0.

    Returns:
        A scalar in float32, 0 or more, whatever the type of the outputs; ``log K`` where the
        student says the same of all K.

    Raises:
        UsageError: The shapes do not fit or leave no pair, or a temperature is not above 0.

    Cost: some 10·(v + g)·b·K operations; memory 4·(2v + 3g)·b·K bytes.

    Source: Caron et al. 2021, arXiv:2104.14294, eq. 3 and algorithm 1; Grant, Dias and Kulkarni,
    Spontaneous decomposition from grouped network pathways, sec. 3.3.

    Example:
        >>> views = torch.zeros(2, 1, 4)
        >>> round(float(dino_loss(views, views, torch.zeros(4))), 4)  # log 4
        1.3863
    """
    _check_shapes(student, teacher, center)
    for whose, temperature in (("student", student_temperature), ("teacher", teacher_temperature)):
        if not (temperature > 0 and math.isfinite(temperature)):
            raise UsageError(f"{whose}_temperature is {temperature!r}: give a number above 0")
    (v, b, _), g = student.shape, len(teacher)
    with torch.autocast(student.device.type, enabled=False):
        targets = teacher.detach().float() - center.detach().float()
        targets = functional.softmax(targets.div_(teacher_temperature), dim=2)
        logs = functional.log_softmax(student.float() / student_temperature, dim=2)
        others = logs.sum(0) - logs[:g]
        return -(targets * others).sum() / (g * (v - 1) * b)


@torch.no_grad()
def updated_center(center: Tensor, teacher: Tensor, momentum: float = 0.9) -> Tensor:
    """Return the moving mean of a teacher's outputs after another batch.

    ``m · c + (1 - m) · mean t`` over all views and images.

    Args:
        center: (K), c.
        teacher: (g, b, K), t, before centring and temperature.
        momentum: m, 0 to 1.

    Returns:
        (K), of the type of ``center``.

    Raises:
        UsageError: The shapes do not fit, or the momentum is not in [0, 1].

    Source: Caron et al. 2021, arXiv:2104.14294, eq. 4.

    Example:
        >>> updated_center(torch.zeros(2), torch.ones(2, 3, 2))
        tensor([0.1000, 0.1000])
    """
    if teacher.ndim != 3 or not teacher.numel() or center.shape != teacher.shape[2:]:
        raise UsageError(
            f"teacher and center are (g, b, K) and (K): not {tuple(teacher.shape)} and "
            f"{tuple(center.shape)}"
        )
    if not 0 <= momentum <= 1:
        raise UsageError(f"momentum is {momentum!r}: give a number in [0, 1]")
    return center.lerp(teacher.float().mean((0, 1)).to(center.dtype), 1 - momentum)


def _check_shapes(student: Tensor, teacher: Tensor, center: Tensor) -> None:
    fits = (
        student.ndim == teacher.ndim == 3
        and student.shape[1:] == teacher.shape[1:]
        and center.shape == student.shape[2:]
        and student.numel()
    )
    if not fits or not 1 <= len(teacher) <= len(student):
        raise UsageError(
            "student, teacher and center are (v, b, K), (g, b, K) and (K), 1 ≤ g ≤ v: not "
            f"{tuple(student.shape)}, {tuple(teacher.shape)} and {tuple(center.shape)}"
        )
    if len(student) == 1:
        raise UsageError("one view has no other to be compared with: give 2 or more")
