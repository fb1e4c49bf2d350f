"""Losses that keep the leaves of a network, which all see the same image, from becoming alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from featkit.errors import UsageError
from featkit.ops.unit_vectors import unit_vectors


def leaf_contrastive(student: Tensor, teacher: Tensor, temperature: float = 0.1) -> Tensor:
    """Return the contrastive loss whose negatives are the other leaves of the same image.

    Mean over images, and over the 2m vectors z_1 … z_m, z_{m+1} … z_{2m} that m leaves of student
    and teacher make of one, of ``-log(exp(cos(z_i, z_j) / τ) / Σ_{k ≠ i} exp(cos(z_i, z_k) / τ))``
    with z_j the other vector of the same leaf, and k over the other 2m - 1 vectors.

    Args:
        student: (b, m, d), a vector of each of m ≥ 2 leaves, in any floating point; a zero vector
            has cosine 0 with all others and no gradient.
        teacher: (b, m, d), of another view of the same images; it gets no gradient.
        temperature: τ > 0.

    Returns:
        A scalar in float32, whatever the type of the vectors; ``log(2m - 1)`` where all cosines
        are equal.

    Raises:
        UsageError: The shapes differ or have no two leaves, or the temperature is not above 0.

    Cost: 8·b·m²·d operations and 16·b·m² bytes, in the forward.

    Source: Grant, Dias and Kulkarni, Spontaneous decomposition from grouped network pathways,
    sec. 3, where it is described and not written out; the form is that of Chen et al. 2020,
    arXiv:2002.05709, eq. 1.

    Example:
        >>> leaves = torch.eye(2)[None]
        >>> round(float(leaf_contrastive(leaves, leaves, temperature=1.0)), 4)  # log(1 + 2 / e)
        0.5514
    """
    if student.ndim != 3 or student.shape != teacher.shape or not student.numel():
        raise UsageError(
            f"student and teacher are (b, m, d) both: not {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}"
        )
    b, m, _ = student.shape
    if m < 2:
        raise UsageError("one leaf has no other to be told from: give 2 or more")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise UsageError(f"temperature is {temperature!r}: give a number above 0")
    with torch.autocast(student.device.type, enabled=False):
        vectors = torch.cat([unit_vectors(student), unit_vectors(teacher.detach())], 1)
        logits = torch.bmm(vectors, vectors.transpose(1, 2)) / temperature
        logits.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        same_leaf = torch.arange(2 * m, device=vectors.device).roll(m)
        return functional.cross_entropy(logits.flatten(0, 1), same_leaf.repeat(b))


def leaf_cosine(leaves: Tensor) -> Tensor:
    """Return the mean cosine of two leaves of an image, as a penalty.

    Mean over images of ``1 / (2m²) · Σ_{i ≠ j} cos(f_i, f_j)``, of which the sum is
    ``‖Σ_i f̂_i‖² - Σ_i ‖f̂_i‖²``: no pair is looked at.

    Args:
        leaves: (b, m, d), f: a vector of each of m leaves, in any floating point; a zero vector
            has cosine 0 with all others and no gradient.

    Returns:
        A scalar in float32, whatever the type of the vectors: -1 / 2m or more, 0 where leaves are
        orthogonal, (m - 1) / 2m where they are alike.

    Raises:
        UsageError: The shape is another, or there is no vector.

    Cost: some 10·b·m·d operations; memory 8·b·m·d bytes.

    Source: Grant, Dias and Kulkarni, Spontaneous decomposition from grouped network pathways,
    sec. 3.3; they write K for m.

    Example:
        >>> leaf_cosine(torch.tensor([[[1.0, 0.0], [2.0, 0.0]]]))
        tensor(0.2500)
    """
    if leaves.ndim != 3 or not leaves.numel():
        raise UsageError(f"leaves are (b, m, d): not {tuple(leaves.shape)}")
    units = unit_vectors(leaves)
    both = units.sum(1).square().sum(1) - units.square().sum((1, 2))
    return both.mean() / (2 * leaves.shape[1] ** 2)
