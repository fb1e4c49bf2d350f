"""Newton's method for many logistic regressions at once, its systems solved to some per cent."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch
from torch import Tensor

from featkit.ops.logistic_blocks import Preconditioning
from featkit.ops.logistic_curvature import Curvature, Hessians, Metric, inner, scaled
from featkit.ops.logistic_rows import BLOCK, HELD_FLOATS, Array, Rows
from featkit.ops.logistic_secants import REMEMBERED, Secants

LOGITS = 2**25  # of one block, with which some four arrays of this size are made
PRODUCTS = 250  # with the Hessian in one step, at most
REMAINDER = 0.01  # share of what is tolerated that a linear system may leave
SHORTENINGS = 12  # of one step, at most
NEGLIGIBLE = 1e-9  # objective a row at which all rows are fitted and there may be no minimum
NOISE = {torch.float32: 1e-7, torch.float64: 1e-14}  # share of an objective that is rounding


@dataclass
class Problems:
    """Where many minimisations stand.

    Attributes:
        coefficients: float64 (p, c, d + 1), biases last, of features about their mean.
        penalties: λ, float64 (p).
        columns: Of the targets, int64 (p).
        objectives: float64 (p).
        gradients: Relative lengths of the gradients, float64 (p).
        iterations: Steps taken, int64 (p).
        converged: bool (p).
    """

    coefficients: Tensor
    penalties: Tensor
    columns: Tensor
    objectives: Tensor
    gradients: Tensor
    iterations: Tensor
    converged: Tensor

    @classmethod
    def at(cls, coefficients: Tensor, penalties: Tensor, columns: Tensor) -> Problems:
        """Return problems that start from some coefficients."""
        p = len(penalties)
        unknown = torch.full((p,), torch.inf, dtype=torch.float64)
        return cls(
            coefficients,
            penalties,
            columns,
            unknown,
            unknown.clone(),
            torch.zeros(p, dtype=torch.int64),
            torch.zeros(p, dtype=torch.bool),
        )

    @classmethod
    def joined(cls, parts: list[Problems]) -> Problems:
        """Return the problems of several."""
        names = [field.name for field in fields(cls)]
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    def split(self, size: int) -> list[Problems]:
        """Return groups of as many problems."""
        parts = zip(*(getattr(self, field.name).split(size) for field in fields(self)), strict=True)
        return [Problems(*part) for part in parts]


class Newton:
    """Minimises over rows, with second derivatives from the rows that are held.

    Args:
        rows: All of them.
        curvature: Of those that are held.
        preconditioning: What the systems are solved with.
        kept: Which rows are held, ascending.
        most: Numbers of an array that grows with the problems at work together.
    """

    def __init__(
        self,
        rows: Rows,
        curvature: Curvature,
        preconditioning: Preconditioning,
        kept: Array,
        most: int = HELD_FLOATS,
    ) -> None:
        self.rows, self.curvature, self.kept = rows, curvature, kept
        self.preconditioning, self.most = preconditioning, most

    def minimise(
        self, start: Problems, *, tol: float, forcing: float, min_iter: int, max_iter: int
    ) -> Problems:
        """Minimise each problem until a step promises less than ``tol`` of its objective.

        Args:
            start: From where; its coefficients are overwritten.
            tol: That step is still taken.
            forcing: Share of the gradient's length that a linear system may leave.
            min_iter: Fewest steps.
            max_iter: Most steps.
        """
        p, c, width = start.coefficients.shape
        logits = min(LOGITS, self.most) // BLOCK
        most = min(self.most // len(self.kept), logits)
        if len(self.kept) < len(self.rows):
            most = min(most, self.most // (2 * REMEMBERED * width))
        together = max(1, most // c)
        parts = [
            Problems.at(
                start.coefficients[i : i + together],
                start.penalties[i : i + together],
                start.columns[i : i + together],
            )
            for i in range(0, p, together)
        ]
        for part in parts:
            _Descent(self, part, tol).run(forcing, min_iter, max_iter)
        return Problems.joined(parts)


class _Descent:
    """One group of problems on their way down."""

    def __init__(self, newton: Newton, problems: Problems, tol: float) -> None:
        p, c, _ = problems.coefficients.shape
        self.rows, self.curvature, self.kept = newton.rows, newton.curvature, newton.kept
        self.preconditioning = newton.preconditioning
        self.at, self.tol = problems, tol
        self.weights = torch.empty(p, c, len(self.kept))
        self.gradient = torch.empty_like(problems.coefficients)
        self.promised = torch.full((p,), torch.inf, dtype=torch.float64)
        self.length = self.promised.clone()
        self.noise = NOISE[self.rows.dtype]
        self.secants = Secants(p)

    def run(self, forcing: float, min_iter: int, max_iter: int) -> None:
        at = self.at
        live = torch.arange(len(at.penalties))
        at.objectives[:], self.gradient[:] = self._evaluate(at.coefficients, live)
        stuck = torch.zeros_like(at.converged)
        while len(live):
            metric = self.curvature.metric(self.weights, live, at.penalties[live])
            gradient = self.curvature.inside(self.gradient[live])
            length = inner(gradient, metric.solve(gradient))
            objective, promised = at.objectives[live], self.promised[live]
            rounding = (promised <= self.noise * objective) & (length > self.length[live] / 2)
            stuck[live] |= rounding
            self.length[live] = length
            at.gradients[live] = (length / objective.clamp(min=1e-300)).sqrt()
            tolerated = self.tol * objective
            alone = self.curvature.alone(self.gradient[live], metric, at.penalties[live])
            # by rounding a promise may be below 0
            done = (promised.abs() <= tolerated) | (length <= REMAINDER * tolerated)
            done &= alone <= tolerated
            at.converged[live] = done
            done |= objective <= NEGLIGIBLE * self.rows.weight * len(self.rows)
            ended = done | stuck[live] | (at.iterations[live] >= max_iter)
            go = torch.nonzero(~ended | (at.iterations[live] < min_iter)).squeeze(1)
            live = live[go]
            if not len(live):
                break
            solve = partial(
                self._solve, live, metric=metric.of(go), forcing=forcing, tolerated=tolerated[go]
            )
            step = self.secants.solve(live, -gradient[go], solve)
            self.promised[live] = -inner(gradient[go], step)
            stuck[live] = self._move(live, self.curvature.outside(step))
            at.iterations[live] += 1

    def _evaluate(self, coefficients: Tensor, problems: Tensor) -> tuple[Tensor, Tensor]:
        """Return objectives and gradients, and keep the weights of the rows that are held."""

        def keep(part: slice, weights: Tensor) -> None:
            first, stop = np.searchsorted(self.kept, (part.start, part.stop))
            if stop - first < weights.shape[2]:
                weights = weights[:, :, torch.from_numpy(self.kept[first:stop] - part.start)]
            self.weights[:, :, first:stop].index_copy_(0, problems, weights.float())

        return self.rows.evaluate(
            self.curvature.loss,
            coefficients,
            self.at.penalties[problems],
            self.at.columns[problems],
            keep,
        )

    def _solve(
        self, problems: Tensor, target: Tensor, metric: Metric, forcing: float, tolerated: Tensor
    ) -> Tensor:
        """Solve Hessian · step = target by preconditioned conjugate gradients, all together.

        Each until the gradient that is left has ``forcing`` of its length, or a step of the last
        rate along it promises a share of what is tolerated. Neither depends on the
        preconditioner's scale.
        """
        at = self.at
        solver = self.preconditioning.choose(
            metric, self.weights, at.penalties, at.columns, problems
        )
        hessians = Hessians(self.curvature, self.weights[problems], at.penalties[problems])
        step = torch.zeros_like(target)
        rest, now = target.clone(), torch.zeros_like(target)
        turned = solver.solve(rest)
        direction, length = turned, inner(rest, turned)
        least, enough = forcing**2 * length, REMAINDER * tolerated
        live, count = torch.arange(len(problems)), 0
        while len(live) and count < PRODUCTS:
            count += 1
            image = hessians.product(live, direction)
            bend = inner(direction, image)
            rate = torch.where(bend > 0, length / bend, float(count == 1))
            now += scaled(rate, direction)
            rest -= scaled(rate, image)
            turned = solver.solve(rest)
            before, length = length, inner(rest, turned)
            going = (length > least) & (rate * length > enough) & (bend > 0)
            if not going.all():
                step[live] = now
                live, solver = live[going], solver.of(going)
                now, rest, turned, direction = (v[going] for v in (now, rest, turned, direction))
                least, enough, before, length = (v[going] for v in (least, enough, before, length))
            direction = turned + scaled(length / before, direction)
        step[live] = now
        self.preconditioning.used(count)
        return step

    def _move(self, live: Tensor, step: Tensor) -> Tensor:
        """Advance; of rows that are not all held, keep what the step shows of the others."""
        if len(self.kept) == len(self.rows):
            return self._advance(live, step)
        before, slope = self.at.coefficients[live].to(self.rows.dtype), self.gradient[live]
        stuck = self._advance(live, step)
        moved = self.at.coefficients[live].to(self.rows.dtype) - before  # as gradients take them
        change = self.gradient[live] - slope
        self.secants.add(live, self.curvature.inside(moved), self.curvature.inside(change))
        return stuck

    def _advance(self, live: Tensor, step: Tensor) -> Tensor:
        """Take each step, or as much of it as lowers the objective; say which do not at all."""
        at = self.at
        rate = torch.ones(len(live), dtype=torch.float64)
        trying = torch.arange(len(live))
        for _ in range(SHORTENINGS):
            problems, share = live[trying], rate[trying]
            trial = at.coefficients[problems] + scaled(share, step[trying])
            objective, gradient = self._evaluate(trial, problems)
            before, promised = at.objectives[problems], self.promised[problems]
            rise = objective - before
            good = rise <= self.noise * before - 1e-4 * share * promised
            better = problems[good]
            at.coefficients[better], at.objectives[better] = trial[good], objective[good]
            self.gradient[better] = gradient[good]
            if good.all():
                return torch.zeros(len(live), dtype=torch.bool)
            parabola = promised * share / (2 * (rise + promised * share))
            rate[trying] *= torch.nan_to_num(parabola, nan=0.1).clamp(0.1, 0.5)
            trying = trying[~good]
        return torch.isin(torch.arange(len(live)), trying)
