"""Second derivatives of logistic regressions, and what is close to them and easily inverted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from featkit.ops.logistic_losses import Loss
from featkit.ops.logistic_rows import Rows

EXACT_FLOATS = 2**20  # rows of no more numbers are held in float32 everywhere
RESOLVED = 1e-6  # eigenvalues over the largest that float32 tells apart
RANK = 1e-13  # times the number of rows: eigenvalues over the largest that are rounding
FLAT = {torch.float32: 1e-7, torch.float64: 1e-16}  # of second derivatives: less is rounding


def product_dtype() -> torch.dtype:
    """Return bfloat16 where the processor multiplies it in hardware, else float32."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(bool(getattr(torch.cpu, check, bool)()) for check in checks)
    return torch.bfloat16 if native else torch.float32


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Return ``Σ a b`` of each problem, float64 (p)."""
    return (a * b).sum((1, 2), dtype=torch.float64)


def scaled(factors: Tensor, a: Tensor) -> Tensor:
    """Return each problem's matrix times its factor."""
    return a * factors.to(a.dtype)[:, None, None]


@dataclass(frozen=True)
class Metric:
    """``A ⊗ S + λ`` of each problem, in the eigenbases of A (classes) and S (features).

    Attributes:
        turn: Eigenvectors of A, float32 (p, c, c).
        scale: Eigenvalues of the whole, float32 (p, c, r + 1).
        own: Diagonal of A, float64 (p, c).
    """

    turn: Tensor
    scale: Tensor
    own: Tensor

    def solve(self, x: Tensor) -> Tensor:
        """Return the inverse times ``x`` (p, c, r + 1)."""
        return self.turn @ (self.turn.mT @ x / self.scale)

    def of(self, problems: Tensor) -> Metric:
        """Return that of some problems."""
        return Metric(self.turn[problems], self.scale[problems], self.own[problems])


class Curvature:
    """Rows in the eigenbasis of their covariance, held in memory for products with the Hessian.

    A product is only as exact as bfloat16 is: numbers in this basis keep their digits however much
    the features' variances differ.

    Args:
        rows: (m, d); they are read twice.
        loss: Of one row.

    Attributes:
        spread: Sum of squares along each vector of the basis, and m; float64 (r + 1).
    """

    def __init__(self, rows: Rows, loss: Loss) -> None:
        self.loss, self.weight, self.rows = loss, rows.weight, len(rows)
        self._flat = FLAT[rows.dtype]
        self._basis = _eigenbasis(rows)
        small = len(rows) * rows.features.shape[1] <= EXACT_FLOATS
        self._dtype = torch.float32 if small else product_dtype()
        self._blocks: list[tuple[slice, Tensor, Tensor]] = []
        self.spread = torch.zeros(self._basis.shape[1] + 1, dtype=torch.float64)
        self._squares = torch.zeros(rows.features.shape[1] + 1, dtype=torch.float64)
        for part, block in rows.blocks():
            turned = self.inside(block)
            self.spread += self.weight * turned.square().sum(0, dtype=torch.float64)
            self._squares += self.weight * block.square().sum(0, dtype=torch.float64)
            held = turned.to(self._dtype).T.contiguous()
            self._blocks.append((part, held, rows.targets[..., part]))

    def inside(self, x: Tensor) -> Tensor:
        """Turn (…, d + 1) into the basis, float32 (…, r + 1)."""
        x = x.to(self._basis.dtype)
        return torch.cat([x[..., :-1] @ self._basis, x[..., -1:]], -1).float()

    def outside(self, x: Tensor) -> Tensor:
        """Turn (…, r + 1) back, float64 (…, d + 1)."""
        x = x.to(self._basis.dtype)
        return torch.cat([x[..., :-1] @ self._basis.T, x[..., -1:]], -1).double()

    def metric(self, weights: Tensor, problems: Tensor, penalties: Tensor) -> Metric:
        """Return what is close to the Hessians of some problems.

        That is ``A ⊗ S + λ`` with A the mean of the rows' second derivatives by the logits and
        ``S = Σ_i x_i x_iᵀ``, as though a row's derivatives had nothing to do with where it lies.
        """
        c = weights.shape[1]
        moments = torch.zeros(len(problems), c, c, dtype=torch.float64)
        for part, _, targets in self._blocks:
            moments += self.loss.moments(weights[:, :, part].index_select(0, problems), targets)
        moments /= self.rows
        values, turn = torch.linalg.eigh(moments)
        floor = values[:, min(1, c - 1), None]  # that of softmax is 0 in one direction
        scale = torch.maximum(values, floor)[:, :, None] * self.spread
        scale[..., :-1] += penalties[:, None, None]
        largest = scale[..., :-1].flatten(1).amax(1) if self._basis.shape[1] else scale[:, 0, 0]
        scale[..., :-1].clamp_(min=self._flat * largest[:, None, None])
        own = moments.diagonal(dim1=1, dim2=2)
        return Metric(turn.float(), scale.clamp(min=1e-30).float(), own)

    def alone(self, gradient: Tensor, metric: Metric, penalties: Tensor) -> Tensor:
        """Return the most that some single coefficient promises, doubled; float64 (p).

        Where features differ so much in size that the basis has no digits left for the small ones,
        these still show here.

        Args:
            gradient: Not turned, float64 (p, c, d + 1).
            metric: Of the problems.
            penalties: λ, (p).
        """
        bend = metric.own[:, :, None] * self._squares
        bend[..., :-1] += penalties[:, None, None]
        return (gradient.square() / bend.clamp(min=1e-300)).amax((1, 2))

    def product(
        self, weights: Tensor, problems: Tensor, directions: Tensor, penalties: Tensor
    ) -> Tensor:
        """Return the Hessians of some problems times a direction each.

        Args:
            weights: Of all problems, float32 (q, c, m).
            problems: Which of them, int64 (p).
            directions: In the basis, float32 (p, c, r + 1).
            penalties: λ of these problems, (p).
        """
        p, c, width = directions.shape
        flat = directions.reshape(p * c, width).to(self._dtype)
        total = torch.zeros(width, p * c)
        for part, block, targets in self._blocks:
            change = (flat @ block).view(p, c, -1).float()
            held = weights[:, :, part].index_select(0, problems)
            moved = self.loss.curve(held, change, targets).view(p * c, -1)
            total += block @ moved.to(self._dtype).T
        decayed = scaled(penalties, directions)
        decayed[..., -1] = 0
        return decayed.add_(total.T.view(p, c, width), alpha=self.weight)


def _eigenbasis(rows: Rows) -> Tensor:
    """Return the eigenvectors of the rows' covariance, (d, r), in the dtype of the rows.

    All d of them, or where there are no more rows than features those that the rows span.
    """
    d = rows.features.shape[1]
    if len(rows) <= d:
        matrix = torch.cat([block[:, :-1].double() for _, block in rows.blocks()])
        values, vectors = torch.linalg.eigh(matrix @ matrix.T)
        some = values > RANK * len(rows) * values[-1]
        basis: Tensor = matrix.T @ (vectors[:, some] / values[some].sqrt())
        return basis.to(rows.dtype)
    for dtype in (torch.float32, torch.float64):
        products = torch.zeros(d, d, dtype=dtype)
        for _, block in rows.blocks():
            centred = block[:, :-1].to(dtype)
            products.addmm_(centred.T, centred)
        values, basis = torch.linalg.eigh(products)
        if values[0] > RESOLVED * values[-1]:
            break
    return basis.to(rows.dtype)
