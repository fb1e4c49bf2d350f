"""Batch normalisation over the images of all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from featkit.parallel.group import here, rows_of_all
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
        types: Sequence[type],  # noqa: ARG002 - torch's signature
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func is functional.batch_norm:
            return _batch_norm(*args, **given)
        return func(*args, **given)


def _batch_norm(  # noqa: PLR0913 - torch's signature
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise (b, c, …) as ``functional.batch_norm`` does, by the moments over all processes.

    From mean m_r and variance v_r in each of n processes: m the mean of m_r, and v the mean of
    v_r + (m_r - m)². Each has as many numbers of a channel.
    """
    if not training:
        return functional.batch_norm(
            x, running_mean, running_var, weight, bias, False, momentum, eps
        )
    places = [0, *range(2, x.ndim)]
    own_var, own_mean = torch.var_mean(x.float(), places, correction=0)
    means, variances = rows_of_all(torch.stack([own_mean, own_var])[None]).unbind(1)
    mean = means.mean(0)
    variance = (variances + (means - mean).square()).mean(0)
    if running_mean is not None and running_var is not None:
        count = here().count * (x.numel() // x.shape[1])
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((variance * (count / (count - 1))).to(running_var), momentum)
    factor = torch.rsqrt(variance + eps)
    factor = factor if weight is None else factor * weight
    shift = -mean * factor if bias is None else bias - mean * factor
    shape = (1, -1, *[1] * (x.ndim - 2))
    return (x * factor.view(shape) + shift.view(shape)).to(x.dtype)
