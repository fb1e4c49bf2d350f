"""How much each pixel moves a leaf."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def saliency_maps(
    read: Callable[[Tensor], Tensor], images: Tensor, leaves: int
) -> tuple[Tensor, Tensor]:
    """Return the saliency of every pixel for every leaf, and the vectors of the leaves.

    ``s_j = max_c |∂‖z_j‖² / ∂x_c|``, c a channel of pixel x.

    Each leaf is given the images anew. As none sees another's, one backward pass of ``Σ_j ‖z_j‖²``
    gives the gradients of all, whereas one pass a leaf from a common image would go through all
    leaves each time, m² in all.

    Args:
        read: From images, one for each leaf, (b, m, 3, h, w) to vectors (b, m, d).
        images: (b, 3, h, w), normalised.
        leaves: m.

    Returns:
        Maps (b, m, h, w), 0 or more, and vectors (b, m, d).

    Cost: one forward and one backward pass; 12·b·m·h·w bytes for images, and as many for
    gradients, beside what the passes take.

    Source: Simonyan, Vedaldi, Zisserman 2014, arXiv:1312.6034, sec. 3, of a class's score; Grant,
    Dias, Kulkarni, Spontaneous decomposition from grouped network pathways, 2022, sec. 5.3.1, for
    leaves, which does not say of what. ‖z_j‖² asks for no class.

    Example:
        >>> images = torch.tensor([1.0, -2.0, 3.0]).view(1, 3, 1, 1)
        >>> maps, vectors = saliency_maps(lambda x: x.flatten(2), images, leaves=2)
        >>> maps.flatten(), vectors.shape
        (tensor([6., 6.]), torch.Size([1, 2, 3]))
    """
    each = images[:, None].repeat(1, leaves, 1, 1, 1).requires_grad_()
    with torch.enable_grad():
        vectors = read(each)
        (gradients,) = torch.autograd.grad(vectors.square().sum(), each)
    return gradients.abs().amax(2), vectors.detach()
