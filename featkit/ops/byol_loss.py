"""The loss of BYOL: a prediction is to point where its target does."""

from __future__ import annotations

from torch import Tensor

from featkit.errors import UsageError
from featkit.ops.unit_vectors import unit_vectors


def byol_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the squared distance of the directions of predictions and targets.

    Mean over all vectors of ``‖p̂ - t̂‖² = 2 - 2 · cos(p, t)``.

    Args:
        prediction: (…, d), in any floating point; a zero vector has cosine 0 and no gradient.
        target: Of the same shape; it gets no gradient.

    Returns:
        A scalar in float32, 0 to 4, whatever the type of the vectors.

    Raises:
        UsageError: The shapes differ, or there is no vector.

    Cost: some 10 operations a number; memory 4 times that of the predictions in float32.

    Source: Grill et al. 2020, arXiv:2006.07733, eq. 2, of one of the two directions.

    Example:
        >>> import torch
        >>> byol_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
        tensor(2.)
    """
    if not prediction.ndim or prediction.shape != target.shape or not prediction.numel():
        raise UsageError(
            f"predictions and targets are (…, d) both: not {tuple(prediction.shape)} and "
            f"{tuple(target.shape)}"
        )
    cosines = (unit_vectors(prediction) * unit_vectors(target.detach())).sum(-1)
    return 2 - 2 * cosines.mean()
