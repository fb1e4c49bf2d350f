"""Adam on a bank of rows of which each step touches a few."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Rule: TypeAlias = Literal["dense", "row"]

_NEGLIGIBLE = 1e-9
"""Share of the first moment that is left after the last idle step that counts."""

_TERMS = 2**20
"""Numbers that are added up at once; more would leave the cache."""

_SETTLED = 400
"""Steps after which the bias corrections change so slowly that two nodes suffice."""


@dataclass(frozen=True)
class AdamSettings:
    """Constants of Adam.

    Args:
        lr: Learning rate.
        betas: Decay of the first and of the second moment.
        eps: Added to the root of the second moment.

    Source: Kingma and Ba, 2015, arXiv:1412.6980, algorithm 1.
    """

    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


class RowAdam:
    """Adam on the rows of a matrix, at the cost of the rows that a step touches.

    ``dense`` gives what ``torch.optim.Adam`` over the whole matrix gives, where rows outside of the
    batch have a gradient of zero: such a row goes on by its momentum while its second moment
    decays. A row that was idle gets the missed steps at once, when it is next wanted: over k idle
    steps it moves by ``-lr · m Σ_k w_k / (√v σ_k + ε)``, ``w_k = β1^k / (1 - β1^(s+k))``,
    ``σ_k = √(β2^k / (1 - β2^(s+k)))``. The sum is taken over two Gauss nodes in σ, which varies by
    a few per cent over the terms that count; term by term in the first 400 steps, where it varies
    more, and for betas with which it always does.

    ``row`` is Adam for each row by itself: moments and step count stand still while it is idle.

    Args:
        rows: (n, w), float32; changed in place. ``read`` and ``flush`` bring rows up to date.
        settings: Constants.
        rule: ``dense`` or ``row``.
        least: What entries are raised to after each step; None for no bound.
        zeros: Makes the moments, from their shape.

    Attributes:
        steps: Steps taken.
        last: Step at which each row was brought up to date, or how many it has taken (``row``),
            (n); 0 for those that no step has touched.

    Cost: a step over b rows takes O(b·w); memory 8·n·w bytes for the moments, 8·n for the counts.
    """

    def __init__(
        self,
        rows: Tensor,
        settings: AdamSettings,
        rule: Rule = "dense",
        least: float | None = None,
        zeros: Callable[..., Tensor] = torch.zeros,
    ) -> None:
        self.rows = rows
        self.settings = settings
        self.rule = rule
        self.first, self.second = (zeros(*rows.shape).to(rows.dtype) for _ in range(2))
        self.least = least
        self.steps = 0
        self.last = torch.zeros(len(rows), dtype=torch.int64)

    def read(self, index: Tensor) -> Tensor:
        """Bring rows up to date and return them.

        Args:
            index: (b), distinct.

        Returns:
            (b, w), a copy.
        """
        values = self.rows[index]
        idle = self.steps - self.last[index]
        if self.rule == "dense" and bool((idle * self.last[index]).any()):
            self._catch_up(index, idle, values)
        return values

    def step(self, index: Tensor, values: Tensor, gradient: Tensor) -> None:
        """Take one step, in which these rows have a gradient and the others none.

        Args:
            index: (b), distinct.
            values: (b, w) from :meth:`read` since the last step; changed in place.
            gradient: (b, w).
        """
        self.steps += 1
        if self.rule == "dense":
            self.last[index] = self.steps
        else:
            self.last[index] += 1
        beta1, beta2 = self.settings.betas
        first = self.first[index].lerp_(gradient, 1 - beta1)
        second = self.second[index].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        self.first[index], self.second[index] = first, second
        count = self.last[index].double()[:, None]
        scale = (self.settings.lr / (1 - beta1**count)).to(first)
        root = (1 - beta2**count).sqrt().to(first)
        values.sub_(first.mul_(scale).div_(second.sqrt_().div_(root).add_(self.settings.eps)))
        self._write(index, values)

    def skip(self, steps: int) -> None:
        """Take steps in which no row has a gradient."""
        self.steps += steps

    def flush(self, block: int = 4096) -> None:
        """Bring every row up to date."""
        for part in torch.split(torch.arange(len(self.rows)), block):
            self.read(part)

    def _catch_up(self, index: Tensor, idle: Tensor, values: Tensor) -> None:
        """Take the missed steps of rows, and write them back."""
        first, second = self.first[index], self.second[index]
        root, moved = second.sqrt(), torch.zeros_like(values)
        weights, nodes = _quadrature(self.last[index], idle, self.settings.betas)
        for part in torch.split(torch.arange(weights.shape[1]), max(1, _TERMS // root.numel())):
            weight, node = (x[:, part, None].to(root) for x in (weights, nodes))
            moved += (weight / (root[:, None] * node + self.settings.eps)).sum(1)
        moved *= first
        values.sub_(moved, alpha=self.settings.lr)
        for moment, kept, beta in zip(
            (first, second), (self.first, self.second), self.settings.betas, strict=True
        ):
            kept[index] = moment.mul_((beta ** idle.double())[:, None].to(moment))
        self._write(index, values)
        self.last[index] = torch.where(self.last[index] > 0, self.steps, 0)

    def _write(self, index: Tensor, values: Tensor) -> None:
        if self.least is not None:  # idle steps go one way, so bounding once bounds each
            values.clamp_(min=self.least)
        self.rows[index] = values


def _quadrature(last: Tensor, idle: Tensor, betas: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Return weights and nodes (b, terms), float64, that stand for the missed steps of each row."""
    longest = math.ceil(math.log(_NEGLIGIBLE) / math.log(max(betas[0], _NEGLIGIBLE)))
    k = torch.arange(1, min(longest, int(idle.max())) + 1, dtype=torch.float64)
    after = last.double()[:, None] + k
    missed = (k <= idle[:, None]) & (last[:, None] > 0)
    weights = torch.where(missed, betas[0] ** k / (1 - betas[0] ** after), 0)
    nodes = (betas[1] ** k / (1 - betas[1] ** after)).sqrt()
    is_steep = 1 - betas[1] > 0.02 * (1 - betas[0])
    if is_steep or bool((last[last > 0] < _SETTLED).any()):
        return weights, nodes
    total = weights.sum(1, keepdim=True)
    share = weights / total.clamp(min=torch.finfo(torch.float64).tiny)
    mean = (share * nodes).sum(1, keepdim=True)
    deviation = nodes - mean
    spread = (share * deviation**2).sum(1, keepdim=True).sqrt()
    skew = (share * deviation**3).sum(1, keepdim=True) / spread.clamp(min=1e-100) ** 3
    half = skew / 2
    arm = (1 + half**2).sqrt()
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64)
    nodes = torch.where(total > 0, mean + spread * (half + signs * arm), 1)
    return total * (1 - signs * half / arm) / 2, nodes
