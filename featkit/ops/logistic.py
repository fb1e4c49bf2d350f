"""Logistic regression for many penalties at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from featkit.errors import UsageError
from featkit.ops.logistic_blocks import Preconditioning
from featkit.ops.logistic_curvature import Curvature
from featkit.ops.logistic_draws import draw_rows
from featkit.ops.logistic_losses import Loss, OneVersusRest, Softmax
from featkit.ops.logistic_newton import LOGITS, Newton, Problems
from featkit.ops.logistic_rows import BLOCK, HELD_FLOATS, Array, Rows, held_floats
from featkit.ops.neighbors import whole_number

Doubles: TypeAlias = npt.NDArray[np.float64]

ROUGH = 1e-4  # tolerance where something else is solved next: a lower λ, or all rows
FORCING = 0.1  # share of a gradient's length that a step may leave
STRIDE = 3.2  # from one penalty on the way to the next, at most: half a decade
KNOWN = 5  # solutions that lead on to the next
REDRAWN = 10  # steps by second derivatives of the same rows, where not all are held
EASY = 1e-3  # penalty over the largest squared singular value at which Newton may start from 0


@dataclass(frozen=True)
class LogisticPath:
    """Logistic regressions that differ in their penalty.

    Attributes:
        weights: float64 (q, c, d).
        biases: float64 (q, c).
        objectives: Losses and penalty, computed in float64 (q).
        gradients: ``√(gᵀ M⁻¹ g / F)``, float64 (q): g the gradient, F the objective, M close to the
            Hessian. Half of its square is about the share of F that is above the minimum.
        iterations: Newton steps, int64 (q), without those on the way to the penalty.
        converged: Whether ``tol`` was reached, bool (q).
    """

    weights: Doubles
    biases: Doubles
    objectives: Doubles
    gradients: Doubles
    iterations: npt.NDArray[np.int64]
    converged: npt.NDArray[np.bool_]


def fit_logistic(
    features: npt.ArrayLike,
    targets: npt.ArrayLike,
    n_classes: int,
    penalties: Sequence[float],
    *,
    rows: npt.ArrayLike | None = None,
    start: tuple[Array, Array] | None = None,
    tol: float = 1e-5,
    max_iter: int = 100,
    max_memory: float | None = None,
) -> LogisticPath:
    """Fit a logistic regression for each penalty λ.

    Classes: ``min Σ_i -log softmax(W x_i + b)_{y_i} + λ/2 ‖W‖²``. Targets of 0 and 1, a column k
    each: ``min Σ_i log(1 + exp(-s_ik (w_k·x_i + b_k))) + λ/2 ‖w_k‖²``, s = ±1.

    The losses are summed, not averaged, and biases are not penalised: λ is scikit-learn's 1 / C.
    Two classes have a row of W each, so that scikit-learn's single row has twice this λ.

    Newton's method, whose systems are solved by conjugate gradients to a tenth, along a path from
    large λ to small ones: each starts where a polynomial in log λ through the last few leads. A λ
    ends when a step promises to lower the objective by less than ``tol`` of it; that step is still
    taken. Where rows can be told apart without error and λ = 0 there is no minimum: it ends as not
    converged when the loss is 1e-9 a row.

    Args:
        features: (n, d), any real dtype, finite, as they are: not normalised. float64 is computed
            in float64, all else in float32. Memory-mapped arrays are read block by block.
        targets: Classes, whole numbers (n) in [0, n_classes), or 0 and 1, (n, k).
        n_classes: c, 2 or more; k where targets have columns.
        penalties: λ, q of them, each 0 or more, in any order.
        rows: Those to train on, whole numbers (m); all if None.
        start: Weights (q, c, d) and biases (q, c) to start from, such as those of fewer rows.
        tol: Share of an objective, above 0.
        max_iter: Newton steps of each λ, at most.
        max_memory: GB that may be taken beside features, targets and solutions; None for up to 10.

    Returns:
        A :class:`LogisticPath`, in the order of ``penalties``. Weights and biases of classes are
        those that sum to 0 over the classes.

    Raises:
        UsageError: Shapes, values or parameters cannot be used.

    Cost: Setting up takes 4·m·d² operations and an eigendecomposition of d³ (or m), and each λ
    some 5 to 50 products of 4·m·d·c operations; where these get many, c blocks are inverted, in
    some c·(16 + 2)·d³. Rows are held twice where they are 1 GiB at most (float64: 2), or a tenth of
    ``max_memory``, about their mean, 4·m·d bytes, and in their eigenbasis, half as much where the
    processor multiplies bfloat16, and of these once more the ones that bend most. Of more rows as
    many give the second derivatives, drawn where they bend, and all are read some 10 to 20 times,
    by all λ at once; some 40 times for small λ where fewer are held than W has numbers. As much
    again at most for derivatives by the logits, 4·m·q·c, and for blocks, 4·c·d². Solutions take
    8·q·c·d bytes, and some ten times that of the λ at work, twenty where not all rows are held.

    Source: the objective and λ as in Ericsson et al. 2021, arXiv:2011.13377, and scikit-learn.
    Truncated Newton steps: Lin, Weng, Keerthi 2008, JMLR 9:627. The preconditioner is a Kronecker
    product as in Martens & Grosse 2015, arXiv:1503.05671, or has a block for each class, as the
    partial Newton steps of Friedman, Hastie & Tibshirani 2010, J. Stat. Softw. 33:1. Second
    derivatives of a part of the rows: Byrd et al. 2011, SIAM J. Optim. 21:977; drawn by their
    weight: Xu et al. 2016, arXiv:1607.00559; mended by steps: Liu & Nocedal 1989, Math. Program.
    45:503.

    Example:
        >>> x, y = np.array([[-1.0], [1.0], [2.0], [4.0]]), np.array([0, 1, 0, 1])
        >>> fit_logistic(x, y, 2, [0.0, 1e6]).weights.round(3)
        array([[[-0.399],
                [ 0.399]],
        <BLANKLINE>
               [[-0.   ],
                [ 0.   ]]])
    """
    given, wanted, order = _checked(features, targets, n_classes, rows)
    asked = _checked_penalties(penalties, tol)
    whole_number(max_iter, "max_iter")
    most = min(HELD_FLOATS, held_floats(max_memory))
    loss: Loss = OneVersusRest() if wanted.ndim == 2 else Softmax()
    way = _Way(Rows(given, wanted, order), loss, n_classes, tol, max_iter, most)
    if start is not None:
        solved = way.finish(way.entering(start, len(asked)), asked)
        return way.path(solved)
    values = sorted(set(asked), reverse=True)
    found = way.along(values)
    return way.path([found[value] for value in asked])


class _Way:
    """The way through the penalties of one set of rows.

    Coefficients of a penalty are float64 (k, c, d + 1), biases last, of features about their mean:
    k problems (columns of the targets) of c classes.
    """

    def __init__(
        self, rows: Rows, loss: Loss, n_classes: int, tol: float, max_iter: int, most: int
    ) -> None:
        self.rows, self.loss, self.tol, self.max_iter = rows, loss, tol, max_iter
        self.most = most
        k, c = (n_classes, 1) if rows.targets.ndim == 2 else (1, n_classes)
        self.columns, self.shape = torch.arange(k), (k, c, rows.features.shape[1] + 1)
        self.rng = np.random.default_rng(0)
        count = max(1, most // self.shape[2])
        self.held = len(rows) if len(rows) <= self.shape[2] else min(len(rows), count)
        if len(rows) <= count:
            rows.hold()

    def along(self, penalties: list[float]) -> dict[float, Problems]:
        """Solve for descending penalties, each from where those before it lead.

        Of rows that are not all held, a sample comes first. All λ then go through all rows
        together, in as few passes as the slowest takes: each from the sample's solution that is
        best for it over all rows, and with second derivatives of rows that bend there.
        """
        if self.held == len(self.rows):
            return self._follow(self._newton(self.rows), penalties, self.tol)
        some = self.rng.choice(len(self.rows), self.held, replace=False, shuffle=False)
        sample = self.rows.sample(np.sort(some))
        sample.hold()
        found = self._follow(self._newton(sample), penalties, ROUGH)
        starts = torch.stack([stop.coefficients for stop in found.values()])
        del found, sample
        solved = self.finish(self._best(starts, penalties), penalties)
        return dict(zip(penalties, solved, strict=True))

    def finish(self, start: Tensor, penalties: Sequence[float]) -> list[Problems]:
        """Solve for some penalties from (q, k, c, d + 1), over all rows.

        Of rows that are not all held some are drawn for second derivatives, and after some steps
        others: where these lead other rows bend.
        """
        if self.held == len(self.rows):
            return self._solve(self._newton(self.rows), start, penalties, tol=self.tol)
        found: dict[int, Problems] = {}
        going = sorted(range(len(penalties)), key=penalties.__getitem__)
        for taken in range(0, self.max_iter, REDRAWN):
            most = min(REDRAWN, self.max_iter - taken)
            kept, counts = draw_rows(self.rows, self.loss, start[going], self.held, self.rng)
            solved = self._solve(
                self._newton(self.rows, kept, counts),
                start[going],
                [penalties[i] for i in going],
                tol=self.tol,
                max_iter=most,
            )
            found |= zip(going, solved, strict=True)
            cut = [bool((~part.converged & (part.iterations >= most)).any()) for part in solved]
            for i, part in zip(going, solved, strict=True):
                part.iterations += taken
                start[i] = part.coefficients
            going = [i for i, is_cut in zip(going, cut, strict=True) if is_cut]
            if not going:
                break
        return [found[i] for i in range(len(penalties))]

    def _newton(
        self, rows: Rows, kept: Array | None = None, counts: Tensor | None = None
    ) -> Newton:
        """Return what minimises over rows by second derivatives.

        Args:
            rows: All of them.
            kept: Those that give second derivatives, ascending; all if None.
            counts: How many each of these stands for.
        """
        if kept is None or counts is None:
            kept, counts = np.arange(len(rows)), torch.full((len(rows),), rows.weight)
        held = rows
        if len(kept) < len(rows):
            held = rows.sample(kept)
            held.hold()  # while they are read, several times
        curvature = Curvature(held, self.loss, counts)
        preconditioning = Preconditioning(curvature, self.shape[0] * self.shape[1], self.most)
        return Newton(rows, curvature, preconditioning, kept, self.most)

    def _follow(self, newton: Newton, penalties: list[float], tol: float) -> dict[float, Problems]:
        """Solve for descending penalties, and for others on the way to them."""
        found: dict[float, Problems] = {}
        passed: list[tuple[float, Tensor]] = []
        easy = EASY * max(newton.curvature.spread[:-1].tolist(), default=0.0)
        for stop in _stops(penalties, easy):
            (solved,) = self._solve(
                newton,
                self._start(newton, passed, stop)[None],
                [stop],
                tol=tol if stop in penalties else ROUGH,
                min_iter=1,  # small weights may not lower the objective much, and yet tell classes
            )
            found[stop] = solved
            passed = [*passed, (stop, solved.coefficients)][-KNOWN:]
        return found

    def entering(self, start: tuple[Array, Array], q: int) -> Tensor:
        """Return coefficients (q, k, c, d + 1) from weights and biases."""
        weights, biases = (np.asarray(part, dtype=np.float64) for part in start)
        k, c, width = self.shape
        if weights.shape != (q, k * c, width - 1) or biases.shape != (q, k * c):
            raise UsageError(
                f"start is of shapes {weights.shape} and {biases.shape}: give weights"
                f" {(q, k * c, width - 1)} and biases {(q, k * c)}"
            )
        if not (np.isfinite(weights).all() and np.isfinite(biases).all()):
            raise UsageError("start holds NaN or infinity: leave it out")
        centred = biases + weights @ self.rows.mean
        given = torch.from_numpy(np.concatenate([weights, centred[..., None]], 2))
        entered = given.view(-1, k, c, width)
        return entered - entered.mean(2, keepdim=True) if c > 1 else entered

    def path(self, solved: list[Problems]) -> LogisticPath:
        """Put together what was found for each penalty."""
        k, c, width = self.shape
        coefficients = torch.stack([part.coefficients for part in solved])
        if c > 1:
            coefficients -= coefficients.mean(2, keepdim=True)
        flat = coefficients.view(-1, k * c, width).numpy()
        penalties = torch.stack([part.penalties for part in solved])
        total = self._objectives(coefficients, penalties, torch.float64).sum(1)
        squares = torch.stack([part.gradients.square() * part.objectives for part in solved])
        return LogisticPath(
            flat[..., :-1],
            flat[..., -1] - flat[..., :-1] @ self.rows.mean,
            total.numpy(),
            (squares.sum(1) / total.clamp(min=1e-300)).sqrt().numpy(),
            torch.stack([part.iterations for part in solved]).amax(1).numpy(),
            torch.stack([part.converged for part in solved]).all(1).numpy(),
        )

    def _best(self, solved: Tensor, penalties: Sequence[float]) -> Tensor:
        """Return for each penalty and column the solution (k, c, d + 1) of any that is best."""
        losses = self._objectives(solved, torch.zeros(solved.shape[:2]))
        squares = solved[..., :-1].square().sum((2, 3))
        decay = torch.tensor(penalties, dtype=torch.float64)[:, None, None]
        best = (losses + decay / 2 * squares).argmin(1)  # of (q, solutions, k)
        return solved[best, torch.arange(best.shape[1])]

    def _objectives(
        self, coefficients: Tensor, penalties: Tensor, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return the objectives over all rows, float64 (q, k).

        Args:
            coefficients: float64 (q, k, c, d + 1).
            penalties: λ, (q, k).
            dtype: Of the logits; in float32 they err by 1e-7 of the objectives together.
        """
        k, c, _ = self.shape
        together = max(1, LOGITS // BLOCK // (2 * k * c))
        objectives = torch.empty(len(penalties), k, dtype=torch.float64)
        for start in range(0, len(penalties), together):
            some = slice(start, start + together)
            objectives[some] = self.rows.objectives(
                self.loss,
                coefficients[some].flatten(0, 1),
                penalties[some].flatten(),
                self.columns.repeat(len(penalties[some])),
                dtype,
            ).view(-1, k)
        return objectives

    def _solve(
        self,
        newton: Newton,
        start: Tensor,
        penalties: Sequence[float],
        *,
        tol: float,
        min_iter: int = 0,
        max_iter: int | None = None,
    ) -> list[Problems]:
        k = len(self.columns)
        problems = Problems.at(
            start.flatten(0, 1),
            torch.tensor(penalties, dtype=torch.float64).repeat_interleave(k),
            self.columns.repeat(len(penalties)),
        )
        most = self.max_iter if max_iter is None else max_iter
        done = newton.minimise(problems, tol=tol, forcing=FORCING, min_iter=min_iter, max_iter=most)
        return done.split(k)

    def _start(self, newton: Newton, passed: list[tuple[float, Tensor]], penalty: float) -> Tensor:
        """Return where those that are passed lead: the best of the polynomials through the last.

        The more stops it goes through the closer it follows, and the further it leads astray where
        λ hardly bends anything, so that stops are not exact.
        """
        if not passed:
            return self._origin()
        if len(passed) == 1 or not penalty:
            return passed[-1][1].clone()
        k = len(self.columns)
        guesses = [_guess(passed[-n:], penalty) for n in range(2, len(passed) + 1)]
        objectives = newton.rows.objectives(
            self.loss,
            torch.cat(guesses),
            torch.full((len(guesses) * k,), penalty, dtype=torch.float64),
            self.columns.repeat(len(guesses)),
        )
        return guesses[int(objectives.view(-1, k).sum(1).argmin())]

    def _origin(self) -> Tensor:
        """Return no weights, and the biases that are best then."""
        targets, origin = self.rows.targets, torch.zeros(self.shape, dtype=torch.float64)
        if targets.ndim == 1:
            counts = torch.bincount(targets, minlength=self.shape[1]).double().clamp(min=0.5)
            origin[0, :, -1] = counts.log() - counts.log().mean()
        else:
            m = targets.shape[1]
            ones = (targets > 0).sum(1).double().clamp(0.5, m - 0.5)
            origin[:, 0, -1] = (ones / (m - ones)).log()
        return origin


def _stops(penalties: list[float], easy: float) -> list[float]:
    """Return descending penalties from an easy one on, with others where they are far apart."""
    positive = [penalty for penalty in penalties if penalty > 0]
    stops = [max([easy, *positive])]
    for penalty in positive or [easy / STRIDE**3]:
        ratio = penalty / stops[-1]
        steps = math.ceil(-math.log(ratio) / math.log(STRIDE) - 1e-9)
        stops += [stops[-1] * ratio ** (i / steps) for i in range(1, steps)] + [penalty] * (
            ratio < 1
        )
    return stops + [0.0] * (0 in penalties)


def _guess(known: list[tuple[float, Tensor]], penalty: float) -> Tensor:
    """Guess coefficients at a penalty: a polynomial in log λ through those that are known."""
    x, logs = math.log(penalty), [math.log(value) for value, _ in known]
    guess = torch.zeros_like(known[0][1])
    for i, (_, coefficients) in enumerate(known):
        others = logs[:i] + logs[i + 1 :]
        guess += coefficients * math.prod((x - other) / (logs[i] - other) for other in others)
    return guess


def _checked(
    features: npt.ArrayLike, targets: npt.ArrayLike, n_classes: int, rows: npt.ArrayLike | None
) -> tuple[Array, Tensor, Array]:
    """Return the features, the targets of the rows that take part, and these rows."""
    x, y = np.asarray(features), np.asarray(targets)
    if x.ndim != 2 or x.dtype.kind not in "biuf" or not x.size:
        raise UsageError(
            f"features are {x.dtype} {x.shape}: give real numbers in the shape (rows, features)"
        )
    if y.ndim not in {1, 2} or len(y) != len(x) or y.dtype.kind not in "biuf":
        raise UsageError(
            f"targets are {y.dtype} {y.shape}: give {len(x)} classes, or {len(x)} rows of 0 and 1"
        )
    c = whole_number(n_classes, "n_classes")
    order = np.arange(len(x)) if rows is None else np.sort(np.asarray(rows))
    if order.ndim != 1 or order.dtype.kind not in "iu" or not len(order):
        raise UsageError(f"rows are {order.dtype} {order.shape}: give one or more whole numbers")
    if order[0] < 0 or order[-1] >= len(x):
        raise UsageError(f"rows go from {order[0]} to {order[-1]}: give some of 0 to {len(x) - 1}")
    chosen = y[order]
    if y.ndim == 2:
        if y.shape[1] != c or not np.isin(chosen, (0, 1)).all():
            raise UsageError(f"targets of shape {y.shape} must be 0 or 1 in {c} columns")
        return x, torch.from_numpy(np.ascontiguousarray(chosen.T != 0) * 2.0 - 1), order
    if c < 2 or not np.isin(chosen, np.arange(c)).all():
        raise UsageError(
            f"targets must be whole numbers from 0 to n_classes - 1 = {c - 1}, of 2 or more classes"
        )
    return x, torch.from_numpy(chosen.astype(np.int64)), order


def _checked_penalties(penalties: Sequence[float], tol: float) -> list[float]:
    given = np.asarray(penalties)
    numbers = given.ndim == 1 and len(given) and given.dtype.kind in "iuf"
    if not numbers or not ((given >= 0) & (given < np.inf)).all():
        raise UsageError(f"penalties are {penalties}: give some numbers, each 0 or more")
    if not 0 < tol < 1:
        raise UsageError(f"tol is {tol}: give a number between 0 and 1, such as 1e-5")
    return [float(value) for value in given]
