"""What steps have shown of a Hessian, where only some rows' second derivatives are at hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from featkit.ops.logistic_curvature import inner, scaled

REMEMBERED = 10  # steps
ROUNDING = 1e-6  # bend along a step, over the lengths of the step and the change


class Secants:
    """Mends solutions by the Hessians of some rows so that they agree with the last steps.

    A step and the change of the gradient along it are a product with the Hessian of all rows that
    costs nothing. Newton's steps by another Hessian converge like a fixed iteration; these do
    nearly like conjugate gradients that have it as their preconditioner.

    Args:
        problems: How many there are.

    Source: Liu & Nocedal 1989, Math. Program. 45:503, algorithm 2.1 (L-BFGS), whose first matrix
    is the inverse of the other Hessian.
    """

    def __init__(self, problems: int) -> None:
        self.problems = problems
        self._known: deque[tuple[Tensor, ...]] = deque(maxlen=REMEMBERED)

    def add(self, problems: Tensor, step: Tensor, change: Tensor) -> None:
        """Take note of a step of some problems, and of the change of the gradient along it."""
        bend = inner(step, change)
        lengths = (inner(step, step) * inner(change, change)).sqrt()
        rate = torch.where(bend > ROUNDING * lengths, 1 / bend, 0.0)
        self._known.append(tuple(self._placed(problems, part) for part in (step, change, rate)))

    def solve(self, problems: Tensor, target: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the solution of Hessian · step = target.

        Args:
            problems: Which of them, int64.
            target: (p, c, r + 1).
            solve: Returns the solution with the other Hessian.
        """
        shares = []
        for step, change, rate in reversed(self._known):
            shares.append(rate[problems] * inner(step[problems], target))
            target = target - scaled(shares[-1], change[problems])
        found = solve(target)
        for step, change, rate in self._known:
            share = shares.pop() - rate[problems] * inner(change[problems], found)
            found = found + scaled(share, step[problems])
        return found

    def _placed(self, problems: Tensor, part: Tensor) -> Tensor:
        """Return a part for all problems, 0 where it says nothing."""
        return part.new_zeros(self.problems, *part.shape[1:]).index_copy_(0, problems, part)
