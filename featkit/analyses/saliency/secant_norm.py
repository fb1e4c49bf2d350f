"""A normalisation whose slopes lead from one image to another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class SecantNorm(nn.Module):
    """A group normalisation that DeepLIFT can go through: its multipliers add up.

    Captum gives images and baselines as the two halves of one batch, and goes back from scores by
    autograd. There this gives, in place of derivatives at x, slopes m from b to x, of which
    ``m · (x - b) = f(x) - f(b)``; they are the derivatives where b is x.

    With c the values less their mean, v their mean square plus ε, ``f = c / √v``. Of a product each
    factor gets its change times the mean of the other (its Shapley value), so that the slope of
    ``Σ_i g_i f_i`` by c is ``g · s + c̄ · (2 / n) ρ Σ_i g_i c̄_i``: a bar is the mean over x and b,
    ``s`` that of 1 / √v, and ``ρ = -1 / (√v_x √v_b (√v_x + √v_b))`` is the slope of 1 / √v by v.

    Args:
        norm: Shares its weights.

    Source: Shrikumar, Greenside, Kundaje 2017, arXiv:1704.02685, sec. 3.2 (multipliers, their
    chain rule) and Lundberg and Lee 2017, arXiv:1705.07874, sec. 4.2 (Shapley values of simple
    parts); that normalisations are made of such parts is ours. Captum would take their gradients,
    with which attributions do not add up.

    Example:
        >>> norm = SecantNorm(nn.GroupNorm(1, 2))
        >>> x, b = torch.tensor([[3.0, 1.0]]), torch.tensor([[-1.0, 5.0]])
        >>> both = torch.cat([x, b]).requires_grad_()
        >>> slope = torch.autograd.grad(norm(both)[:, 0].sum(), both)[0][:1]
        >>> (slope * (x - b)).sum(), norm(x)[0, 0] - norm(b)[0, 0]
        (tensor(2.0000), tensor(2.0000, grad_fn=<SubBackward0>))
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, …) to the same."""
        normal: Tensor = _Secant.apply(x, self.norm.num_groups, self.norm.eps)
        shape = (-1, *[1] * (x.ndim - 2))
        return normal * self.norm.weight.view(shape) + self.norm.bias.view(shape)


class _Secant(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, eps: float) -> Tensor:
        centred, deviation = _parts(x, groups, eps)
        ctx.save_for_backward(centred, deviation)
        return (centred / deviation).view(x.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        centred, deviation = ctx.saved_tensors
        g = grad.reshape(centred.shape)
        middle = _of_both(centred.chunk(2), lambda x, b: (x + b) / 2)
        scale = _of_both(deviation.chunk(2), lambda x, b: (1 / x + 1 / b) / 2)
        slope = _of_both(deviation.chunk(2), lambda x, b: -1 / (x * b * (x + b)))
        by_centred = g * scale + middle * slope * 2 * (g * middle).mean(2, keepdim=True)
        return (by_centred - by_centred.mean(2, keepdim=True)).view(grad.shape), None, None


def _parts(x: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Return what a group's values are more than their mean, (b, g, n), and √v, (b, g, 1)."""
    values = x.reshape(len(x), groups, -1)
    centred = values - values.mean(2, keepdim=True)
    return centred, (centred.square().mean(2, keepdim=True) + eps).sqrt()


def _of_both(halves: tuple[Tensor, ...], combine: Any) -> Tensor:
    found = combine(*halves)
    return torch.cat([found, found])
