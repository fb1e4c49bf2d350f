"""The rows of all processes in one tensor, with gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from featkit.parallel.group import add_up, all_there, here


class GatherRows(torch.autograd.Function):
    """As :func:`featkit.parallel.group.rows_of_all`."""

    @staticmethod
    def forward(_ctx: Any, rows: Tensor) -> Tensor:
        """Return (b · processes, …)."""
        found = [torch.empty_like(rows) for _ in range(here().count)]
        with all_there():
            dist.all_gather(found, rows.contiguous())
        return torch.cat(found)

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        """Return the gradient of the sum of what all processes make of the rows of this one."""
        total = add_up(gradient.clone(memory_format=torch.contiguous_format))
        return total[here().share(len(total))]
