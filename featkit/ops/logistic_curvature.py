"""Second derivatives of logistic regressions, and what is close to them and easily inverted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from featkit.ops.logistic_losses import Loss
from featkit.ops.logistic_rows import BLOCK, Rows

EXACT_FLOATS = 2**20  # rows of no more numbers are held in float32 everywhere
RESOLVED = 1e-6  # eigenvalues over the largest that float32 tells apart
RANK = 1e-13  # times the number of rows: eigenvalues over the largest that are rounding
NEGLIGIBLE = 1e-3  # second derivative of a row held, over the mean one's: less may be left out
MANY = 0.85  # share of rows from which on they are not worth leaving out
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
        counts: How many rows each one stands for, float32 (m).

    Attributes:
        counts: As given.
        count: Their sum.
        held: The rows in the basis, and 1, times the square roots of the counts, (m, r + 1).
        space: For as many; new memory would take longer than what is written into it.
        spread: Sum of ``held`` squared; float64 (r + 1).
    """

    def __init__(self, rows: Rows, loss: Loss, counts: Tensor) -> None:
        self.loss, self.rows = loss, len(rows)
        self.counts, self.count = counts, float(counts.sum(dtype=torch.float64))
        self.flat = FLAT[rows.dtype]
        roots = counts.sqrt()[:, None].to(rows.dtype)
        self._basis = _eigenbasis(rows, roots, whole=self.count <= len(rows))
        small = len(rows) * rows.features.shape[1] <= EXACT_FLOATS
        self._dtype = torch.float32 if small else product_dtype()
        self.targets = rows.targets
        self.held = torch.empty(len(rows), self._basis.shape[1] + 1, dtype=self._dtype)
        self.space = torch.empty_like(self.held)
        self.spread = torch.zeros(self._basis.shape[1] + 1, dtype=torch.float64)
        self._squares = torch.zeros(rows.features.shape[1] + 1, dtype=torch.float64)
        for part, block in rows.blocks():
            counted = block * roots[part]
            turned = self.inside(counted)
            self.spread += turned.square().sum(0, dtype=torch.float64)
            self._squares += counted.square().sum(0, dtype=torch.float64)
            self.held[part] = turned

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
        ``S = Σ_i x_i x_iᵀ``, as though a row's derivatives had nothing to do with where it lies;
        each row as often as it counts.
        """
        c = weights.shape[1]
        moments = torch.zeros(len(problems), c, c, dtype=torch.float64)
        for start in range(0, self.rows, BLOCK):
            part = slice(start, start + BLOCK)
            held = weights[:, :, part].index_select(0, problems)
            moments += self.loss.moments(held, self.targets[..., part], self.counts[part])
        moments /= self.count
        values, turn = torch.linalg.eigh(moments)
        floor = values[:, min(1, c - 1), None]  # that of softmax is 0 in one direction
        scale = torch.maximum(values, floor)[:, :, None] * self.spread
        scale[..., :-1] += penalties[:, None, None]
        largest = scale[..., :-1].flatten(1).amax(1) if self._basis.shape[1] else scale[:, 0, 0]
        scale[..., :-1].clamp_(min=self.flat * largest[:, None, None])
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


class Hessians:
    """Those of some problems where they are, from the rows held that bend any of them.

    Rows whose second derivatives are far below the mean's are left out where they are many, and
    stand in as their share of all rows' ``S``. Only the last one made of a curvature is valid.

    Args:
        curvature: Of the rows that are held.
        weights: Of these problems and rows, float32 (p, c, m).
        penalties: λ, (p).

    Attributes:
        kept: The rows that are used, bool (m).
    """

    def __init__(self, curvature: Curvature, weights: Tensor, penalties: Tensor) -> None:
        self.loss, self.weights = curvature.loss, weights
        self.held, self.targets = curvature.held, curvature.targets
        self.decay = scaled(penalties, torch.ones(1, weights.shape[1], len(curvature.spread)))
        self.decay[..., -1] = 0
        self.kept = torch.zeros(curvature.rows, dtype=torch.bool)
        for i in range(len(weights)):
            bends = self.loss.bends(weights[i : i + 1], self.targets)[0] * curvature.counts
            self.kept |= (bends >= NEGLIGIBLE * bends.mean(1, keepdim=True)).any(0)
        if int(self.kept.sum()) > MANY * curvature.rows:
            self.kept[:] = True
            return
        for i in range(len(weights)):
            bends = self.loss.bends(weights[i : i + 1], self.targets)[0, :, ~self.kept]
            rest = bends @ curvature.counts[~self.kept]
            self.decay[i] += rest[:, None] * (curvature.spread / curvature.count).float()
        chosen = torch.nonzero(self.kept).squeeze(1)
        self.held = torch.index_select(
            curvature.held, 0, chosen, out=curvature.space[: len(chosen)]
        )
        self.targets = self.targets[..., chosen]
        self.weights = weights.index_select(2, chosen)

    def product(self, problems: Tensor, directions: Tensor) -> Tensor:
        """Return the Hessians of some of the problems times a direction each.

        Args:
            problems: Which of them, int64 (p).
            directions: In the basis, float32 (p, c, r + 1).
        """
        p, c, width = directions.shape
        exact = directions.reshape(p * c, width)
        short = exact.to(self.held.dtype)
        total = torch.zeros(p * c, width)
        for start in range(0, len(self.held), BLOCK):
            part = slice(start, start + BLOCK)
            block, flat = self.held[part], short
            # the last block has any size, and oneDNN keeps room for each that it has seen
            if start and len(block) < BLOCK:
                block, flat = block.float(), exact
            change = (block @ flat.T).T.float().contiguous().view(p, c, -1)
            weights = self.weights[:, :, part].index_select(0, problems)
            moved = self.loss.curve(weights, change, self.targets[..., part]).view(p * c, -1)
            total += moved.to(block.dtype) @ block
        decayed = self.decay[problems] * directions
        return decayed.add_(total.view(p, c, width))


def _eigenbasis(rows: Rows, roots: Tensor, *, whole: bool) -> Tensor:
    """Return the eigenvectors of the rows' covariance, (d, r), in the dtype of the rows.

    All d of them, or where there are no more rows than features those that the rows span.

    Args:
        rows: (m, d).
        roots: What each row is multiplied by, (m, 1).
        whole: Whether no other rows are to be told by the basis.
    """
    d = rows.features.shape[1]
    if whole and len(rows) <= d:
        matrix = torch.cat([block[:, :-1].double() for _, block in rows.blocks()])
        values, vectors = torch.linalg.eigh(matrix @ matrix.T)
        some = values > RANK * len(rows) * values[-1]
        basis: Tensor = matrix.T @ (vectors[:, some] / values[some].sqrt())
        return basis.to(rows.dtype)
    for dtype in (torch.float32, torch.float64):
        products = torch.zeros(d, d, dtype=dtype)
        for part, block in rows.blocks():
            centred = (block[:, :-1] * roots[part]).to(dtype)
            products.addmm_(centred.T, centred)
        values, basis = torch.linalg.eigh(products)
        if values[0] > RESOLVED * values[-1]:
            break
    return basis.to(rows.dtype)
