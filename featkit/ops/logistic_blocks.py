"""The diagonal blocks of a Hessian, one a class, as a preconditioner."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from featkit.ops.logistic_curvature import Curvature, Metric
from featkit.ops.logistic_rows import BLOCK, HELD_FLOATS

DRAWS = 8  # rows that form a block, over its width
COMMON = 1e-3  # share of all rows' S in a block, where the rows drawn have nothing to say
RIDGE = 3e-4  # over a block's diagonal: bfloat16 tells no smaller eigenvalues apart
PATIENCE = 1.5  # blocks cost as much as this many products, times width² / rows


@dataclass(frozen=True)
class ClassBlocks:
    """``Σ_i p_ic (1 - p_ic) x_i x_iᵀ + λ`` of each class c, inverted; between classes nothing.

    Each row counts as often as it stands for others.

    What changes all classes' logits alike is left out: it changes no share, so that only λ, which
    may be tiny, bends the objective there, where a block knows nothing of it.

    Attributes:
        inverses: Float32 (k · c, r + 1, r + 1), of all columns of the targets.
        columns: Of the problems, int64 (p).
    """

    inverses: Tensor
    columns: Tensor

    def solve(self, x: Tensor) -> Tensor:
        """Return the inverse times ``x`` (p, c, r + 1)."""
        p, c, width = x.shape
        x = x - x.mean(1, keepdim=True) if c > 1 else x
        names = (self.columns[:, None] * c + torch.arange(c)).view(-1)
        flat, solved = x.reshape(p * c, width), torch.empty(p * c, width)
        for name in sorted(set(names.tolist())):
            own = torch.nonzero(names == name).squeeze(1)
            solved[own] = flat[own] @ self.inverses[name]
        solved = solved.view(p, c, width)
        return solved - solved.mean(1, keepdim=True) if c > 1 else solved

    def of(self, problems: Tensor) -> ClassBlocks:
        """Return that of some problems."""
        return ClassBlocks(self.inverses, self.columns[problems])


class Preconditioning:
    """Chooses what linear systems are solved with: the metric, or class blocks where it is poor.

    Blocks are formed when as many products have been spent as they cost, and anew when systems have
    taken that many more than the first one did. Those of one penalty serve others, as the shape
    changes slowly along the path, and conjugate gradients do not mind the scale.

    Args:
        curvature: Of the rows that are held.
        blocks: How many there are, k · c.
        most: Numbers that they may hold.

    Source: a class's block as its own curvature, Friedman, Hastie & Tibshirani 2010, J. Stat.
    Softw. 33:1, section 4. Rows drawn by their weights: Xu et al. 2016, arXiv:1607.00559.
    """

    def __init__(self, curvature: Curvature, blocks: int, most: int = HELD_FLOATS) -> None:
        width = len(curvature.spread)
        self.curvature, self.blocks = curvature, blocks
        self.fits = blocks * width**2 <= most
        self.worth = PATIENCE * width**2 / curvature.rows
        self.spent = 0
        self.usual: int | None = None
        self.inverses: Tensor | None = None

    def choose(
        self, metric: Metric, weights: Tensor, penalties: Tensor, columns: Tensor, live: Tensor
    ) -> Metric | ClassBlocks:
        """Return the preconditioner of the problems that are live.

        Args:
            metric: Of the problems that are live.
            weights: Of all problems, float32 (p, c, m).
            penalties: λ of all, (p).
            columns: Of all, int64 (p).
            live: Which of them, ascending.
        """
        if self.fits and self.spent >= self.worth:
            middle = penalties[live[len(live) // 2]]
            same = torch.nonzero(penalties == middle).squeeze(1)
            every = range(self.blocks // weights.shape[1])
            if set(columns[same].tolist()) == set(every):
                own = torch.stack([same[columns[same] == column][0] for column in every])
                self._form(weights[own], float(middle))
        return metric if self.inverses is None else ClassBlocks(self.inverses, columns[live])

    def used(self, products: int) -> None:
        """Take note of the products that a system has taken."""
        if self.inverses is not None and self.usual is None:
            self.usual = products
        else:
            self.spent += max(0, products - (self.usual or 0))

    def _form(self, weights: Tensor, penalty: float) -> None:
        bends = self.curvature.loss.bends(weights, self.curvature.targets).flatten(0, 1)
        if self.inverses is None:
            width = len(self.curvature.spread)
            self.inverses = torch.empty(self.blocks, width, width)
        for name, bend in enumerate(bends):
            self.inverses[name] = _inverted(class_block(self.curvature, bend, penalty))
        self.spent, self.usual = 0, None


def class_block(curvature: Curvature, bend: Tensor, penalty: float) -> Tensor:
    """Return about ``Σ_i counts_i bend_i x_i x_iᵀ + λ`` from rows drawn by these factors.

    Rows are drawn at equal distances along the sum of the factors (systematic sampling): of no row
    does the weight differ by more than a draw, and without a random number.

    Args:
        curvature: Of the rows, in its basis.
        bend: Not negative, float32 (m).
        penalty: λ.

    Returns:
        Float32 (r + 1, r + 1), the last of the bias, without λ.
    """
    width = len(curvature.spread)
    sums = (bend * curvature.counts).cumsum(0, dtype=torch.float64)
    step = (sums[-1] / (DRAWS * width)).clamp(min=1e-300)
    drawn = (sums / step).round().diff(prepend=sums.new_zeros(1))
    kept = torch.nonzero(drawn).squeeze(1)
    roots = (drawn[kept] * step / curvature.counts[kept]).sqrt().to(curvature.held.dtype)
    block = torch.zeros(width, width)
    for start in range(0, len(kept), BLOCK):
        some = slice(start, start + BLOCK)
        rows = curvature.held[kept[some]] * roots[some, None]
        block += rows.T @ rows
    block *= 1 - COMMON
    diagonal = block.diagonal()
    diagonal += (COMMON * sums[-1] / curvature.count * curvature.spread).float()
    diagonal[:-1] += penalty
    if width > 1:
        diagonal[:-1].clamp_(min=curvature.flat * float(diagonal[:-1].max()))
    return block


def _inverted(block: Tensor) -> Tensor:
    """Return the inverse, with a ridge, and a larger one where rounding makes it indefinite."""
    scale = block.diagonal().clamp(min=1e-30).rsqrt()
    block *= scale * scale[:, None]
    ridge, failed = RIDGE, torch.tensor(1)
    while failed:
        block.diagonal().add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(block)
        ridge *= 10
    return torch.cholesky_inverse(factor).mul_(scale * scale[:, None])
