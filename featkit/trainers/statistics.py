"""Batch normalisation over the images of all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from featkit.parallel.group import here, mean_of_all, rows_of_all
from featkit.parallel.place import ALONE


@contextmanager
def shared_statistics() -> Iterator[None]:
    """Let every batch normalisation that is trained see the whole batch, of which each has a share.

    Whatever calls ``torch.nn.functional.batch_norm`` does, on any device; a process alone computes
    as always. ``torch.nn.SyncBatchNorm`` is for GPUs only, and has to replace modules.
    """
    if here() == ALONE:
        yield
        return
    with _Shared():
        yield


class _Shared(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func is functional.batch_norm:
            return _batch_norm(*args, **given)
        return func(*args, **given)


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise (b, c, …) as ``functional.batch_norm`` does, by the moments over all processes."""
    if not training:
        return functional.batch_norm(
            x, running_mean, running_var, weight, bias, False, momentum, eps
        )
    mean, variance = _moments(x)
    if running_mean is not None and running_var is not None:
        count = here().count * (x.numel() // x.shape[1])
        running_mean.lerp_(mean.to(running_mean), momentum)
        running_var.lerp_((variance * (count / (count - 1))).to(running_var), momentum)
    found: Tensor = _Normalize.apply(x, mean, torch.rsqrt(variance + eps))
    shape = (1, -1, *[1] * (x.ndim - 2))
    if weight is not None:
        found = found * weight.view(shape)
    return (found if bias is None else found + bias.view(shape)).to(x.dtype)


@torch.no_grad()
def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance (c) of (b, c, …) over all processes, each of which has as many.

    Of their own means m_r and variances v_r: m the mean of m_r, and v that of v_r + (m_r - m)².
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    own = torch.var_mean(wide, _places(x), correction=0)
    variances, means = rows_of_all(torch.stack(own)[None]).unbind(1)
    mean = means.mean(0)
    variance = (variances + (means - mean).square()).mean(0)
    return mean, variance


def _places(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]


class _Normalize(torch.autograd.Function):
    """``x̂ = (x - m) / σ``, with m and σ functions of the numbers of all processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        ctx.save_for_backward(x, mean.view(shape), scale.view(shape))
        return (x - mean.view(shape)) * scale.view(shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return ``(g - mean g - x̂ · mean(g x̂)) / σ``, means over all processes."""
        x, mean, scale = ctx.saved_tensors
        normalized, places = (x - mean) * scale, _places(x)
        both = (gradient, gradient * normalized)
        first, second = mean_of_all(torch.stack([g.mean(places, keepdim=True) for g in both]))
        return (gradient - first - normalized * second) * scale, None, None
